"""People's own images: which folders count, what is carved out, what is said of the rest."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.transforms import functional as TF

from data.images.decode import FORMATS, read_image
from data.images.ignored_files import SUFFIXES
from tests.helpers.commands import ROOT, Finished, read_json, run_trainer, train
from tests.helpers.image_files import (
    PARTS,
    SHAPE,
    images_of,
    load,
    notes_of,
    pack_folder,
    paths_of,
    refused,
    splits_of,
    write_classes,
    write_image,
    write_parts,
)


def test_a_folder_of_classes_is_carved_class_by_class(tmp_path: Path) -> None:
    root = write_classes(tmp_path, per_class=20)
    made = load(root, val_size=0.25, test_size=0.2)
    files, found = sorted(root.glob("*/*.png")), []
    for part, per_class in (("train", 12), ("val", 4), ("test", 4)):
        split = getattr(made, part)
        paths = paths_of(split, files)
        assert paths == sorted(paths)
        assert [made.classes[label] for label in split.labels] == [p.parent.name for p in paths]
        assert split.labels.bincount().tolist() == [per_class] * 3
        found += paths
    assert sorted(found) == files
    assert made.classes == ("cat", "dog", "owl")
    assert made.shape == SHAPE


@pytest.mark.parametrize("parts", [("train",), ("train", "val"), ("train", "test"), PARTS])
def test_splits_that_have_folders_are_taken_as_they_are(
    tmp_path: Path, parts: tuple[str, ...]
) -> None:
    """As torchvision's ImageFolder finds them; what is missing comes out of train."""
    root = write_parts(tmp_path, *parts)
    made = load(root, val_size=0.25, test_size=0.2)
    files = sorted(root.rglob("*.png"))
    found = {part: paths_of(split, files) for part, split in splits_of(made).items()}
    for part in parts:
        theirs = ImageFolder(str(root / part))
        assert tuple(theirs.classes) == made.classes
        samples = [(Path(path), label) for path, label in theirs.samples]
        pool = [part] if part != "train" else ["train", *(p for p in PARTS if p not in parts)]
        ours = [
            (path, int(label))
            for own in pool
            for path, label in zip(found[own], splits_of(made)[own].labels, strict=True)
        ]
        assert sorted(ours) == sorted(samples)
    sizes = {("train",): [18, 6, 6], ("train", "val"): [24, 30, 6], ("train", "test"): [22, 8, 30],
             PARTS: [30, 30, 30]}  # fmt: skip
    assert [len(found[part]) for part in PARTS] == sizes[parts]


def test_images_are_what_predict_and_torchvision_make_of_them(tmp_path: Path) -> None:
    root, shape = write_classes(tmp_path), (3, 12, 12)
    images = torch.cat([images_of(s) for s in splits_of(load(root, shape=list(shape))).values()])
    packed = sorted(image.numpy().tobytes() for image in images)
    files, theirs = sorted(root.glob("*/*.png")), []
    assert packed == sorted(read_image(file, shape, resize=12).tobytes() for file in files)
    for file in files:
        with Image.open(file) as picture:
            cropped = TF.center_crop(TF.resize(picture, 12), [12, 12])
        theirs.append(TF.pil_to_tensor(cropped).numpy().tobytes())
    assert packed == sorted(theirs)


def save_as(path: Path, mode: str, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    deep = {"I;16": np.uint16, "F": np.float32}
    if mode in deep:
        pixels = np.full((12, 16), value * 257 if mode == "I;16" else value / 255, deep[mode])
        Image.fromarray(pixels).save(path)
    else:
        Image.new("L", (16, 12), value).convert(mode).save(path)


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("L", "png"), ("LA", "png"), ("RGB", "bmp"), ("RGBA", "png"), ("P", "gif"), ("1", "png"),
     ("CMYK", "tif"), ("I;16", "png"), ("I;16", "tif"), ("F", "tif")],
)  # fmt: skip
def test_images_of_every_mode(tmp_path: Path, mode: str, suffix: str) -> None:
    """Dark and bright stay so; nothing is saturated."""
    values = {"dark": 0, "bright": 255} if mode == "1" else {"dark": 51, "bright": 204}
    for name, value in values.items():
        for i in range(3):
            save_as(tmp_path / name / f"{i}.{suffix}", mode, value)
    made = load(tmp_path, val_size=0.5, test_size=0.34)
    for split in splits_of(made).values():
        for image, label in zip(images_of(split), split.labels, strict=True):
            assert set(image.unique().tolist()) == {values[made.classes[label]]}


def test_files_at_any_depth_count_and_hidden_ones_do_not(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "root")
    expected = load(root).fingerprint
    for hidden in (".git/x.png", ".trash/cat/x.png", "cat/.hidden.png", "cat/._00.png",
                   "cat/.ipynb_checkpoints/00-checkpoint.png", "dog/__MACOSX/x.png"):  # fmt: skip
        write_image(root / hidden)
    for other in ("cat/Thumbs.db", "cat/.DS_Store", ".DS_Store", "readme.txt"):
        (root / other).write_text("not an image")
    made = load(root)
    assert made.fingerprint == expected
    assert notes_of(made) == ("passed over, since systems leave such: Thumbs.db, __MACOSX",)
    for nested in ("cat/more/x.png", "cat/more/still/x.PNG"):
        write_image(root / nested, seed=len(nested))
    (tmp_path / "elsewhere").mkdir()
    write_image(tmp_path / "elsewhere" / "linked.png", seed=77)
    (root / "dog" / "link").symlink_to(tmp_path / "elsewhere")
    (root / "dog" / "circle").symlink_to(root / "dog")
    (root / "cat" / "up").symlink_to("..")
    (root / "cat" / "more" / "top").symlink_to(tmp_path)
    made = load(root)
    assert sum(len(split) for split in splits_of(made).values()) == 33
    counts = sum(split.labels.bincount() for split in splits_of(made).values())
    assert counts.tolist() == [12, 11, 10]


def test_what_is_no_image_by_its_name_is_counted(tmp_path: Path) -> None:
    root = write_classes(tmp_path)
    for name in ("cat/notes.txt", "dog/labels.csv", "dog/more.csv", "owl/LICENSE"):
        (root / name).write_text("words")
    write_image(root / "lost.png")
    notes = notes_of(load(root))
    assert len(notes) == 2
    assert notes[0].startswith("4 files in the class folders are no images and are left out")
    assert notes[0].endswith("2 .csv, 1 .txt, 1 without a suffix")
    assert notes[1].startswith(f"1 image in {root} lies in no class folder")


def test_suffixes_are_pillows_of_the_formats_that_are_read() -> None:
    known = Image.registered_extensions().items()
    assert set(SUFFIXES) == {suffix for suffix, name in known if name in FORMATS}


def test_classes_may_have_any_plain_name(tmp_path: Path) -> None:
    names = ("Große Katze", "gâteau, rouge", "犬", "test", "x=1")
    assert load(write_classes(tmp_path, names), val_size=0.2).classes == tuple(sorted(names))


def test_colours_and_grey(tmp_path: Path) -> None:
    root = write_classes(tmp_path)
    made = load(root)
    assert made.mean == (0.485, 0.456, 0.406)
    assert made.std == (0.229, 0.224, 0.225)
    assert made.hflip is True
    grey = load(root, shape=[1, 12, 16])
    assert grey.mean == (pytest.approx(0.299 * 0.485 + 0.587 * 0.456 + 0.114 * 0.406),)
    expected = read_image(root / "cat" / "00.png", (1, 12, 16), resize=12)
    everything = torch.cat([images_of(split) for split in splits_of(grey).values()])
    assert (everything == torch.from_numpy(expected)).flatten(1).all(dim=1).sum() == 1
    assert "1 or 3 channels" in refused(root, shape=[4, 12, 16])


# On the command line


def test_messages_end_with_exit_code_2(tmp_path: Path, dispatch: Callable[..., Finished]) -> None:
    root = write_classes(tmp_path / "root", ["cat"])
    for words, said in (
        ([], "data.root=FOLDER"),
        ([f"data.root={root}"], "one class folder only, cat"),
        ([f"data.root={root}", "data.on_bad_image=leave"], "data.on_bad_image=leave"),
    ):
        done = dispatch("data=image_folder", *words)
        assert done.returncode == 2, done.output
        assert said in done.output
        assert "Traceback" not in done.output
    assert not (tmp_path / "outputs").exists()
    write_classes(root, ["cat", "dog"])
    assert dispatch("summary", "data=image_folder", f"data.root={root}").returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_packing_ends_the_command(tmp_path: Path, number: int) -> None:
    large = write_image(tmp_path / "large.png", size=(1500, 1500))
    for i in range(600):
        path = tmp_path / "root" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.hardlink_to(large)
    process = subprocess.Popen(
        [sys.executable, "-m", "trainer", "data=image_folder", "data.root=root"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE,
    )  # fmt: skip
    started = time.monotonic()
    while not pack_folder(tmp_path / "root").exists() and time.monotonic() - started < 100:
        time.sleep(0.05)
    process.send_signal(number)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 128 + number, said
    assert b"Traceback" not in said
    assert sorted(path.name for path in (tmp_path / "root").iterdir()) == ["a", "b"]


@pytest.mark.slow
def test_train_on_a_folder_and_predict_one_of_its_images(tmp_path: Path) -> None:
    """Dark and bright images, which are learned in two epochs; one that is cut off."""
    for name, low in (("bright", 155), ("dark", 0)):
        for i in range(40):
            pixels = np.random.default_rng(i).integers(low, low + 100, (40, 50, 3), np.uint8)
            path = tmp_path / "pictures" / name / f"{i}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    path.write_bytes(b"cut off")
    words = ["data=image_folder", "data.root=pictures", "data.shape=[3,16,16]", "epochs=2",
             "batch_size=8"]  # fmt: skip
    done = run_trainer(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert "dark/39.jpg: not an image" in done.output
    run = train(tmp_path, *words, "data.on_bad_image=skip")
    assert run.summary["test_accuracy"] == 1
    assert "1 of 80 images cannot be used" in run.command.output
    done = run_trainer("predict", str(run.best), "pictures/dark/7.jpg", "--json", cwd=tmp_path)
    assert '"class": "dark"' in done.stdout.partition("}")[0]
    again = train(tmp_path, *words, "data.on_bad_image=skip", folder="again")
    assert again.summary["weights_sha256"] == run.summary["weights_sha256"]
    assert read_json(again.folder / "summary.json")["status"] == "finished"

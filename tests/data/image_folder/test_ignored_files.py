"""What lies among images and is none of the data: of systems, of this program, of other kinds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from data.images.file_types import claims_to_be_an_image
from data.images.ignored_files import MARK, Passed, is_own, walk
from tests.helpers.commands import Finished, TrainedRun, run_trainer
from tests.helpers.image_files import load, paths_of, refused, splits_of, write_classes, write_parts

from tests.helpers.image_files import write_image  # isort: skip

Dispatch = Callable[..., Finished]
QUIET = ("tensorboard=false", "epochs=1", "data.shape=[3,12,12]", "model.hidden=[4]")

SYSTEMS = ("@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found",
           ".ipynb_checkpoints", "__MACOSX", ".Trash-1000", "__pycache__")  # fmt: skip


@pytest.mark.parametrize("where", ["", "cat", "cat/deep/er", "train", "train/owl", "test/cat"])
@pytest.mark.parametrize("name", SYSTEMS)
def test_what_systems_leave_is_passed_over_at_every_level(
    tmp_path: Path, where: str, name: str
) -> None:
    in_parts = where.startswith(("train", "test"))
    root = write_parts(tmp_path, "train", "test") if in_parts else write_classes(tmp_path)
    if "deep" in where:
        write_image(root / where / "x.png", seed=5)
    expected = load(root)
    write_image(root / where / name / "cat" / "thumbnail.jpg", seed=9)
    made = load(root)
    assert made.fingerprint == expected.fingerprint
    assert made.classes == ("cat", "dog", "owl")
    told = [note for note in made.notes if "systems leave" in note]
    assert len(told) == (name[0] != ".")
    assert all(name in note for note in told)


@pytest.mark.parametrize("sign", [".hydra/config.yaml", "metrics.jsonl", "evaluation.json", MARK])
@pytest.mark.parametrize("where", ["runs/first", "first", "cat/first", "outputs/a/b"])
def test_what_the_program_wrote_is_no_data(tmp_path: Path, sign: str, where: str) -> None:
    root = write_classes(tmp_path)
    expected = load(root).fingerprint
    (root / where / sign).parent.mkdir(parents=True)
    (root / where / sign).write_text("")
    write_image(root / where / "evaluation" / "test" / "confusion.png", seed=1)
    write_image(root / where / "mistakes.png", seed=2)
    made = load(root)
    assert made.fingerprint == expected
    assert any("this program wrote" in note for note in made.notes)


@pytest.mark.parametrize("name", ["outputs", "evaluation", "checkpoints", "runs", "2026-01-01"])
def test_a_class_of_such_a_name_is_a_class(tmp_path: Path, name: str) -> None:
    root = write_classes(tmp_path, ["cat", name])
    assert load(root).classes == tuple(sorted(["cat", name]))
    (root / name / "2026-01-01" / "11-22-33" / ".hydra").mkdir(parents=True)  # a run within it
    write_image(root / name / "2026-01-01" / "11-22-33" / "confusion.png", seed=7)
    made = load(root)
    assert made.classes == tuple(sorted(["cat", name]))
    assert sum(len(split) for split in splits_of(made).values()) == 20


def test_a_class_in_which_a_run_was_written_stays_one(tmp_path: Path) -> None:
    root = write_classes(tmp_path)
    (root / "cat" / ".hydra").mkdir()
    (root / "cat" / "metrics.jsonl").write_text("")
    write_image(root / "cat" / "evaluation" / "confusion.png", seed=7)
    made = load(root)
    assert made.classes == ("cat", "dog", "owl")
    assert sum(len(split) for split in splits_of(made).values()) == 30
    assert not is_own(root / "cat")


def test_a_folder_without_images_is_still_an_error(tmp_path: Path) -> None:
    root = write_classes(tmp_path)
    (root / "outputs" / "mine").mkdir(parents=True)
    assert f"{root}/outputs" in refused(root)
    (root / "outputs" / "mine" / "multirun.yaml").write_text("")
    load(root)


@pytest.mark.slow
def test_training_from_within_the_folder_and_again(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "photos")
    words = ("data=image_folder", "data.root=.", *QUIET)
    for _ in range(2):
        done = run_trainer(*words, cwd=root)
        assert done.returncode == 0, done.output
        assert "3 classes" in done.output
    (root / ".hydra").mkdir()  # as of hydra.run.dir=.
    (root / "checkpoints").mkdir()
    (root / "tensorboard").mkdir()
    assert load(root).classes == ("cat", "dog", "owl")


# What is an image


def write_odd(root: Path) -> list[Path]:
    """Images that their names do not tell."""
    write_image(root / "a.jpg")
    made = []
    for name, kind in (("jpeg_called.heic", "JPEG"), ("without", "PNG"), ("odd.x1", "GIF"),
                       ("b.dat", "BMP"), ("t.photo", "TIFF"), ("w.bin", "WEBP"),
                       ("p.text", "PPM")):  # fmt: skip
        with Image.open(root / "a.jpg") as image:
            image.resize((19, 17 + len(made))).save(root / name, kind)
        made.append(root / name)
    (root / "a.jpg").unlink()
    return made


def write_others(root: Path) -> list[Path]:
    contents = {"README.txt": b"BMW is a maker of cars\n", "labels.csv": b"P5, a post code\n",
                "more.json": b"{}", "film.mp4": b"\0\0\0\x18ftypmp42\0\0\0\0", "empty": b"",
                "archive.zip": b"PK\3\4"}  # fmt: skip
    for name, content in contents.items():
        (root / name).write_bytes(content)
    return [root / name for name in contents]


def test_images_are_told_by_content(tmp_path: Path) -> None:
    root = write_classes(tmp_path)
    odd, others = write_odd(root / "cat"), write_others(root / "dog")
    assert all(claims_to_be_an_image(path) for path in odd)
    assert not any(claims_to_be_an_image(path) for path in others)
    made = load(root)
    files = [*root.glob("*/*.png"), *odd]
    assert sorted(p for s in splits_of(made).values() for p in paths_of(s, files)) == sorted(files)
    (note,) = [note for note in made.notes if "no images" in note]
    assert note.startswith("6 files in the class folders are no images and are left out: ")


@pytest.mark.parametrize("name", ["page.png", "pointer.jpg", "photo.heic", "photo.jpg", "film"])
def test_what_claims_to_be_an_image_and_is_none_is_named(tmp_path: Path, name: str) -> None:
    root = write_classes(tmp_path)
    content = {"page.png": b"<!DOCTYPE html><html>", "pointer.jpg": b"version https://git-lfs"}
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(60)
    (root / "cat" / name).write_bytes(content.get(name, heic))
    assert f"{root}/cat/{name}: " in refused(root)
    load(root, on_bad_image="skip", val_size=0.3, test_size=0.3)


@pytest.mark.slow
def test_predict_takes_the_same_files(default_run: TrainedRun, dispatch: Dispatch) -> None:
    root = write_classes(Path("photos"), ["cat"], per_class=2)
    odd = write_odd(root / "cat")
    write_others(root / "cat")
    for name in ("cat/@eaDir/SYNO_THUMB.jpg", "outputs/2026-01-01/10-10-10/x.png"):
        write_image(root / name)
    best = str(default_run.best)
    for words in (("photos",), ("photos/**/*",), ("photos/*",)):
        done = dispatch("predict", best, *words, "--json")
        assert done.returncode == 0, done.output
        assert done.stdout.count('"top"') == 2 + len(odd)
        assert "6 files are no images and are passed over" in done.stderr
    done = dispatch("predict", best, "photos/cat/README.txt")  # named: it is tried
    assert done.returncode == 1


@pytest.mark.slow
def test_annotated_copies_are_no_data(default_run: TrainedRun, dispatch: Dispatch) -> None:
    root = write_classes(Path("photos"))
    best, expected = str(default_run.best), load(root.absolute()).fingerprint
    done = dispatch("predict", best, "photos", "-o", "photos/shown")
    assert done.returncode == 0, done.output
    assert load(root.absolute()).fingerprint == expected
    assert dispatch("predict", best, "photos", "--json").stdout.count('"top"') == 30
    passed = Passed()
    assert len(list(walk(root, print, passed))) == 30
    assert passed.own == ["photos/shown"]


# What is told before and after a training


def test_copies_contradictions_and_unequal_classes_are_told(tmp_path: Path) -> None:
    root = write_parts(tmp_path, "train", "val", "test")
    assert load(root).notes == ()
    same = (root / "train/cat/00.png").read_bytes()
    (root / "test/cat/copy.png").write_bytes(same)
    (root / "val/dog/copy.png").write_bytes(same)
    for i in range(35):
        write_image(root / "train" / "owl" / f"more{i}.png", seed=50_000 + i)
    unequal, of_test, of_val, torn = load(root).notes
    assert unequal.startswith("classes are unequal in train: 45 images of owl, 10 of cat")
    assert of_test.startswith("exact copies: 1 test image is in train")
    assert "test/cat/copy.png = train/cat/00.png" in of_test
    assert of_val.startswith("exact copies: 1 val image is")
    assert torn.startswith("contradictions: 1 image stands under more than one label: ")
    assert "train/cat/00.png (cat) = val/dog/copy.png (dog)" in torn


def test_many_tiny_classes_get_advice_that_helps(tmp_path: Path) -> None:
    root = write_classes(tmp_path, [f"kind {k:02}" for k in range(12)], per_class=4)
    message = refused(root)
    line = message.splitlines()[-1]
    assert line.startswith("With data.test_size=0.25 data.val_size=0.334 each split gets one image")
    made = load(root, test_size=0.25, val_size=0.334)
    assert [len(split) for split in splits_of(made).values()] == [24, 12, 12]

"""Folders and images of people's own that cannot be used: named, or left out on request."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.helpers.image_files import (
    PARTS,
    as_nobody,
    composed,
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


def broken_folders(root: Path, tmp_path: Path) -> dict[str, tuple[Callable[[], object],
                                                                  Callable[[], object],
                                                                  list[str]]]:  # fmt: skip
    """Name -> how it comes about, how it is mended, words of the message."""

    def move_all(into: str) -> None:
        for name in ("cat", "dog", "owl"):
            shutil.move(root / name, root / into / name)

    def write_test(*classes: str) -> None:
        write_classes(root / "test", classes, per_class=1)

    return {
        "empty": (lambda: [(root / name).mkdir() for name in ("ape", "yak")],
                  lambda: [(root / name).rmdir() for name in ("ape", "yak")],
                  [f"{root}/ape", f"{root}/yak", "Fill or remove"]),
        "no images": (lambda: write_image(root / "ape" / ".x.png"),
                        lambda: shutil.rmtree(root / "ape"), [f"{root}/ape"]),
        "one class": (lambda: move_all("all"), lambda: [
                          shutil.move(path, root) for path in (root / "all").iterdir()
                      ] + [(root / "all").rmdir()],
                      ["one class folder only, all"]),
        "case": (lambda: write_image(root / "Cat" / "x.png"),
                 lambda: shutil.rmtree(root / "Cat"), ["'Cat' and 'cat'"]),
        "accents": (lambda: [write_image(root / name / "x.png") for name in ("\xe9", "e\u0301")],
                    lambda: [shutil.rmtree(root / name) for name in ("\xe9", "e\u0301")],
                    ["hardly differ"]),
        "bytes": (lambda: os.mkdir(os.fsencode(root) + b"/\xff"),
                  lambda: os.rmdir(os.fsencode(root) + b"/\xff"), ["no plain text"]),
        "lacking": (lambda: (move_all("train"), write_test("cat", "wolf")),
                    lambda: (shutil.rmtree(root / "test"), write_test("cat", "dog", "owl")),
                    [f"{root}/test lacks dog, owl", f"{root}/test has besides wolf"]),
        "no train": (lambda: move_all("val"), lambda: shutil.move(root / "val", root / "train"),
                     ["no folder train"]),
        "valid": (lambda: (move_all("train"), write_classes(root / "valid"),
                           write_classes(root / "val")),
                  lambda: shutil.rmtree(root / "valid"),
                  ["val, valid, both names of the val split"]),
        "no folders in test": (lambda: (move_all("train"), (root / "test").mkdir()),
                               lambda: (root / "test").rmdir(),
                               [f"{root}/test has no class folders"]),
        "empty in val": (lambda: (move_all("train"), write_classes(root / "val"),
                                  [path.unlink() for path in (root / "val/owl").iterdir()]),
                         lambda: shutil.rmtree(root / "val"),
                         [f"{root}/val/owl", f"Move some there from {root}/train",
                          f"move {root}/val out of {root}"]),
        "too few": (lambda: [write_image(root / "ape" / f"{i}.png", i) for i in range(2)],
                    lambda: write_image(root / "ape" / "2.png", 2), ["ape", "3 or more"]),
        "elsewhere": (lambda: shutil.move(root, tmp_path / "other"),
                      lambda: shutil.move(tmp_path / "other", root),
                      [f"{root} does not exist", "data.root=FOLDER names it"]),
        "no folders": (lambda: move_all(".hidden"), lambda: [
                           shutil.move(path, root) for path in (root / ".hidden").iterdir()
                       ],
                       ["has no class folders"]),
    }  # fmt: skip


BROKEN = sorted(broken_folders(Path(), Path()))


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_wrong_with_the_folders_is_named(tmp_path: Path, name: str) -> None:
    root = write_classes(tmp_path / "root")
    (root / ".hidden").mkdir()
    harm, mend, words = broken_folders(root, tmp_path)[name]
    harm()
    message = refused(root, val_size=0.2, test_size=0.2)
    for word in words:
        assert word in message
    assert not list(tmp_path.rglob("*.pack"))
    mend()
    assert len(load(root, val_size=0.2, test_size=0.2).classes) >= 3


@pytest.mark.parametrize(
    ("names", "sizes"),
    [
        (["Train", "Test"], [27, 3, 30]),
        (["training_set", "test_set"], [27, 3, 30]),
        (["TRAIN", "val"], [27, 30, 3]),
        (["training", "validation", "testing"], [30, 30, 30]),
        (["train", "dev"], [27, 30, 3]),
        (["train", "valid", "test"], [30, 30, 30]),
    ],
)
def test_splits_of_other_names_are_splits(
    tmp_path: Path, names: list[str], sizes: list[int]
) -> None:
    root = write_parts(tmp_path, *names)
    made = load(root)
    assert made.classes == ("cat", "dog", "owl")
    assert [len(split) for split in splits_of(made).values()] == sizes
    if "train" not in names:  # the twin: beside a class they are classes
        write_classes(root, ["cat"])
        assert load(root).classes == tuple(sorted([*names, "cat"]))


@pytest.mark.parametrize("part", ["val", "test"])
def test_unlabelled_images_of_a_split_are_left_out_and_it_is_drawn(
    tmp_path: Path, part: str
) -> None:
    root = write_parts(tmp_path, "train")
    for i in range(5):
        write_image(root / part / f"{i}.png")
    made = load(root)
    assert [len(split) for split in splits_of(made).values()] == [24, 3, 3]
    assert notes_of(made) == (
        f"5 images lie in {root}/{part} without class folders: they have no labels to measure with "
        f"and are left out; {part} images are taken from train instead",
    )


def test_rubbish_beside_the_splits_harms_nothing(tmp_path: Path) -> None:
    root = write_parts(tmp_path, *PARTS)
    expected = load(root).fingerprint
    for name in (".ipynb_checkpoints", "__MACOSX", ".git"):
        write_image(root / name / "x.png")
    assert load(root).fingerprint == expected


def test_a_folder_that_may_not_be_read(tmp_path: Path) -> None:
    root = write_classes(tmp_path)
    load(root)
    (root / "dog").chmod(0)
    with as_nobody(root):
        message = refused(root)
    assert message == f"{root}/dog: this folder cannot be read: Permission denied."
    (root / "dog").chmod(0o755)
    with as_nobody(root):
        load(root)


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    root = write_classes(tmp_path)
    (root / "dog" / "03.png").chmod(0)
    composed()
    root.chmod(0o777)
    with as_nobody(root):
        message = refused(root)
        assert "1 of 30" in message
        assert f"{root}/dog/03.png: it cannot be read: Permission denied." in message
    (root / "dog" / "03.png").chmod(0o644)
    with as_nobody(root):
        load(root)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_classes": 42}, ["data.num_classes=42", "3 classes"]),
        ({"on_bad_image": "ignore"}, ["data.on_bad_image=ignore", "error or skip"]),
        ({"test_size": 1.0}, ["data.test_size=1.0"]),
        ({"test_size": 0.05}, ["data.test_size=0.05: 2 of 30 images", "0.1 to 0.8."]),
        ({"test_size": 0.9}, ["data.test_size=0.9: 27 of 30", "0.1 to 0.8."]),
        ({"val_size": 0.05}, ["data.val_size=0.05: 1 of 27 images", "0.111 to 0.889."]),
        ({"val_size": 1.5}, ["data.val_size=1.5"]),
        ({"split_seed": -1}, ["data.split_seed=-1"]),
        ({"shape": [3, 12]}, ["data.shape=[3, 12]"]),
        ({"mean": [0.1, 0.2]}, ["data.mean"]),
    ],
)
def test_wrong_keys_are_named(tmp_path: Path, changes: dict[str, Any], words: list[str]) -> None:
    root = write_classes(tmp_path)
    message = refused(root, **changes)
    for word in words:
        assert word in message
    assert not pack_folder(root).exists()
    assert load(root, num_classes=3).classes == ("cat", "dog", "owl")


def test_the_folder_has_to_be_given() -> None:
    assert "data.root=FOLDER" in refused(None)


# Images that cannot be used


def spoil(root: Path, count: int = 1) -> list[Path]:
    """Cuts off the first images of each class."""
    files = [root / name / f"{i:02}.png" for i in range(count) for name in ("cat", "dog")]
    for file in files:
        file.write_bytes(file.read_bytes()[:200])
    return files


def test_all_bad_images_are_named_after_the_scan(tmp_path: Path) -> None:
    root = write_classes(tmp_path)
    load(root)
    files = {"empty.jpg": b"", "words.png": b"words", "cut.png": (root / "cat/03.png").read_bytes()}
    for name, content in files.items():
        (root / "dog" / name).write_bytes(content[:200])
    (root / "owl" / "loop.png").symlink_to(root / "owl" / "loop.png")
    (root / "owl" / "nowhere.png").symlink_to(root / "nothing.png")
    write_image(root / "cat" / "bomb.png", size=(50, 101))
    for _ in range(2):
        message = refused(root, max_pixels=5000)
        assert message.startswith("6 of 36 images cannot be used:\n")
        for name, words in (
            ("dog/empty.jpg", "the file is empty"), ("dog/words.png", "not an image"),
            ("dog/cut.png", "damaged or cut off"), ("owl/loop.png", "Too many levels"),
            ("owl/nowhere.png", "No such file"), ("cat/bomb.png", "too large"),
        ):  # fmt: skip
            assert f"\n  {root / name}: " in message
            assert words in message.partition(f"{root / name}: ")[2].partition("\n")[0]
        assert message.splitlines()[-1].endswith("data.on_bad_image=skip.")
        assert f"The others are kept in {pack_folder(root)} and not read again." in message


def test_a_split_of_which_none_can_be_used_says_why(tmp_path: Path) -> None:
    root = write_parts(tmp_path, *PARTS)
    spoiled = sorted((root / "val" / "cat").iterdir())
    for path in spoiled:
        path.write_bytes(b"no image")
    message = refused(root, on_bad_image="skip")
    assert message.startswith("None of the images for val of cat can be used:")
    for part in (*map(str, spoiled), "data.split_seed"):
        assert part in message
    write_image(spoiled[0])
    load(root, on_bad_image="skip")


def test_bad_images_can_be_left_out_and_the_others_stay(tmp_path: Path) -> None:
    root = write_classes(tmp_path)
    files = sorted(root.glob("*/*.png"))
    before = {part: paths_of(split, files) for part, split in splits_of(load(root)).items()}
    bad = spoil(root, count=2)
    good = [file for file in files if file not in bad]
    for _ in range(2):
        made = load(root, on_bad_image="skip")
        for part, split in splits_of(made).items():
            assert paths_of(split, good) == [path for path in before[part] if path not in bad]
            assert [made.classes[label] for label in split.labels] == [
                path.parent.name for path in before[part] if path not in bad
            ]
        assert notes_of(made)[0] == "4 of 30 images cannot be used and are left out:"
        assert [note.partition(":")[0] for note in notes_of(made)[1:]] == sorted(map(str, bad))
    assert refused(root).startswith("4 of 30")


def test_a_class_needs_an_image_that_can_be_used_in_each_split(tmp_path: Path) -> None:
    root = write_parts(tmp_path, *PARTS, per_class=2)
    bad = [root / "val" / "dog" / f"{i:02}.png" for i in range(2)]
    for path in bad:
        path.write_bytes(b"")
    assert "for val of dog" in refused(root, on_bad_image="skip")
    write_image(bad[0])
    assert len(load(root, on_bad_image="skip").val) == 5


def test_damaged_exif_warns_nobody_in_any_thread(tmp_path: Path) -> None:
    """Under pytest a warning would be an error, and the image a bad one."""
    root = write_classes(tmp_path, per_class=30)
    exif = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"
    for path in root.glob("*/*.png"):
        with Image.open(path) as image:
            image.save(path, exif=exif)
    assert notes_of(load(root)) == ()


def test_what_a_limit_of_pixels_refuses_does_not_depend_on_an_earlier_pack(tmp_path: Path) -> None:
    root = write_classes(tmp_path)
    write_image(root / "cat" / "large.png", size=(50, 101))
    for _ in range(2):
        message = refused(root, max_pixels=5000)
        assert "cat/large.png" in message
        assert "too large" in message
        load(root, max_pixels=10_000)  # the twin

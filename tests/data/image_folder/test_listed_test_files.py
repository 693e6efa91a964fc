"""A test split that stays: listed in a file, which the program writes and reads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from data.image_folder import fix_test
from data.image_folder.lists import read_paths, write_paths
from data.types import DataError, Dataset
from tests.helpers.image_files import (
    as_nobody,
    load,
    notes_of,
    refused,
    splits_of,
    write_classes,
    write_image,
    write_parts,
)

KEYS: dict[str, Any] = {"test_size": 0.1, "val_size": 0.1, "split_seed": 0}


def files_of(made: Dataset) -> dict[str, set[str]]:
    return {
        part: {split.file_at(i) or "" for i in range(len(split))}
        for part, split in splits_of(made).items()
    }


def fixed(root: Path, **keys: Any) -> Path:
    return fix_test(root=str(root), **{**KEYS, **keys})[0]


@pytest.mark.parametrize("seed", range(3))
def test_what_is_fixed_is_the_test_split_as_it_was_drawn(tmp_path: Path, seed: int) -> None:
    root = write_classes(tmp_path / "set", per_class=20)
    before = load(root, split_seed=seed)
    path, count = fix_test(root=str(root), **{**KEYS, "split_seed": seed})
    assert path == root / "test_files.txt"
    assert count == len(before.test) == 6
    after = load(root, split_seed=seed, test_files=str(path))
    assert after.fingerprint == before.fingerprint
    assert f"data.split_seed={seed}" in path.read_text().splitlines()[0]


def test_it_stays_while_images_are_added_and_seeds_change(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "set", per_class=20)
    before = files_of(load(root))
    path = str(fixed(root))
    for number in range(60):
        write_image(root / "cat" / f"-new{number}.png", seed=500 + number)
    for seed in (0, 1):
        after = files_of(load(root, test_files=path, split_seed=seed, test_size=0.3))
        assert after["test"] == before["test"]
        assert not after["test"] & (after["train"] | after["val"])
        assert sum(map(len, after.values())) == 120
    Path(path).unlink()
    assert files_of(load(root))["test"] != before["test"]  # the twin


def test_a_list_by_hand(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "set")
    wanted = {"cat/00.png", "cat/03.png", "dog/01.png", "owl/09.png"}
    text = "# a head\n\ncat/00.png\r\n  dog/01.png \n./owl/09.png\n  \ncat/03.png\ncat/00.png"
    (tmp_path / "list").write_bytes(b"\xef\xbb\xbf" + text.encode())
    made = load(root, test_files=str(tmp_path / "list"))
    assert files_of(made)["test"] == wanted
    assert len(made.val) == round(0.1 * 26)


def test_images_of_a_val_folder_may_be_listed(tmp_path: Path) -> None:
    root = write_parts(tmp_path / "set", "train", "val")
    names = [f"val/{name}/00.png" for name in ("cat", "dog", "owl")]
    (tmp_path / "list").write_text("\n".join(names))
    found = files_of(load(root, test_files=str(tmp_path / "list")))
    assert found["test"] == set(names)
    assert len(found["val"]) == 27
    assert not found["test"] & found["val"]


def test_a_list_that_leaves_the_val_folder_without_a_class_is_refused(tmp_path: Path) -> None:
    root = write_parts(tmp_path / "set", "train", "val")
    names = [f"val/cat/{i:02}.png" for i in range(10)] + ["val/dog/00.png", "val/owl/00.png"]
    (tmp_path / "list").write_text("\n".join(names))
    found = refused(root, test_files=str(tmp_path / "list"))
    assert "list: leaves val no image of cat, and each split needs images of each class" in found
    (tmp_path / "list").write_text("\n".join(names[1:]))  # the twin
    assert len(load(root, test_files=str(tmp_path / "list")).val) == 19


def test_names_of_any_kind_are_written_and_read(tmp_path: Path) -> None:
    names = [
        "#cats/1.png",
        "a b/ü.png",
        "犬/\udcff.png",
        "x/'\"$.png",
        "y/a,b.png",
        "./z/#.png"[2:],
    ]
    write_paths(tmp_path / "list", "head", names)
    assert read_paths("data.test_files", str(tmp_path / "list")) == names
    for name in ("a/b\nc.png", "a/b.png ", "\ta/b.png", "a\r/b.png"):
        with pytest.raises(DataError, match="has one a line"):
            write_paths(tmp_path / "other", "head", [name])
    assert os.listdir(tmp_path) == ["list"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "lists no file. It needs one path a line"),
        (["# cat/00.png"], "lists no file."),
        (["cat/00.png", "cat/77.png", "cow/1.png"],
         "2 of its files are not among the images in {root}: cat/77.png, cow/1.png. Put them back"),
        (["cat\\00.png"], "Folders are divided by /."),
        (["{root}/cat/00.png"], "Paths count from data.root."),
        (["cat/00.png", "dog/00.png"], "lists no image of owl, and each split needs images"),
    ],
    ids=["empty", "comment", "missing", "backslash", "absolute", "class"],
)  # fmt: skip
def test_lists_that_are_wrong_are_refused(tmp_path: Path, lines: list[str], message: str) -> None:
    root = write_classes(tmp_path / "set")
    path = tmp_path / "list"
    path.write_text("\n".join(lines).replace("{root}", str(root)))
    found = refused(root, test_files=str(path))
    assert found.startswith(f"data.test_files={path}: ")
    assert message.replace("{root}", str(root)) in found
    path.write_text("cat/00.png\ndog/00.png\nowl/00.png")  # the twin
    assert len(load(root, test_files=str(path)).test) == 3


def test_other_places_are_refused(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "set")
    assert "nowhere.txt: does not exist" in refused(root, test_files="nowhere.txt")
    assert f"{root}: is no file" in refused(root, test_files=str(root))
    assert "nobody" in refused(root, test_files="~nobody-of-that-name/list")
    all_files = [path.relative_to(root).as_posix() for path in root.rglob("*.png")]
    (tmp_path / "all").write_text("\n".join(all_files))
    found = refused(root, test_files=str(tmp_path / "all"))
    assert found.startswith("Too few images in cat, dog, owl: each class needs 2 or more")


def test_a_list_beside_a_test_folder_is_refused(tmp_path: Path) -> None:
    root = write_parts(tmp_path / "set", "train", "test")
    (tmp_path / "list").write_text("train/cat/00.png")
    assert f"{root} has a test folder" in refused(root, test_files=str(tmp_path / "list"))
    with pytest.raises(DataError, match="is the test split, and stays"):
        fixed(root)
    load(root)


def test_a_list_that_divides_a_group_is_a_leak(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "set", per_class=20)
    group = r"/(\d)\d\.png|/(?=)(\d)"
    path = tmp_path / "list"
    path.write_text("\n".join(f"{name}/00.png" for name in ("cat", "dog", "owl")))
    for i in range(20, 60):
        for name in ("cat", "dog", "owl"):
            write_image(root / name / f"{i:02}.png", seed=int(f"7{i}"), size=(8, 8))
    keys = {"group": group, "val_size": 0.3}
    notes = load(root, test_files=str(path), **keys).notes
    leak = [note for note in notes if note.startswith("a leak")]
    assert len(leak) == 1
    assert leak[0].startswith("a leak: 1 group is in")
    assert leak[0].endswith("figures too good: 0")
    listed = [f"{name}/0{i}.png" for name in ("cat", "dog", "owl") for i in range(10)]
    path.write_text("\n".join(listed))
    notes = load(root, test_files=str(path), **keys).notes  # the twin
    assert not any("leak" in note for note in notes)


def test_the_command_that_fixes_it_is_said_where_the_test_split_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_classes(tmp_path / "my set", per_class=15)
    monkeypatch.chdir(tmp_path)
    (note,) = load(root).notes
    assert note.endswith(
        "python -m trainer inspect data=image_folder 'data.root=my set' --fix-test, from then on "
        "'data.test_files=my set/test_files.txt'"
    )
    changed = load(root, test_size=0.2, split_seed=3).notes[0]
    assert "'data.root=my set' data.test_size=0.2 data.split_seed=3 --fix-test" in changed
    path = fixed(root)
    assert load(root).notes == (
        "my set/test_files.txt lists a test split that is not used here: "
        "'data.test_files=my set/test_files.txt' takes it",
    )
    assert load(root, test_files=str(path)).notes == ()
    other = write_parts(tmp_path / "other", "train", "test")
    assert notes_of(load(other)) == load(other).notes == ()


def test_a_list_is_not_written_over_and_nothing_half_written_is_left(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "set")
    path = fixed(root)
    before = path.read_bytes()
    with pytest.raises(DataError, match="is there already, and is not written over"):
        fixed(root)
    assert path.read_bytes() == before
    other = tmp_path / "elsewhere" / "list"
    with pytest.raises(DataError, match=r"cannot be written: No such file or directory\. -o FILE"):
        fixed(root, output=str(other))
    other.parent.mkdir()
    assert fixed(root, output=str(other)) == other
    assert other.read_bytes() == before
    assert os.listdir(other.parent) == ["list"]
    with pytest.raises(DataError, match="fixes the test split already"):
        fixed(root, test_files=str(path))


def test_a_folder_that_may_not_be_written_to_names_the_option(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "set")
    place = tmp_path / "mine"
    place.mkdir()
    place.chmod(0o777)
    with as_nobody(root):
        with pytest.raises(DataError, match=r"Permission denied\. -o FILE takes another place"):
            fixed(root)
        assert fixed(root, output=str(place / "list")).exists()
    assert not list(root.glob("test_files*"))


def test_damaged_images_are_fixed_like_others(tmp_path: Path) -> None:
    """The names alone decide, so that a file that is repaired later is where it was."""
    root = write_classes(tmp_path / "set", per_class=20)
    wanted = files_of(load(root))["test"]
    broken = root / sorted(wanted)[0]
    broken.write_bytes(b"")
    path = str(fixed(root))
    assert files_of(load(root, test_files=path, on_bad_image="skip"))["test"] == wanted - {
        broken.relative_to(root).as_posix()
    }
    write_image(broken, seed=3)
    assert files_of(load(root, test_files=path))["test"] == wanted


# Folds of a folder


@pytest.mark.parametrize("layout", ["none", "val", "test", "all", "list", "whole"])
def test_folds_divide_all_but_the_test_split(tmp_path: Path, layout: str) -> None:
    root = tmp_path / "set"
    keys: dict[str, Any] = {"val_size": 0.2}
    if layout in ("none", "list", "whole"):
        write_classes(root, per_class=20)
    else:
        parts = {"val": ["val"], "test": ["test"], "all": ["val", "test"]}[layout]
        write_parts(root, "train", *parts)
    if layout == "list":
        keys["test_files"] = str(fixed(root))
    if layout == "whole":
        keys["test_size"] = 0
    own = {path.relative_to(root).as_posix() for path in root.rglob("*.png")}
    test = set() if layout == "whole" else files_of(load(root, **keys))["test"]
    held_out: list[str] = []
    for fold in range(3):
        made = load(root, folds=3, fold=fold, **keys)
        found = files_of(made)
        assert made.held_out == f"fold {fold} of 3"
        assert set.union(*found.values()) == own - test
        assert sum(map(len, found.values())) == len(own - test)
        assert len(found["val"]) == round(0.2 * (len(own - test) - len(found["test"])))
        sizes = made.test.labels.bincount()
        shares = [sum(name.split("/")[-2] == c for name in own - test) / 3 for c in made.classes]
        assert all(abs(int(n) - share) < 1 for n, share in zip(sizes, shares, strict=True))
        held_out += found["test"]
    assert sorted(held_out) == sorted(own - test)


def test_an_image_more_moves_few_between_folds(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "set", per_class=30)
    keys: dict[str, Any] = {"folds": 5, "test_size": 0}

    def folds() -> dict[str, int]:
        made = [files_of(load(root, fold=fold, **keys))["test"] for fold in range(5)]
        return {name: fold for fold, own in enumerate(made) for name in own}

    before = folds()
    write_image(root / "cat" / "-new.png", seed=77)
    after = folds()
    moved = [name for name in before if before[name] != after[name]]
    assert len(moved) <= 4
    assert all(name.startswith("cat/") and abs(before[name] - after[name]) == 1 for name in moved)
    assert len(after) == len(before) + 1 == 91


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"folds": 9}, "Too few images in cat, dog, owl: each class needs 9 or more"),
        ({"folds": 1}, "data.folds=1: must be 2 or more, or 0 for none."),
        ({"folds": 2, "fold": 2}, "data.fold=2: must be 0 to 1 with data.folds=2."),
        ({"test_size": 0}, "data.test_size=0: must lie between 0 and 1, both excluded"),
        ({"folds": 3}, "data.val_size=0.1: 2 of 16 images are held out"),
    ],
)
def test_folds_that_cannot_be_are_refused(
    tmp_path: Path, keys: dict[str, Any], message: str
) -> None:
    root = write_classes(tmp_path / "set", per_class=9)
    assert message in refused(root, **keys)
    load(root, folds=3, fold=2, val_size=0.3)  # the twin

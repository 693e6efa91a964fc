"""Division of a folder's images into splits, by its folders and the keys that say how."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data.image_folder.class_folders import PARTS, find_classes, find_images, find_parts
from data.image_folder.groups import by_split, groups_of, notes_on_groups
from data.image_folder.lists import check_known, read_paths, write_paths
from data.image_folder.names import join_first_ten
from data.image_folder.packing import File
from data.image_folder.split import carved
from data.preparation import notes_on_fold
from data.roots import expanded, resolve_root
from data.types import DataError, printable

LIST = "test_files.txt"  # in the dataset's folder, where none is named


@dataclass(frozen=True)
class SplitKeys:
    """Keys that say which image is in which split, as in configs/data/image_folder.yaml."""

    test_size: float = 0.1
    val_size: float = 0.1
    split_seed: int = 0
    group: str | None = None
    test_files: str | None = None
    folds: int = 0
    fold: int = 0

    def __post_init__(self) -> None:
        if self.test_size == 0 and self.folds:
            return
        if not 0 < self.test_size < 1:
            raise DataError(
                f"data.test_size={self.test_size}: must lie between 0 and 1, both excluded; with "
                "data.folds, 0 draws no test split, so that every image is in a fold."
            )


class Division(NamedTuple):
    """Which image is in which split.

    Attributes:
        split_of: of each file, (N,) str; what is none of PARTS is in none.
        groups: the names of the groups in each split; None without data.group.
        notes: what the user should know of it.
    """

    split_of: np.ndarray
    groups: Mapping[str, tuple[str, ...]] | None
    notes: tuple[str, ...]


def divided(
    root: Path, found: Mapping[str, list[File]], classes: Sequence[str], keys: SplitKeys
) -> Division:
    """The split of each file; see `carved` for those that no folder and no list says.

    Raises:
        DataError: there are too few images or groups, or the keys contradict the files.
    """
    names = [file.name for own in found.values() for file in own]
    labels = np.array([file.label for own in found.values() for file in own])
    listed = _listed(root, found, keys, names)
    groups = None if keys.group is None else groups_of(keys.group, names)
    sizes = {"test": keys.test_size, "val": keys.val_size}

    def of_fold(fold: int) -> np.ndarray:
        split_of = carved(found, sizes, keys.split_seed, classes, groups, listed, keys.folds, fold)
        _check_each_has_all(split_of, labels, classes, replace(keys, fold=fold))
        return split_of

    if groups and keys.folds:
        for fold in range(keys.folds):  # so that one that cannot be is known before any is trained
            of_fold(fold)
    split_of = of_fold(keys.fold)
    notes = [*notes_on_fold(keys.folds, keys.fold, int((split_of == "test").sum()))]
    sides = by_split(groups, split_of) if groups else None
    if sides:
        notes += notes_on_groups(sides)
    if "test" not in found and not listed and not keys.folds:
        notes += _notes_on_fixing(root, keys)
    return Division(split_of, sides, tuple(notes))


def _listed(
    root: Path, found: Mapping[str, list[File]], keys: SplitKeys, names: Sequence[str]
) -> set[str]:
    if keys.test_files is None:
        return set()
    if "test" in found:
        raise DataError(
            f"data.test_files={printable(keys.test_files)}: data.root={root} has a test folder, "
            "which is the test split. Leave the key out, or move that folder away."
        )
    listed = read_paths("data.test_files", keys.test_files)
    check_known("data.test_files", keys.test_files, root, listed, set(names))
    return set(listed)


def _check_each_has_all(
    split_of: np.ndarray, labels: np.ndarray, classes: Sequence[str], keys: SplitKeys
) -> None:
    """Raises DataError if a class is in no image of a split: where groups mix classes, or a list
    was made before a class was added."""
    for part in PARTS:
        there = set(labels[split_of == part].tolist())
        bare = [name for label, name in enumerate(classes) if label not in there]
        if not bare:
            continue
        is_listed = part == "test" and keys.test_files is not None and not keys.folds
        if is_listed or keys.group is None:
            verb = "lists no image" if is_listed else f"leaves {part} no image"
            way_out = "Add some to the list" if is_listed else "Take some from the list"
            raise DataError(
                f"data.test_files={printable(keys.test_files or '')}: {verb} of "
                f"{join_first_ten(bare)}, and each split needs images of each class. {way_out}."
            )
        where, size = part, f"a larger data.{part}_size"
        if part == "test" and keys.folds:
            where, size = f"fold {keys.fold}", "fewer data.folds"
        elif part == "train":
            size = "a smaller data.test_size and data.val_size"
        raise DataError(
            f"data.group={printable(keys.group)}: none of the groups drawn for {where} has "
            f"an image of {join_first_ten(bare)}, and each split needs images of each class. Take "
            f"{size}, another data.split_seed, or more groups."
        )


def _notes_on_fixing(root: Path, keys: SplitKeys) -> Iterator[str]:
    here = Path(os.path.relpath(root)) if root.is_relative_to(Path.cwd()) else root
    option = shlex.quote(f"data.test_files={here / LIST}")
    if (root / LIST).exists():
        yield printable(
            f"{here / LIST} lists a test split that is not used here: {option} takes it"
        )
        return
    own = {name: getattr(keys, name) for name in ("test_size", "split_seed", "group")}
    given = {name: value for name, value in own.items() if value != getattr(SplitKeys(), name)}
    words = [f"data.root={here}", *(f"data.{name}={value}" for name, value in given.items())]
    command = shlex.join(["python", "-m", "trainer", "inspect", "data=image_folder", *words])
    yield printable(
        "the test split is drawn, and another one once images are added or removed; to keep this "
        f"one: {command} --fix-test, from then on {option}"
    )


def fix_test(
    *,
    root: str | None,
    test_size: float,
    val_size: float,
    split_seed: int,
    output: str | None = None,
    group: str | None = None,
    test_files: str | None = None,
    **_: Any,
) -> tuple[Path, int]:
    """Writes the names of the images that are the test split now, as `data.test_files` takes them,
    to `output`, or else into `root`. Takes the keys of the loader; of folds none plays a part.

    Returns the list's path and its number of images.

    Raises:
        DataError: the test split is no drawn one, or the list cannot be written.
    """
    if test_files is not None:
        raise DataError(f"data.test_files={test_files}: this list fixes the test split already.")
    folder = resolve_root(root)
    parts, _notes = find_parts(folder)
    if "test" in parts:
        raise DataError(
            f"data.root={folder}: {parts['test']} is the test split, and stays. There is nothing "
            "to fix."
        )
    classes = find_classes(parts)
    found, _notes = find_images(folder, parts, classes)
    keys = SplitKeys(test_size, val_size, split_seed, group)
    split_of = divided(folder, found, classes, keys).split_of
    names = [file.name for own in found.values() for file in own]
    chosen = sorted(name for name, part in zip(names, split_of, strict=True) if part == "test")
    path = folder / LIST if output is None else expanded("-o", output).absolute()
    words = [f"data.test_size={test_size}", f"data.split_seed={split_seed}"]
    words += [f"data.group={group}"] if group else []
    head = f"Test split, {len(chosen):,} of {len(names):,} images: {printable(' '.join(words))}"
    write_paths(path, head, chosen)
    return path, len(chosen)

"""Division of a folder's images into splits, by its folders and the keys that say how."""

from __future__ import annotations

import functools
import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data.image_folder.class_folders import find_classes, find_images, find_parts
from data.image_folder.groups import by_split, groups_of, notes_on_groups
from data.image_folder.lists import check_known, read_paths, write_paths
from data.image_folder.names import join_first_ten
from data.image_folder.packing import File
from data.image_folder.split import carved
from data.preparation import notes_on_fold
from data.roots import expanded, resolve_root
from data.types import DataError, printable

LIST = "test_files.txt"  # in the dataset's folder, where none is named
_MOST_TRIED = 200  # numbers of groups, in search of one that works


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

    @functools.lru_cache(maxsize=1)
    def drawn(keys: SplitKeys) -> np.ndarray:
        sizes = {"test": keys.test_size, "val": keys.val_size}
        return carved(found, sizes, keys.split_seed, classes, groups, listed, keys.folds, keys.fold)

    def lacking(keys: SplitKeys) -> Lacking | None:
        """Of groups in all folds, so that one that cannot be is known before any is trained."""
        folds = range(keys.folds) if groups and keys.folds else [keys.fold]
        of_folds = (lacks(drawn(replace(keys, fold=fold)), labels, fold) for fold in folds)
        return next(filter(None, of_folds), None)

    try:
        fault = lacking(keys)
    except DataError as error:
        if not keys.folds:
            raise
        raise DataError(f"{error} {_fewer_folds(keys, lacking, labels)}".rstrip()) from error
    if fault is not None:
        raise DataError(_of_lacking(fault, keys, classes, lacking, len(set(groups or names))))
    split_of = drawn(keys)
    notes = [*notes_on_fold(keys.folds, keys.fold, int((split_of == "test").sum()))]
    sides = by_split(groups, split_of) if groups else None
    if sides:
        notes += notes_on_groups(sides, has_folds=keys.folds > 0)
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


class Lacking(NamedTuple):
    """A split without an image of some classes.

    Attributes:
        part, fold: the split, and the number of the fold that was held out.
        labels: of the classes.
    """

    part: str
    fold: int
    labels: list[int]


def lacks(split_of: np.ndarray, labels: np.ndarray, fold: int) -> Lacking | None:
    """The first split that lacks a class, where groups mix classes, or a list was made before a
    class was added; None if each has all."""
    every = set(labels.tolist())
    for part in ("test", "val", "train"):  # as they are drawn
        if bare := sorted(every - set(labels[split_of == part].tolist())):
            return Lacking(part, fold, bare)
    return None


Find = Callable[[SplitKeys], Lacking | None]


def _of_lacking(
    fault: Lacking, keys: SplitKeys, classes: Sequence[str], lacking: Find, num_units: int
) -> str:
    part, bare = fault.part, join_first_ten(classes[label] for label in fault.labels)
    is_listed = part == "test" and keys.test_files is not None and not keys.folds
    if is_listed or keys.group is None:
        verb = "lists no image" if is_listed else f"leaves {part} no image"
        way_out = "Add some to the list" if is_listed else "Take some from the list"
        return (
            f"data.test_files={printable(keys.test_files or '')}: {verb} of {bare}, and each split "
            f"needs images of each class. {way_out}."
        )
    if part == "test" and keys.folds:
        where, works = f"fold {fault.fold}", _fewer_folds(keys, lacking)
    else:
        where, works = part, _larger_fractions(keys, fault, lacking, num_units)
    return (
        f"data.group={printable(keys.group)}: none of the groups drawn for {where} has an image of "
        f"{bare}, and each split needs images of each class. {works} Another "
        "data.split_seed, or more groups, may help, too."
    )


def _fewer_folds(keys: SplitKeys, lacking: Find, labels: np.ndarray | None = None) -> str:
    """The largest number of folds below that of `keys` that can be; empty if none can."""
    most = keys.folds - 1 if labels is None else min(keys.folds - 1, int(np.bincount(labels).min()))
    for folds in range(most, 1, -1):
        if _works(replace(keys, folds=folds, fold=0), lacking):
            return f"folds={folds} is the most that works."
    return "No smaller number of folds works." if labels is None else ""


def _larger_fractions(keys: SplitKeys, fault: Lacking, lacking: Find, num_units: int) -> str:
    """The least data.test_size, then the least data.val_size, with which each split has all."""
    now: Lacking | None = fault
    taken: dict[str, float] = {}
    steps = 10 ** len(str(num_units))  # of a fraction: finer than one group
    while now is not None and now.part != "train":
        part, name = now.part, f"{now.part}_size"
        first = int(getattr(keys, name) * steps) + 1
        for step in range(first, min(steps, first + _MOST_TRIED)):
            taken[name] = step / steps
            keys = replace(keys, **{name: step / steps})
            if (now := lacking(keys)) is None or now.part != part:
                break
        else:
            break
    if now is not None:
        return "No larger fractions work."
    words = " ".join(f"data.{name}={size}" for name, size in taken.items())
    return f"{words} {'is' if len(taken) == 1 else 'are'} the least that works."


def _works(keys: SplitKeys, lacking: Find) -> bool:
    try:
        return lacking(keys) is None
    except DataError:
        return False


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

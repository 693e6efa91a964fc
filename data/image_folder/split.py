"""Split of a folder's images into train, validation and test, by their names."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from data.image_folder.groups import class_of_groups
from data.image_folder.names import join_first_ten
from data.image_folder.packing import File
from data.splits import fold_of, images_for, rounded, smallest_keys, validation_counts
from data.types import DataError

UNUSED = "unused"  # the test split, where a fold takes its place


def carved(
    found: Mapping[str, list[File]],
    sizes: Mapping[str, float],
    split_seed: int,
    classes: Sequence[str],
    groups: Sequence[str] | None = None,
    test_files: Collection[str] = (),
    folds: int = 0,
    fold: int = 0,
) -> np.ndarray:
    """The split of each file, (N,) str, where those that have no folder come out of train.

    An image's key is a hash of the seed and its name. In each class the smallest keys are for
    test, the next for val, the others for train. So where a class gains or loses a file, or its
    share is rounded otherwise, one image moves on to the neighbour (rarely two), but none from
    train to test.

    With `groups`, all of this holds for groups in place of images, and none is divided: each counts
    as of one class, see `class_of_groups`. A file that joins a group moves nothing, unless the
    group then counts as of another class. Only where groups mix classes may more move at once, when
    a class's weight changes, or hardly any group counts as of a class.

    With `folds`, what this leaves for train and val is divided, see `fold_of`: by keys, so that
    fold 0 has the smallest. One of them is "test", what was is "unused", and val comes out of the
    rest.

    Args:
        found: the files of each split that has a folder.
        sizes: fraction that each of the others takes of what is left in train, in this order; 0: no
            such split.
        groups: of each file.
        test_files: names; if there are some, they are the test split.
        folds, fold: number of folds, and of the one that is held out; see `Preparation`.
    """
    files = [file for own in found.values() for file in own]
    split_of = np.array([part for part, own in found.items() for _ in own], dtype="<U6")
    split_of[[file.name in test_files for file in files]] = "test"
    there = {*split_of.tolist()}
    missing = [part for part, size in sizes.items() if part not in there and size]

    def units() -> _Units:
        pool = np.flatnonzero(split_of == "train").tolist()
        of_pool = None if groups is None else [groups[i] for i in pool]
        return _units([files[i] for i in pool], of_pool, split_seed, len(classes))

    drawing = _Drawing(units(), classes, sizes, missing)
    drawing.check(1 + len(missing), "each of train, val and test")
    if "test" in missing:
        drawing.take("test", len(missing))
    if folds:
        split_of[split_of == "train"] = drawing.of_files()
        split_of[split_of == "test"] = UNUSED
        split_of[split_of == "val"] = "train"
        drawing = _Drawing(units(), classes, sizes)
        drawing.check(images_for(folds), f"each of {folds} folds, and in train and val beside it")
        drawing.hold_out(folds, fold)
    if folds or "val" in missing:
        drawing.take("val", 1)
    split_of[split_of == "train"] = drawing.of_files()
    return split_of


class _Units(NamedTuple):
    """What is drawn as a whole: images, or groups of them.

    Attributes:
        keys: (U,) uint64, random.
        labels: (U,) the class that each counts as.
        of: (N,) the unit of each image.
        counts: (K,) units with an image of each class.
        word: what they are.
    """

    keys: np.ndarray
    labels: np.ndarray
    of: np.ndarray
    counts: np.ndarray
    word: str


def _units(
    files: Sequence[File], groups: Sequence[str] | None, split_seed: int, num_classes: int
) -> _Units:
    labels = np.array([file.label for file in files], dtype=np.int64)
    if groups is None:
        counts = np.bincount(labels, minlength=num_classes)
        keys = _keys(split_seed, [file.name for file in files])
        return _Units(keys, labels, np.arange(len(files)), counts, "images")
    names = {name: number for number, name in enumerate(sorted(set(groups)))}
    of = np.array([names[group] for group in groups])
    images = np.zeros((len(names), num_classes), dtype=np.int64)
    np.add.at(images, (of, labels), 1)
    counts = np.count_nonzero(images, axis=0)
    return _Units(_keys(split_seed, list(names)), class_of_groups(images), of, counts, "groups")


class _Drawing:
    """Drawing of splits out of train.

    Args:
        missing: the splits to be drawn, for advice; none: no advice.
    """

    def __init__(
        self,
        units: _Units,
        classes: Sequence[str],
        sizes: Mapping[str, float],
        missing: Sequence[str] = (),
    ) -> None:
        self.units, self.classes, self.sizes, self.missing = units, classes, sizes, missing
        self.split_of = np.full(len(units.keys), "train", dtype="<U6")

    def of_files(self) -> np.ndarray:
        """The split of each file of train, (N,) str."""
        found: np.ndarray = self.split_of[self.units.of]
        return found

    def check(self, least: int, where: str) -> None:
        """Raises DataError for classes that are in too few units to be in each split."""
        small = [n for n, count in zip(self.classes, self.units.counts, strict=True)
                 if count < least]  # fmt: skip
        if small:
            of = "images in" if self.units.word == "images" else "groups with images of"
            raise DataError(
                f"Too few {of} {join_first_ten(small)}: each class needs {least} or more, to have "
                f"one in {where}. Add some, move these folders out, or join them into one class."
            )

    def hold_out(self, folds: int, fold: int) -> None:
        self.split_of[fold_of(self.units.keys, self.units.labels, folds) == fold] = "test"

    def take(self, part: str, num_left: int) -> None:
        """Of train those with the smallest keys, leaving `num_left` of each class."""
        train = np.flatnonzero(self.split_of == "train")
        keys, labels = self.units.keys[train], self.units.labels[train]
        counts = np.bincount(labels, minlength=len(self.classes))
        if self.units.word == "groups":
            taken = group_counts(counts, self.sizes[part], num_left)
        else:
            taken = self.image_counts(counts, part, num_left)
        self.split_of[train[smallest_keys(keys, labels, taken)]] = part

    def image_counts(self, counts: np.ndarray, part: str, num_left: int) -> np.ndarray:
        try:
            return validation_counts(
                counts, self.sizes[part], self.classes, f"data.{part}_size", num_left
            )
        except DataError as error:
            if not self.missing:
                raise
            advice = _advice(len(self.units.keys), len(self.classes), self.missing)
            raise DataError(f"{error}\n{advice}") from error


def group_counts(counts: np.ndarray, size: float, num_left: int) -> np.ndarray:
    """Number of groups of each class that are taken.

    As of images: the total rounded, shares rounded by largest remainder, one or more of each class
    that has enough. Where that cannot be, since groups mix classes and hardly any counts as of some
    of them, by largest remainder alone: a group then brings more than one class.
    """
    total = min(max(round(size * counts.sum()), 1), counts.sum() - num_left)
    least, most = (counts > num_left).astype(int), np.maximum(counts - num_left, 0)
    if not least.sum() <= total <= most.sum():
        least, most = np.zeros_like(counts), counts
    return rounded(size * counts, total, least, most)


def _advice(num_images: int, num_classes: int, missing: Sequence[str]) -> str:
    """The smallest fractions that draw one image of each class for each split, all at once."""
    words = []
    for part in missing:
        words.append(f"data.{part}_size={math.ceil(1000 * num_classes / num_images) / 1000}")
        num_images -= num_classes
    return (
        f"With {' '.join(words)} each split gets one image of each class, which is little to "
        "measure with; better are more images, or fewer classes."
    )


def _keys(split_seed: int, names: Sequence[str]) -> np.ndarray:
    return np.array([_key(split_seed, name) for name in names], dtype=np.uint64)


def _key(split_seed: int, name: str) -> int:
    """64 bits that look random, the same on every machine. Names need not be UTF-8."""
    text = f"{split_seed}/{name}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")

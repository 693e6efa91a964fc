"""Images of the user's own, in one folder per class, decoded once and then mapped into memory."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.duplicates.exact import equal_images
from data.duplicates.leaks import check_none_is_bare, judged, notes_on_copies
from data.image_folder.bad_images import cannot_be_used, left_out, named
from data.image_folder.class_folders import PARTS, find_classes, find_images, find_parts
from data.image_folder.division import SplitKeys, divided
from data.image_folder.names import join_first_ten
from data.image_folder.pack import pack_folder, packed
from data.image_folder.packing import File, Pack, Reading
from data.images import scaling
from data.images.fitting import MAX_PIXELS, MODES
from data.inspection import notes_on_counts
from data.preparation import Preparation, fit_channels, held_out_name, notes_on_fraction
from data.roots import resolve_root
from data.splits import in_fraction
from data.types import DataError, Dataset, Fit, Leaks, Place, Split


def load_image_folder(
    *,
    root: str | None,
    cache_dir: str | None,
    on_bad_image: str,
    shape: Sequence[int],
    num_classes: int | None,
    mean: Sequence[float],
    std: Sequence[float],
    hflip: bool,
    val_size: float,
    test_size: float,
    split_seed: int,
    pixel_range: Sequence[float] | None = None,
    max_pixels: int = MAX_PIXELS,
    fit: Fit = "crop",
    resize: int | None = None,
    group: str | None = None,
    test_files: str | None = None,
    folds: int = 0,
    fold: int = 0,
    on_leak: str = "warn",
    fraction: float = 1.0,
) -> Dataset:
    """Images under `root`, laid out as `data.image_folder.class_folders` says, brought to `shape`
    by `fit`. The arguments are the keys of configs/data/image_folder.yaml.

    A split that has no folder is carved out of train, class by class: test first, then validation
    from the rest. Which images these are depends on the names of all files that are there, readable
    or not, and hardly changes when some are added or removed; see `carved`. The pack does not
    depend on it: all splits are views of one, which also has the images that a run with folds does
    not use.

    Raises:
        DataError: no classes, images that cannot be used, nowhere to pack them, or keys that
            contradict the files.
    """
    folder = _given(root)
    split_keys = SplitKeys(test_size, val_size, split_seed, group, test_files, folds, fold)
    parts, notes = find_parts(folder)
    classes = find_classes(parts)
    keys = Preparation(
        shape, len(classes) if num_classes is None else num_classes, mean, std, hflip, val_size,
        split_seed, fit, resize, folds, fold, on_leak, fraction,
    )  # fmt: skip
    normalisation = _checked(keys, len(classes), on_bad_image)
    found, more = find_images(folder, parts, classes)
    files = [file for own in found.values() for file in own]
    division = divided(folder, found, classes, split_keys)
    how = Reading(_sized(shape), _range(pixel_range), max_pixels, fit, resize)
    images = _read(folder, files, how, cache_dir, on_bad_image)
    _check_none_is_bare(files, division.split_of, images, classes)
    leaks, own_split = images.judged(division.split_of[images.good], on_leak, classes)
    train, *others = (np.flatnonzero(own_split == part) for part in PARTS)
    kept = in_fraction(images.labels.numpy()[train], fraction, split_seed, classes)
    splits = [images.split(own) for own in (train[kept], *others)]
    more += (*notes_on_fraction(fraction, kept.sum()), *notes_on_counts(splits[0].labels, classes))
    notes = (*notes, *more, *notes_on_copies(leaks, classes), *images.notes, *division.notes)
    made = images.dataset(splits, classes, normalisation, hflip, notes, how)
    return replace(made, held_out=held_out_name(folds, fold), groups=division.groups, leaks=leaks)


def load_whole(
    *,
    root: str | None,
    cache_dir: str | None,
    on_bad_image: str,
    shape: Sequence[int],
    num_classes: int | None,
    mean: Sequence[float],
    std: Sequence[float],
    hflip: bool,
    pixel_range: Sequence[float] | None = None,
    max_pixels: int = MAX_PIXELS,
    fit: Fit = "crop",
    resize: int | None = None,
    **of_splits: Any,
) -> Dataset | None:
    """All images under `root` as the test split, the others being empty: for a network that was
    trained on none of them. None if the folder has a test split of its own, which is then to be
    taken.

    Takes the keys of the loader, of which those of the splits play no part, and raises as it does.
    """
    folder = _given(root)
    parts, notes = find_parts(folder, needs_train=False)
    if "test" in parts:
        return None
    classes = find_classes(parts)
    keys = Preparation(shape, num_classes or len(classes), mean, std, hflip, 0.1, 0, fit, resize)
    normalisation = _checked(keys, len(classes), on_bad_image)
    found, more = find_images(folder, parts, classes)
    files = [file for own in found.values() for file in own]
    how = Reading(_sized(shape), _range(pixel_range), max_pixels, fit, resize)
    images = _read(folder, files, how, cache_dir, on_bad_image)
    if not images.pack.files:
        raise DataError(f"data.root={folder}: none of its images can be used.")
    rows = np.arange(len(images.pack.files))
    none, test = images.split(rows[:0]), images.split(rows)
    notes = (*notes, *more, *images.notes)
    return images.dataset([none, none, test], classes, normalisation, hflip, notes, how)


def class_names(*, root: str | None, **_: Any) -> tuple[str, ...]:
    """The names of the class folders, for who needs them before any image is read: what builds
    the network. Takes the keys of the loader.

    Raises:
        DataError: as the loader does for the folders.
    """
    return find_classes(find_parts(_given(root), needs_train=False)[0])


def _given(root: str | None) -> Path:
    if root is None:
        raise DataError(
            "data.root=null: data=image_folder needs data.root=FOLDER, a folder that has one "
            "folder of images per class, or train, val and test with these in each."
        )
    return resolve_root(root)


def _checked(
    keys: Preparation, num_found: int, on_bad_image: str
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and deviation for as many channels as are wanted. Raises DataError."""
    if on_bad_image not in ("error", "skip"):
        raise DataError(f"data.on_bad_image={on_bad_image}: must be error or skip.")
    keys.check_num_classes(num_found)
    if (channels := keys.shape[0]) not in MODES:
        raise DataError(f"data.shape={list(keys.shape)}: images have 1 or 3 channels.")
    return (
        fit_channels("data.mean", keys.mean, 3, channels),
        fit_channels("data.std", keys.std, 3, channels),
    )


@dataclass(frozen=True)
class _Images:
    """Result of reading the files.

    Attributes:
        good: (N,) bool, of all files: those that are in the pack.
        bad: name -> what is wrong with it.
    """

    root: Path
    pack: Pack
    pack_folder: Path
    good: np.ndarray
    bad: Mapping[str, str]
    notes: tuple[str, ...]

    @functools.cached_property
    def names(self) -> list[str]:
        return [file.name for file in self.pack.files]

    @functools.cached_property
    def labels(self) -> Tensor:
        return torch.tensor([file.label for file in self.pack.files], dtype=torch.int64)

    def split(self, rows: np.ndarray) -> Split:
        """These rows of all images: a slice where they lie one after the other, as those of a
        folder do, which is read as it lies."""
        images, chosen = self.pack.images, torch.from_numpy(rows)
        labels, places = self.labels[chosen], torch.from_numpy(np.flatnonzero(self.good)[rows])
        if not len(rows):
            return Split(images[:0], labels, None, [], places)
        first = int(rows[0])
        if rows[-1] - first + 1 == len(rows):
            last = first + len(rows)
            return Split(images[first:last], labels, None, self.names[first:last], places)
        return Split(images, labels, chosen, self.names, places)

    def judged(
        self, split_of: np.ndarray, on_leak: str, classes: Sequence[str]
    ) -> tuple[Leaks, np.ndarray]:
        """Equal images, and the split of each image, (N,) str, empty for those that `on_leak`
        leaves out. Raises DataError, see `data.duplicates.leaks`."""

        def place_of(row: int) -> Place | None:
            split = str(split_of[row])
            return (
                Place(split, int(self.labels[row]), file=self.names[row])
                if split in PARTS
                else None
            )

        groups = equal_images([Split(self.pack.images, self.labels)])
        leaks, kept = judged(groups, place_of, len(split_of), on_leak)
        left = np.where(kept, split_of, "")
        for part in PARTS if leaks.left_out else ():
            check_none_is_bare(part, self.labels.numpy()[left == part], classes)
        return leaks, left

    def dataset(
        self,
        splits: Sequence[Split],
        classes: tuple[str, ...],
        normalisation: tuple[tuple[float, ...], tuple[float, ...]],
        hflip: bool,
        notes: tuple[str, ...],
        how: Reading,
    ) -> Dataset:
        train, val, test = splits
        return Dataset(
            train, val, test, classes, *normalisation, hflip, notes, tuple(self.pack.sums),
            self.pack.scale, how.fit, how.side, damaged=tuple(self.bad.items()),
        )  # fmt: skip


def _read(
    root: Path,
    files: Sequence[File],
    how: Reading,
    cache_dir: str | None,
    on_bad_image: str,
) -> _Images:
    """The packed images of these files. Raises DataError for bad ones that are not to be skipped,
    and if nothing can be packed."""
    folder, notes = pack_folder(root, cache_dir)
    pack = packed(root, files, how, folder)
    bad = {file.name: reason for file, reason in pack.bad}
    if bad and on_bad_image == "error":
        raise DataError(cannot_be_used(root, bad, len(files), folder))
    if bad:
        notes = (*left_out(root, bad, len(files), folder), *notes)
    notes = (*notes, *scaling.notes(len(pack.deep), pack.scale, pack.num_flat, len(pack.files)))
    good = np.array([file.name not in bad for file in files])
    return _Images(root, pack, folder, good, bad, notes)


def _sized(shape: Sequence[int]) -> tuple[int, int, int]:
    channels, height, width = shape
    return channels, height, width


def _range(given: Sequence[float] | None) -> scaling.Range | None:
    if given is None:
        return None
    if len(given) != 2 or not given[0] < given[1]:
        raise DataError(
            f"data.pixel_range={list(given)}: must be two numbers, the lesser first, or null."
        )
    return given[0], given[1]


def _check_none_is_bare(
    files: Sequence[File], split_of: np.ndarray, images: _Images, classes: Sequence[str]
) -> None:
    """Each split needs an image of each class that can be used. Raises DataError."""
    bad = images.bad
    there = {(part, f.label) for f, part in zip(files, split_of, strict=True) if f.name not in bad}
    for part in PARTS:
        bare = [name for label, name in enumerate(classes) if (part, label) not in there]
        if bare:
            of_part = {
                file.name: bad[file.name]
                for file, own in zip(files, split_of, strict=True)
                if own == part and file.name in bad
            }
            lines = [f"None of the images for {part} of {join_first_ten(bare)} can be used:"]
            raise DataError(
                "\n  ".join([*lines, *named(images.root, of_part, images.pack_folder)])
                + "\nRepair or remove these. Where no folder says which images are for which "
                "split, another data.split_seed draws others."
            )

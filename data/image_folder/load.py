"""Images of the user's own, in one folder per class, decoded once and then mapped into memory."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.image_folder.bad_images import cannot_be_used, left_out, named
from data.image_folder.class_folders import (
    PARTS,
    find_classes,
    find_images,
    find_parts,
    join_first_ten,
)
from data.image_folder.pack import packed
from data.image_folder.packing import File, Pack, Reading
from data.image_folder.split import carved
from data.images import scaling
from data.images.fitting import MAX_PIXELS, MODES
from data.images.scaling import Range
from data.inspection import notes_on_copies, notes_on_counts
from data.preparation import Preparation, fit_channels
from data.roots import cache_for, expanded, resolve_root
from data.types import DataError, Dataset, Fit, Split


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
) -> Dataset:
    """The images under `root`, laid out as `data.image_folder.class_folders` says.

    Each is brought to `shape` by `fit`. A split that has no folder is carved out of train, class by
    class: test first, then validation from the rest. Which images these are depends on the names of
    all files that are there, readable or not, and hardly changes when some are added or removed;
    see `carved`. The pack does not depend on it: all splits are views of one.

    Args:
        root: the folder; it has to be given.
        cache_dir: where the packed images are kept; None for the user's cache folder.
        on_bad_image: "error" or "skip", of images that cannot be used.
        shape: (C, H, W), C being 1 or 3.
        num_classes: None counts the class folders.
        test_size: fraction of train that becomes the test split where it has no folder.
        pixel_range: which numbers of grey of more than 8 bits become 0 and 255; None: as the
            dataset itself has them, see `data.images.scaling`.
        max_pixels: files of more are not decoded.
        fit, resize: how images come to `shape`; see `Reading`.
        The others: `Preparation`.

    Raises:
        DataError: no classes, images that cannot be used, nowhere to pack them, or keys that
            contradict the files.
    """
    folder = _given(root)
    if not 0 < test_size < 1:
        raise DataError(f"data.test_size={test_size}: must lie between 0 and 1, both excluded.")
    parts, notes = find_parts(folder)
    classes = find_classes(parts)
    if num_classes is None:
        num_classes = len(classes)
    preparation = Preparation(
        shape, num_classes, mean, std, hflip, val_size, split_seed, fit, resize
    )
    own_mean, own_std = _checked(preparation, len(classes), on_bad_image)
    found, more = find_images(folder, parts, classes)
    files = [file for own in found.values() for file in own]
    split_of = carved(found, {"test": test_size, "val": val_size}, split_seed, classes)
    how = Reading(_sized(shape), _range(pixel_range), max_pixels, fit, resize)
    images = _read(folder, files, how, cache_dir, on_bad_image)
    _check_none_is_bare(files, split_of, images, classes)
    labels = torch.tensor([file.label for file in images.pack.files])
    own_split = split_of[images.good]
    names = [file.name for file in images.pack.files]
    train, val, test = (
        _split(images.pack.images, labels, np.flatnonzero(own_split == part), names)
        for part in PARTS
    )
    notes = (
        *notes, *more,
        *notes_on_counts(train.labels, classes),
        *notes_on_copies(images.pack.digests, own_split, labels.numpy(), classes, names),
        *images.notes,
    )  # fmt: skip
    return Dataset(
        train, val, test, classes, own_mean, own_std, hflip, notes, tuple(images.pack.sums),
        images.pack.scale, how.fit, how.side,
    )  # fmt: skip


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
    own_mean, own_std = _checked(keys, len(classes), on_bad_image)
    found, more = find_images(folder, parts, classes)
    files = [file for own in found.values() for file in own]
    how = Reading(_sized(shape), _range(pixel_range), max_pixels, fit, resize)
    images = _read(folder, files, how, cache_dir, on_bad_image)
    labels = torch.tensor([file.label for file in images.pack.files], dtype=torch.int64)
    if not len(labels):
        raise DataError(f"data.root={folder}: none of its images can be used.")
    rows = np.arange(len(labels))
    names = [file.name for file in images.pack.files]
    none, test = (_split(images.pack.images, labels, own, names) for own in (rows[:0], rows))
    notes = (*notes, *more, *images.notes)
    return Dataset(
        none, none, test, classes, own_mean, own_std, hflip, notes, tuple(images.pack.sums),
        images.pack.scale, how.fit, how.side,
    )  # fmt: skip


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


def _read(
    root: Path,
    files: Sequence[File],
    how: Reading,
    cache_dir: str | None,
    on_bad_image: str,
) -> _Images:
    """The packed images of these files. Raises DataError for bad ones that are not to be skipped,
    and if nothing can be packed."""
    pack_folder, notes = _pack_folder(root, cache_dir)
    pack = packed(root, files, how, pack_folder)
    bad = {file.name: reason for file, reason in pack.bad}
    if bad and on_bad_image == "error":
        raise DataError(cannot_be_used(root, bad, len(files), pack_folder))
    if bad:
        notes = (*left_out(root, bad, len(files), pack_folder), *notes)
    notes = (*notes, *scaling.notes(len(pack.deep), pack.scale, pack.num_flat, len(pack.files)))
    good = np.array([file.name not in bad for file in files])
    return _Images(root, pack, pack_folder, good, bad, notes)


def _sized(shape: Sequence[int]) -> tuple[int, int, int]:
    channels, height, width = shape
    return channels, height, width


def _range(given: Sequence[float] | None) -> Range | None:
    if given is None:
        return None
    if len(given) != 2 or not given[0] < given[1]:
        raise DataError(
            f"data.pixel_range={list(given)}: must be two numbers, the lesser first, or null."
        )
    return given[0], given[1]


def _pack_folder(root: Path, cache_dir: str | None) -> tuple[Path, tuple[str, ...]]:
    """Each dataset has a folder of its own, named after where it lies; and notes of it."""
    root = root.resolve()
    name = f"{root.name}-{hashlib.sha256(bytes(root)).hexdigest()[:8]}"
    if cache_dir is None:
        folder, notes = cache_for(Path("packs") / name)
        if (root / ".packed").is_dir():
            notes = (*notes, f"{root / '.packed'} is of an earlier version and can be removed")
        return folder, notes
    folder = expanded("data.cache_dir", cache_dir).resolve()
    if root in (folder, *folder.parents):
        raise DataError(
            f"data.cache_dir={cache_dir} lies in data.root={root}, where folders are classes. "
            "Take a folder outside; null takes the user's cache folder."
        )
    return folder / name, ()


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


def _split(images: Tensor, labels: Tensor, rows: np.ndarray, names: Sequence[str]) -> Split:
    """These rows of all images: a slice where they lie one after the other, as those of a folder
    do, which is read as it lies."""
    chosen = torch.from_numpy(rows)
    if not len(rows):
        return Split(images[:0], labels[chosen], files=[])
    first = int(rows[0])
    if rows[-1] - first + 1 == len(rows):
        last = first + len(rows)
        return Split(images[first:last], labels[chosen], files=names[first:last])
    return Split(images, labels[chosen], chosen, names)

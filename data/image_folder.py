"""Pictures of the user's own, in one folder per class, decoded once and then mapped into memory."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.bad_pictures import cannot_be_used, left_out, named
from data.class_folders import PARTS, find_classes, find_parts, find_pictures, listed
from data.files import expanded, resolve_root
from data.pack import File, packed
from data.pictures import MODES
from data.prepare import Preparation, fit_channels, smallest_keys, validation_counts
from data.types import DataError, Dataset, Split


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
) -> Dataset:
    """The pictures under `root`, laid out as `data.class_folders` says.

    Each is brought to `shape`: the shorter side resized, the centre taken. A split that has no
    folder is carved out of train, class by class: test first, then validation from the rest. Which
    pictures these are depends on the names of all files that are there, readable or not, and hardly
    changes when some are added or removed; see `carved`. The pack does not depend on it: all splits
    are views of one.

    Args:
        root: the folder; it has to be given.
        cache_dir: where the packed pictures are kept; None for a hidden folder below `root`.
        on_bad_image: "error" or "skip", of pictures that cannot be used.
        shape: (C, H, W), C being 1 or 3.
        num_classes: None counts the class folders.
        test_size: fraction of train that becomes the test split where it has no folder.
        The others: `Preparation`.

    Raises:
        DataError: no classes, pictures that cannot be used, nowhere to pack them, or keys that
            contradict the files.
    """
    folder = _given(root)
    if on_bad_image not in ("error", "skip"):
        raise DataError(f"data.on_bad_image={on_bad_image}: must be error or skip.")
    if not 0 < test_size < 1:
        raise DataError(f"data.test_size={test_size}: must lie between 0 and 1, both excluded.")
    folders = find_parts(folder)
    classes = find_classes(folders)
    if num_classes is None:
        num_classes = len(classes)
    preparation = Preparation(shape, num_classes, mean, std, hflip, val_size, split_seed)
    preparation.check_num_classes(len(classes))
    channels, height, width = shape
    if channels not in MODES:
        raise DataError(f"data.shape={list(shape)}: pictures have 1 or 3 channels.")
    own_mean = fit_channels("data.mean", mean, 3, channels)
    own_std = fit_channels("data.std", std, 3, channels)

    found, notes = find_pictures(folder, folders, classes)
    files = [file for own in found.values() for file in own]
    split_of = carved(found, {"test": test_size, "val": val_size}, split_seed, classes)
    pack_folder = _pack_folder(folder, cache_dir)
    pack = packed(folder, files, (channels, height, width), pack_folder)
    bad = {file.name: reason for file, reason in pack.bad}
    if bad and on_bad_image == "error":
        raise DataError(cannot_be_used(folder, bad, len(files), pack_folder))
    if bad:
        notes = (*notes, *left_out(folder, bad, len(files), pack_folder))
    _check_none_is_bare(files, split_of, folder, bad, pack_folder, classes)
    good = np.array([file.name not in bad for file in files])
    labels = torch.tensor([file.label for file in files])[torch.from_numpy(good)]
    names = [file.name for file in files if file.name not in bad]
    train, val, test = (
        _split(pack.images, labels, np.flatnonzero(split_of[good] == part), names) for part in PARTS
    )
    return Dataset(train, val, test, classes, own_mean, own_std, hflip, notes)


def class_names(*, root: str | None, **_: Any) -> tuple[str, ...]:
    """The names of the class folders, for who needs them before any picture is read: what builds
    the net. Takes the keys of the loader.

    Raises:
        DataError: as the loader does for the folders.
    """
    return find_classes(find_parts(_given(root)))


def _given(root: str | None) -> Path:
    if root is None:
        raise DataError(
            "data.root=null: data=image_folder needs data.root=FOLDER, a folder that has one "
            "folder of pictures per class, or train, val and test with these in each."
        )
    return resolve_root(root)


def _pack_folder(root: Path, cache_dir: str | None) -> Path:
    """Below `cache_dir` each set has a folder of its own, named after where it lies."""
    if cache_dir is None:
        return root / ".packed"
    folder, root = expanded("data.cache_dir", cache_dir).resolve(), root.resolve()
    if root in (folder, *folder.parents):
        raise DataError(
            f"data.cache_dir={cache_dir} lies in data.root={root}, where folders are classes. "
            "Take a folder outside; null takes a hidden one there."
        )
    return folder / f"{root.name}-{hashlib.sha256(bytes(root)).hexdigest()[:8]}"


def carved(
    found: Mapping[str, list[File]],
    sizes: Mapping[str, float],
    split_seed: int,
    classes: Sequence[str],
) -> np.ndarray:
    """The split of each file, (N,) str, where those that have no folder come out of train.

    A picture's key is a hash of the seed and its name. In each class the smallest keys are for
    test, the next for val, the others for train. So where a class gains or loses a file, or its
    share is rounded otherwise, one picture moves on to the neighbour (rarely two), but none from
    train to test.

    Args:
        found: the files of each split that has a folder.
        sizes: fraction that each of the others takes of what is left in train, in this order.
    """
    files = [file for own in found.values() for file in own]
    split_of = np.array([part for part, own in found.items() for _ in own])
    labels = np.array([file.label for file in files])
    missing = [part for part in sizes if part not in found]
    counts = np.bincount(labels[split_of == "train"], minlength=len(classes))
    if small := [name for name, n in zip(classes, counts, strict=True) if n <= len(missing)]:
        raise DataError(
            f"Too few pictures in {listed(small)}: each class needs {len(missing) + 1} or more, to "
            "have one in each of train, val and test."
        )
    keys = np.array([_key(split_seed, file.name) for file in files], dtype=np.uint64)
    for num_left, part in zip(range(len(missing), 0, -1), missing, strict=True):
        train = np.flatnonzero(split_of == "train")
        counts = np.bincount(labels[train], minlength=len(classes))
        take = validation_counts(counts, sizes[part], classes, f"data.{part}_size", num_left)
        split_of[train[smallest_keys(keys[train], labels[train], take)]] = part
    return split_of


def _key(split_seed: int, name: str) -> int:
    """64 bits that look random, the same on every machine. Names need not be UTF-8."""
    text = f"{split_seed}/{name}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def _check_none_is_bare(
    files: Sequence[File],
    split_of: np.ndarray,
    root: Path,
    bad: Mapping[str, str],
    pack_folder: Path,
    classes: Sequence[str],
) -> None:
    """Each split needs a picture of each class that can be used. Raises DataError."""
    there = {(part, f.label) for f, part in zip(files, split_of, strict=True) if f.name not in bad}
    for part in PARTS:
        bare = [name for label, name in enumerate(classes) if (part, label) not in there]
        if bare:
            of_part = {
                file.name: bad[file.name]
                for file, own in zip(files, split_of, strict=True)
                if own == part and file.name in bad
            }
            lines = [f"None of the pictures for {part} of {listed(bare)} can be used:"]
            raise DataError(
                "\n  ".join([*lines, *named(root, of_part, pack_folder)])
                + "\nRepair or remove these. Where no folder says which pictures are for which "
                "split, another data.split_seed draws others."
            )


def _split(images: Tensor, labels: Tensor, rows: np.ndarray, names: Sequence[str]) -> Split:
    """These rows of all pictures: a slice where they lie one after the other, as those of a folder
    do, which is read as it lies."""
    chosen, first = torch.from_numpy(rows), int(rows[0])
    if rows[-1] - first + 1 == len(rows):
        last = first + len(rows)
        return Split(images[first:last], labels[chosen], files=names[first:last])
    return Split(images, labels[chosen], chosen, names)

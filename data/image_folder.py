"""Pictures of the user's own, in one folder per class, decoded once and then mapped into memory."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from data.class_folders import PARTS, find_classes, find_parts, find_pictures, listed
from data.files import expanded, resolve_root
from data.pack import File, packed
from data.pictures import MODES
from data.prepare import Preparation, choose_validation, fit_channels
from data.types import DataError, Dataset, Split

Parts = Mapping[str, list[File]]

MOST_NAMED = 1000  # bad pictures in one message; a set with more is not repaired one by one


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
    pictures these are depends on all files that are there, readable or not.

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

    found, notes = find_pictures(folder, folders, classes)
    for part, key, size in (
        ("test", "data.test_size", test_size), ("val", "data.val_size", val_size)
    ):  # fmt: skip
        if part not in found:
            found = _carve(found, part, key, size, split_seed, classes)
    files = [file for part in PARTS for file in found[part]]
    pack_folder = _pack_folder(folder, cache_dir)
    pack = packed(folder, files, (channels, height, width), pack_folder)
    bad = {file.name: reason for file, reason in pack.bad}
    if bad and on_bad_image == "error":
        raise DataError(_cannot_be_used(folder, bad, len(files), pack_folder))
    if bad:
        notes = (*notes, *_left_out(folder, bad, len(files)))
    train, val, test = _splits(pack.images, found, folder, bad, classes)
    return Dataset(
        train, val, test, classes,
        fit_channels("data.mean", mean, 3, channels), fit_channels("data.std", std, 3, channels),
        hflip, notes,
    )  # fmt: skip


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


def _carve(
    parts: Parts, part: str, key: str, size: float, split_seed: int, classes: Sequence[str]
) -> dict[str, list[File]]:
    """The same with `part`, a fraction `size` of train, which is left without it."""
    train = parts["train"]
    num_missing = len(PARTS) - len(parts)  # of train itself one picture of each class must be left
    counts = Counter(file.label for file in train)
    if small := [classes[label] for label in counts if counts[label] <= num_missing]:
        raise DataError(
            f"Too few pictures in {listed(small)}: each class needs {num_missing + 1} or more, to "
            "have one in each of train, val and test."
        )
    labels = np.array([file.label for file in train])
    held_out = choose_validation(labels, size, split_seed, classes, key, num_missing)
    return {
        **parts,
        "train": [file for file, out in zip(train, held_out, strict=True) if not out],
        part: [file for file, out in zip(train, held_out, strict=True) if out],
    }


def _splits(
    images: torch.Tensor,
    parts: Parts,
    root: Path,
    bad: Mapping[str, str],
    classes: Sequence[str],
) -> list[Split]:
    """Train, val, test: the good files of each part, which lie one after the other in `images`."""
    splits, first = [], 0
    for part in PARTS:
        labels = [file.label for file in parts[part] if file.name not in bad]
        there = set(labels)
        if bare := [name for label, name in enumerate(classes) if label not in there]:
            lines = [f"None of the pictures for {part} of {listed(bare)} can be used:"]
            of_part = {file.name: bad[file.name] for file in parts[part] if file.name in bad}
            raise DataError(
                "\n  ".join([*lines, *_named(root, of_part)])
                + "\nRepair or remove these. Where no folder says which pictures are for which "
                "split, another data.split_seed draws others."
            )
        splits.append(Split(images[first : first + len(labels)], torch.tensor(labels)))
        first += len(labels)
    return splits


def _cannot_be_used(root: Path, bad: Mapping[str, str], num_files: int, pack_folder: Path) -> str:
    return (
        "\n  ".join([f"{len(bad):,} of {num_files:,} pictures cannot be used:", *_named(root, bad)])
        + f"\nThe others are kept in {pack_folder} and not read again. Repair or remove these, or "
        "leave them out with data.on_bad_image=skip."
    )


def _left_out(root: Path, bad: Mapping[str, str], num_files: int) -> list[str]:
    return [
        f"{len(bad):,} of {num_files:,} pictures cannot be used and are left out:",
        *_named(root, bad),
    ]


def _named(root: Path, bad: Mapping[str, str]) -> list[str]:
    lines = [f"{root / name}: {reason}" for name, reason in bad.items()]
    rest = len(lines) - MOST_NAMED
    return lines[:MOST_NAMED] + ([f"and {rest:,} more"] if rest > 0 else [])

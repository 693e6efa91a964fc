"""Split of a folder's images into train, validation and test, by their names."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence

import numpy as np

from data.image_folder.names import join_first_ten
from data.image_folder.packing import File
from data.splits import smallest_keys, validation_counts
from data.types import DataError


def carved(
    found: Mapping[str, list[File]],
    sizes: Mapping[str, float],
    split_seed: int,
    classes: Sequence[str],
) -> np.ndarray:
    """The split of each file, (N,) str, where those that have no folder come out of train.

    An image's key is a hash of the seed and its name. In each class the smallest keys are for
    test, the next for val, the others for train. So where a class gains or loses a file, or its
    share is rounded otherwise, one image moves on to the neighbour (rarely two), but none from
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
            f"Too few images in {join_first_ten(small)}: each class needs "
            f"{len(missing) + 1} or more, to have one in each of train, val and test. Add some, "
            "move these folders out, or join "
            "them into one class."
        )
    all_train = counts.sum()
    keys = np.array([_key(split_seed, file.name) for file in files], dtype=np.uint64)
    for num_left, part in zip(range(len(missing), 0, -1), missing, strict=True):
        train = np.flatnonzero(split_of == "train")
        counts = np.bincount(labels[train], minlength=len(classes))
        try:
            take = validation_counts(counts, sizes[part], classes, f"data.{part}_size", num_left)
        except DataError as error:
            raise DataError(f"{error}\n{_advice(int(all_train), len(classes), missing)}") from error
        split_of[train[smallest_keys(keys[train], labels[train], take)]] = part
    return split_of


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


def _key(split_seed: int, name: str) -> int:
    """64 bits that look random, the same on every machine. Names need not be UTF-8."""
    text = f"{split_seed}/{name}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")

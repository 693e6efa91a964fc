"""Equal images, byte by byte: candidates by the key of each, confirmed by a digest of all.

70,000 images of 28 x 28 take a hundredth of a second.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from data.types import Split


def equal_images(splits: Sequence[Split]) -> list[list[int]]:
    """Groups of two or more equal images, as ascending numbers that count on from split to split;
    the group whose first image comes first is first. All images have one shape."""
    keys = np.concatenate([split.keys() for split in splits])
    order = keys.argsort(kind="stable")
    same = keys[order[1:]] == keys[order[:-1]]
    bounds = np.flatnonzero(np.diff(np.concatenate(([False], same, [False])).astype(np.int8)))
    found = (
        group
        for first, last in bounds.reshape(-1, 2)
        for group in _confirmed(splits, order[first : last + 1])
    )
    return sorted(found)


def _confirmed(splits: Sequence[Split], numbers: NDArray[np.int64]) -> Iterator[list[int]]:
    """Those of images with equal hashes that are equal."""
    groups = defaultdict(list)
    starts = np.cumsum([0, *(len(split) for split in splits)])
    for number in numbers.tolist():
        part = int(np.searchsorted(starts, number, side="right")) - 1
        split, position = splits[part], number - int(starts[part])
        image = split.images[position if split.rows is None else int(split.rows[position])]
        groups[hashlib.blake2b(image.numpy().tobytes(), digest_size=16).digest()].append(number)
    yield from (group for group in groups.values() if len(group) > 1)

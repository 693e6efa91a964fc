"""Report of a dataset before training: copies, and classes of unequal size."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from data.types import printable

UNEQUAL = 4  # times as many images as in the smallest class: worth a line
_MOST_BYTES = 2**29  # of images in memory that are compared: a second or so
_FIRST = 3  # that are named


def notes_on_counts(labels: Tensor, classes: Sequence[str]) -> Iterator[str]:
    """A line where the classes of train are very unequal.

    Args:
        labels: (N,) int64.
    """
    counts = labels.bincount(minlength=len(classes))
    most, least = int(counts.argmax()), int(counts.argmin())
    if counts[most] >= UNEQUAL * counts[least]:
        yield printable(
            f"classes are unequal in train: {counts[most]:,} images of {classes[most]}, "
            f"{counts[least]:,} of {classes[least]}; look at each class's recall (evaluate), not "
            "at accuracy alone"
        )


def notes_on_copies(
    keys: Sequence[Hashable],
    splits: Sequence[str] | NDArray[np.str_],
    labels: Sequence[int] | NDArray[np.int64],
    classes: Sequence[str],
    names: Sequence[str],
) -> Iterator[str]:
    """A line each for images of test or val that are in train too, and for images under several
    labels, with the first names.

    Args:
        keys: of each image; equal ones are of equal images. An empty one is compared to none.
        splits, labels, names: of each image.
    """
    places = defaultdict(list)
    for place, key in enumerate(keys):
        if key != "":
            places[key].append(place)
    groups = [group for group in places.values() if len(group) > 1]
    for part in ("test", "val"):
        leaks = [
            (place, next(p for p in group if splits[p] == "train"))
            for group in groups
            if any(splits[p] == "train" for p in group)
            for place in group
            if splits[place] == part
        ]
        if leaks:
            pairs = ", ".join(f"{names[a]} = {names[b]}" for a, b in leaks[:_FIRST])
            yield printable(
                f"exact copies: {len(leaks):,} {part} images are in train, too, and the {part} "
                f"figures too good: {pairs}{_more(leaks)}"
            )
    torn = [group for group in groups if len({int(labels[p]) for p in group}) > 1]
    if torn:
        few = ", ".join(
            " = ".join(f"{names[p]} ({classes[labels[p]]})" for p in _of_each_label(group, labels))
            for group in torn[:_FIRST]
        )
        yield printable(
            f"contradictions: {len(torn):,} images stand under more than one label: "
            f"{few}{_more(torn)}"
        )


def _of_each_label(
    group: Sequence[int], labels: Sequence[int] | NDArray[np.int64]
) -> Sequence[int]:
    """The first of each of two labels."""
    first = group[0]
    return first, next(p for p in group if labels[p] != labels[first])


def _more(found: Sequence[object]) -> str:
    return f" and {len(found) - _FIRST:,} more" if len(found) > _FIRST else ""


def keys_of(images: Tensor) -> list[int] | None:
    """A number of 64 bits for each of (N, C, H, W) uint8, equal for equal images within this
    process; None if there are too many bytes to look at all of them now."""
    if images.nbytes > _MOST_BYTES:
        return None
    return [hash(image.tobytes()) for image in images.contiguous().numpy()]

"""Report of a dataset before training: classes of unequal size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from data.types import printable

UNEQUAL = 4  # times as many images as in the smallest class: worth a line


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

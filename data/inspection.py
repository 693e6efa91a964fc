"""What is told of a dataset before training: classes of unequal size, images of one colour."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from data.images.scaling import FLAT
from data.types import Split, printable

UNEQUAL = 4  # times as many images as in the smallest class: worth a line
_ROWS = 4096  # images looked at a time


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


def flat_images(split: Split) -> list[int]:
    """Positions of the images that are nearly one colour: in no channel do two pixels differ by
    more than FLAT."""
    found = []
    for start in range(0, len(split), _ROWS):
        positions = torch.arange(start, min(start + _ROWS, len(split)))
        pixels = split.images_at(positions).flatten(2)
        flat = (pixels.amax(2).int() - pixels.amin(2) <= FLAT).all(1)
        found += positions[flat].tolist()
    return found

"""Predictions of a run for each image of its validation and test split: predictions.csv.

One row an image: `split`, `index` (its place in the dataset's own files), `file` (relative to the
root; empty for datasets without files), `label` and `predicted` (class names), `probability` (of
the predicted class), `loss`, and the five most probable classes with their probabilities.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.runs.side_files import content
from trainer.system.files import write_bytes
from trainer.text.printable import in_csv

NAME = "predictions.csv"
TOP = 5
HEADER = (
    "split", "index", "file", "label", "predicted", "probability", "loss",
    *(f"class_{rank}" for rank in range(1, TOP + 1)),
    *(f"probability_{rank}" for rank in range(1, TOP + 1)),
)  # fmt: skip


@dataclass(frozen=True)
class Predictions:
    """Predictions of one split, sorted by file name, or by index where images have no files.

    Attributes:
        images: (N,) what identifies each image: its file's name, or its index as text.
        label, predicted: (N,) class names.
    """

    images: tuple[str, ...]
    label: tuple[str, ...]
    predicted: tuple[str, ...]
    has_files: bool

    @property
    def is_right(self) -> NDArray[np.bool_]:
        """(N,), True where the predicted class is the label."""
        return np.array([a == b for a, b in zip(self.label, self.predicted, strict=True)])


def read(file: Path, split: str) -> Predictions | None:
    """Predictions of a split; None if the file has none of it. Raises OSError, or ValueError that
    says what is wrong with the file."""
    lines = csv.reader(io.StringIO(content(file).decode("utf-8"), newline=""))
    header = next(lines, [])
    if tuple(header) != HEADER:
        raise ValueError(f"{file}: its first line is not that of a {NAME}")
    rows = []
    for number, row in enumerate(lines, 2):
        if len(row) != len(HEADER) or not row[1].isdecimal():
            raise ValueError(f"{file}: line {number} is damaged")
        if row[0] == split:
            rows.append(row)
    if not rows:
        return None
    has_files = all(row[2] for row in rows)
    place = 2 if has_files else 1
    rows.sort(key=lambda row: row[2] if has_files else int(row[1]))
    images, label, predicted = ([row[i] for row in rows] for i in (place, 3, 4))
    if len(set(images)) < len(images):
        raise ValueError(f"{file}: an image of the {split} split stands there twice")
    return Predictions(tuple(images), tuple(label), tuple(predicted), has_files)


def write(file: Path, rows: Iterable[Sequence[object]]) -> None:
    """The file anew, whole or not at all. Floats are written with seven digits; names that a
    spreadsheet would take for a formula begin with an apostrophe."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    for row in rows:
        writer.writerow(
            f"{cell:.7g}" if isinstance(cell, float) else in_csv(cell) if cell != "" else ""
            for cell in row
        )
    write_bytes(file, text.getvalue().encode("utf-8", "backslashreplace"))

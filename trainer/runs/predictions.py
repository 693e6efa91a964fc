"""Predictions of a run for each image of its validation and test split: predictions.csv.

One row an image: `split`, `index` (its place in the dataset's own files; where each image has a
file of its own, in the sorted list of all of them), `file` (relative to the root; empty for
datasets without files), `label` and `predicted` (class names), `probability` (of the predicted
class), `loss` (-ln of the label's probability), and the five most probable classes with their
probabilities. A cell is empty where there are fewer classes, or a number is not finite.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.runs import image_keys
from trainer.runs.side_files import content
from trainer.system.files import write_bytes
from trainer.text.printable import FORMULA, in_csv

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from trainer.evaluation.findings import ImagePredictions

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
        num_trained_on: images that were left out, since the model was trained on them; None: some
            of these may be such, and which is not known.
        keys: image -> key, the same for the same pixels; empty where it is not known.
        classes: names of all; empty where they are not known.
    """

    images: tuple[str, ...]
    label: tuple[str, ...]
    predicted: tuple[str, ...]
    has_files: bool
    num_trained_on: int | None = 0
    keys: Mapping[str, str] = field(default_factory=dict)
    classes: tuple[str, ...] = ()

    @property
    def is_right(self) -> NDArray[np.bool_]:
        """(N,), True where the predicted class is the label."""
        import numpy as np  # here: it takes a tenth of a second that a training need not wait for

        return np.array([a == b for a, b in zip(self.label, self.predicted, strict=True)])


def read(file: Path, split: str) -> Predictions | None:
    """Predictions of a split; None if the file has none of it. Raises OSError, or ValueError that
    says what is wrong with the file."""
    rows = read_rows(file, split)
    if not rows:
        return None
    has_files = all(row[2] for row in rows)
    at = 2 if has_files else 1
    found = in_order([(row[at], row[3], row[4]) for row in rows], has_files)
    if len(set(found.images)) < len(rows):
        raise ValueError(f"an image of the {split} split stands there twice")
    known = image_keys.read(file.parent, split)
    keys = {row[at]: known.of_index[row[1]] for row in rows if row[1] in known.of_index}
    return replace(found, keys=keys, classes=known.classes)


def in_order(rows: Iterable[tuple[str, str, str]], has_files: bool) -> Predictions:
    """Predictions sorted by their images, of (image, label, predicted)."""
    images, label, predicted = zip(
        *sorted(rows, key=lambda row: row[0] if has_files else int(row[0])), strict=True
    )
    return Predictions(images, label, predicted, has_files)


def joined(parts: Sequence[Predictions]) -> Predictions:
    """Predictions of several sets of images, which have none in common."""
    rows = itertools.chain(
        *(zip(part.images, part.label, part.predicted, strict=True) for part in parts)
    )
    known = [part.num_trained_on for part in parts if part.num_trained_on is not None]
    return replace(
        in_order(rows, all(part.has_files for part in parts)),
        num_trained_on=sum(known) if len(known) == len(parts) else None,
        keys={image: key for part in parts for image, key in part.keys.items()},
        classes=parts[0].classes,
    )


def read_rows(file: Path, split: str) -> list[list[str]]:
    """Rows of a split, in the order of its images, with the cells of HEADER. Raises as `read`."""
    lines = csv.reader(io.StringIO(content(file).decode("utf-8"), newline=""))
    header = next(lines, [])
    if tuple(header) != HEADER:
        raise ValueError(f"its first line is not that of a {NAME}")
    rows = []
    for number, row in enumerate(lines, 2):
        if len(row) != len(HEADER) or not row[1].isdecimal():
            raise ValueError(f"line {number} is damaged")
        if row[0] == split:
            rows.append([unquoted(cell) for cell in row])
    return rows


def unquoted(cell: str) -> str:
    """A cell without the apostrophe that keeps a spreadsheet from reading it as a formula."""
    return cell[1:] if cell[:1] == "'" and cell[1:2] in FORMULA else cell


def rows_of(
    name: str,
    found: ImagePredictions,
    classes: Sequence[str],
    index_at: Callable[[int], int],
    file_at: Callable[[int], str | None],
) -> Iterator[tuple[object, ...]]:
    """Rows of the first images of a split, as many as were evaluated.

    Args:
        name: of the split, train, val or test.
        classes: name of each class.
        index_at, file_at: from a position in the split to its place and its file.
    """
    columns = (found.labels, found.predicted, found.losses, found.top, found.probabilities)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    for i, (label, predicted, loss, top, shares) in enumerate(rows):
        missing = [""] * (TOP - len(top))
        yield (
            name, index_at(i), file_at(i) or "", classes[label],
            classes[predicted],
            shares[0], loss, *(classes[k] for k in top), *missing, *shares, *missing,
        )  # fmt: skip


def write(file: Path, rows: Iterable[Sequence[object]]) -> None:
    """The file anew, whole or not at all. Floats are written with seven digits; names that a
    spreadsheet would take for a formula begin with an apostrophe."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows([cell_of(value) for value in row] for row in rows)
    write_bytes(file, text.getvalue().encode("utf-8", "backslashreplace"))


def cell_of(value: object) -> object:
    if isinstance(value, float):
        return f"{value:.7g}" if math.isfinite(value) else ""
    return in_csv(value) if isinstance(value, str) and value else value

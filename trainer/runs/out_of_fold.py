"""Out-of-fold predictions of a cross-validation: of each image by the run that held it out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trainer.evaluation.statistics import wilson
from trainer.runs import predictions
from trainer.runs.read import Row

SPLIT = "fold"  # in the file's first column
NUMBERS = (5, 6, *range(7 + predictions.TOP, 7 + 2 * predictions.TOP))  # columns


def write(folder: Path, rows: Sequence[Row]) -> str | None:
    """Write predictions.csv of a sweep over folds into its folder. Returns a line with the accuracy
    on all images; None if the runs are not one of each fold, or not all of them have ended.

    Raises OSError, or ValueError for a damaged file.
    """
    folds = [row.fold for row in rows]
    whole = all(row.status == "finished" and row.fold is not None for row in rows)
    if not whole or len(set(folds)) < len(folds) or len(folds) < 2:
        return None
    found = [
        line
        for row in rows
        for line in predictions.read_rows(row.folder / predictions.NAME, "test")
    ]
    if not found:
        return None
    predictions.write(folder / predictions.NAME, [
        (SPLIT, *(as_number(cell) if i in NUMBERS else cell
                  for i, cell in enumerate(line[1:], 1)))
        for line in found
    ])  # fmt: skip
    right = sum(line[3] == line[4] for line in found)
    return (
        f"out of fold: accuracy {right / len(found):.4f} of {len(found):,} images, 95 %: "
        f"{wilson(right, len(found))} ({folder / predictions.NAME})"
    )


def as_number(cell: str) -> float | str:
    return float(cell) if cell else ""

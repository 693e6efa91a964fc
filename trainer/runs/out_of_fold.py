"""Out-of-fold predictions of a cross-validation: of each image by the run that held it out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trainer.evaluation.statistics import wilson
from trainer.runs import predictions
from trainer.runs.read import Row
from trainer.text.values import count

SPLIT = "fold"  # in the file's first column
LABEL, PREDICTED = 3, 4  # columns
NUMBERS = (5, 6, *range(7 + predictions.TOP, 7 + 2 * predictions.TOP))


def write(folder: Path, rows: Sequence[Row]) -> str | None:
    """Write predictions.csv of a sweep over folds into its folder. Returns a line with the accuracy
    on all images, or one that says why there is no such file; None if a run holds out no fold."""
    folds = [row.fold for row in rows if row.status == "finished" and row.fold is not None]
    file = folder / predictions.NAME
    if len(set(folds)) < len(rows):
        return f"{file}: is written where the runs are one of each fold, and all are finished"
    try:
        sources = [row.folder / predictions.NAME for row in rows]
        found = [line for source in sources for line in predictions.read_rows(source, "test")]
        if not found:  # test=none
            return None
        predictions.write(file, map(as_written, found))
    except (OSError, ValueError) as error:
        return f"{file}: could not be written: {error}"
    right = sum(line[LABEL] == line[PREDICTED] for line in found)
    return (
        f"out of fold: accuracy {right / len(found):.4f} of {count(len(found), 'image')}, 95 %: "
        f"{wilson(right, len(found))} over images, as of one model ({file})"
    )


def as_written(line: Sequence[str]) -> list[object]:
    """A row of a run as one of the whole: numbers as such, so that none is taken for a formula."""
    cells = [float(cell) if i in NUMBERS and cell else cell for i, cell in enumerate(line)]
    return [SPLIT, *cells[1:]]

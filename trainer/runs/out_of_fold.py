"""Out-of-fold predictions of a cross-validation: of each image by the run that held it out."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from trainer.evaluation.statistics import wilson
from trainer.runs import predictions
from trainer.runs.read import Row
from trainer.text.values import count

SPLIT = "fold"  # in the file's first column
LABEL, PREDICTED = 3, 4  # columns
NUMBERS = (5, 6, *range(7 + predictions.TOP, 7 + 2 * predictions.TOP))


def found(rows: Sequence[Row]) -> list[list[str]]:
    """Rows of predictions.csv of each run for the fold that it held out, where the runs are one of
    each fold, and all are finished; else none. Raises OSError or ValueError."""
    folds = [row.fold for row in rows if row.status == "finished" and row.fold is not None]
    if len(set(folds)) < len(rows) or not is_whole(folds):
        return []
    sources = [row.folder / predictions.NAME for row in rows]
    return [line for source in sources for line in predictions.read_rows(source, "test")]


def is_whole(folds: Collection[str]) -> bool:
    """True if "fold 0 of K" to the last are there."""
    return {fold.rpartition(" of ")[2] for fold in folds} == {str(len(set(folds)))}


def accuracy(rows: Sequence[Row]) -> tuple[int, int] | None:
    """Images that were predicted right by the runs that held them out, and all; None where `found`
    finds none."""
    try:
        lines = found(rows)
    except (OSError, ValueError):
        return None
    return (sum(line[LABEL] == line[PREDICTED] for line in lines), len(lines)) if lines else None


def in_words(rows: Sequence[Row]) -> str | None:
    """A line with the accuracy on all images."""
    if (counts := accuracy(rows)) is None:
        return None
    right, n = counts
    return (
        f"out of fold: accuracy {right / n:.4f} of {count(n, 'image')}, 95 %: {wilson(right, n)} "
        "over images, as of one model"
    )


def write(folder: Path, rows: Sequence[Row]) -> str | None:
    """Write predictions.csv of a sweep over folds into its folder. Returns a line that says where
    it is, or why there is none; None if the folds were not predicted."""
    file = folder / predictions.NAME
    folds = {row.fold for row in rows if row.status == "finished" and row.fold is not None}
    if len(folds) < len(rows) or not is_whole(folds):
        return (
            f"no {file} is written: it would have each image once, of one configuration and one "
            f"seed, and these are {count(len(rows), 'run')} of {count(len(folds), 'finished fold')}"
        )
    try:
        lines = found(rows)
        if not lines:  # test=none
            return None
        predictions.write(file, map(as_written, lines))
    except (OSError, ValueError) as error:
        return f"{file}: could not be written: {error}"
    return f"out-of-fold predictions of each image: {file}"


def as_written(line: Sequence[str]) -> list[object]:
    """A row of a run as one of the whole: numbers as such, so that none is taken for a formula."""
    cells = [float(cell) if i in NUMBERS and cell else cell for i, cell in enumerate(line)]
    return [SPLIT, *cells[1:]]

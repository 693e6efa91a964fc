"""Evaluation of a split, as a page shows it: confusion, mistakes, figures of each class."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trainer.evaluation.confusion import Cell, most_common_confusions, per_class
from trainer.runs.report.matrix import Matrix, confusion_matrix

MOST_CLASSES = 1000  # in a matrix and in a table: with more, no browser shows the page
MOST_CONFUSED = 8


@dataclass(frozen=True)
class Mistake:
    """An image whose prediction is wrong. source: a data: URI. probability, file: may be empty."""

    index: int
    source: str
    prediction: str
    label: str
    probability: str
    file: str


@dataclass(frozen=True)
class Evaluation:
    """Content of evaluation.html. matrix: None of too many classes. confusions: (true class,
    predicted one, count). class_rows: name, images, precision, recall and its interval, F1; of too
    many classes those with the lowest F1."""

    numbers: str
    num_classes: int
    matrix: Matrix | None
    confusions: list[tuple[str, str, str]]
    mistakes: list[Mistake]
    class_rows: list[tuple[str, ...]]


def evaluation(found: dict[str, Any], classes: Sequence[str]) -> Evaluation:
    """Of a split in findings.json. Raises KeyError, TypeError, ValueError or IndexError if it is
    not what it should be."""
    noted = found["confusion_cells"] if "confusion_cells" in found else found["confusion"]  # older
    cells = [(int(true), int(predicted), int(count)) for true, predicted, count in noted]
    if any(not (0 <= t < len(classes) and 0 <= s < len(classes) and 0 <= n < 2**53)
           for t, s, n in cells):  # fmt: skip
        raise ValueError("a cell of no class")
    numbers = [("top-5 accuracy", found["top5"]), ("calibration error", found["calibration_error"])]
    if len(classes) <= 5:
        numbers = numbers[1:]
    return Evaluation(
        ", ".join(f"{name} {float(value):.4f}" for name, value in numbers if value is not None),
        len(classes),
        confusion_matrix(cells, classes) if len(classes) <= MOST_CLASSES else None,
        [
            (classes[true], classes[predicted], f"{count:,}")
            for true, predicted, count in most_common_confusions(cells, MOST_CONFUSED)
        ],
        [mistake(one, classes) for one in found["mistakes"]],
        class_rows(cells, classes),
    )


def mistake(found: dict[str, Any], classes: Sequence[str]) -> Mistake:
    # Older runs have "picture", "said" and "was".
    image = found["image"] if "image" in found else found["picture"]
    predicted = found["predicted_index"] if "predicted_index" in found else found["said"]
    label = found["label_index"] if "label_index" in found else found["was"]
    if not re.fullmatch(r"data:image/png;base64,[A-Za-z0-9+/=]+", image):
        raise ValueError("an image is no data: URI")
    sure, file = found["probability"], found.get("file")  # older runs have none, nor have all sets
    return Mistake(
        int(found["index"]), image, classes[predicted], classes[label],
        "" if sure is None else f"{float(sure):.0%}", str(file) if file else "",
    )  # fmt: skip


def class_rows(cells: Sequence[Cell], classes: Sequence[str]) -> list[tuple[str, ...]]:
    figures = per_class(cells, len(classes))
    shown: Sequence[int] = range(len(classes))
    if len(classes) > MOST_CLASSES:
        shown = sorted(shown, key=lambda k: figures[k]["f1"])[:MOST_CLASSES]
    return [
        (classes[k], f"{figures[k]['count']:,}",
         *(f"{figures[k][key]:.4f}" for key in ("precision", "recall")),
         str(figures[k]["interval"] or "-"), f"{figures[k]['f1']:.4f}")
        for k in shown
    ]  # fmt: skip

"""Confusion of classes: how often each was predicted as each, and the figures that follow.

A cell is (true class, predicted one, count) of a confusion matrix; one that is 0 is left out, so
the cells grow with the images, not with the square of the classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from trainer.evaluation.statistics import wilson

Cell = Sequence[int]


def most_common_confusions(cells: Iterable[Cell], most: int) -> list[Cell]:
    """Those off the diagonal, the largest counts first, `most` of them."""
    return sorted((cell for cell in cells if cell[0] != cell[1]), key=lambda c: -c[2])[:most]


def class_sizes(cells: Iterable[Cell]) -> Counter[int]:
    """The images of each true class."""
    sizes: Counter[int] = Counter()
    for true, _, count in cells:
        sizes[true] += count
    return sizes


def per_class(cells: Iterable[Cell], num_classes: int) -> list[dict[str, Any]]:
    """count, precision, recall and F1 of each class, 0 where a denominator is 0; and `interval`,
    the 95 % interval of the recall, None of a class without images."""
    true, predicted, correct = ([0] * num_classes for _ in range(3))
    for label, prediction, count in cells:
        true[label] += count
        predicted[prediction] += count
        correct[label] += count if label == prediction else 0
    return [
        {
            "count": true[k],
            "precision": _ratio(correct[k], predicted[k]),
            "recall": _ratio(correct[k], true[k]),
            "f1": _ratio(2 * correct[k], true[k] + predicted[k]),
            "interval": wilson(correct[k], true[k]) if true[k] else None,
        }
        for k in range(num_classes)
    ]


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def averages(cells: Sequence[Cell], num_classes: int) -> dict[str, dict[str, float]]:
    """Precision, recall and F1 over the classes that have images or were predicted: `macro`, in
    which each of these counts the same, and `weighted` by its images. Others are undefined."""
    rows = per_class(cells, num_classes)
    seen = [rows[k] for k in sorted({k for cell in cells for k in cell[:2]})]
    num_images = sum(row["count"] for row in seen)
    keys = ("precision", "recall", "f1")
    return {
        "macro": {key: sum(row[key] for row in seen) / max(1, len(seen)) for key in keys},
        "weighted": {
            key: sum(row["count"] * row[key] for row in seen) / max(1, num_images) for key in keys
        },
    }

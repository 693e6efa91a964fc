"""What was measured of a net: as JSON, and as tables for the terminal."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trainer.tables import align

if TYPE_CHECKING:
    from trainer.metrics import Findings, Metrics

MOST_ROWS, WORST_ROWS = 100, 20  # classes in a table; of more, the worst
LARGEST_MATRIX, NUM_CONFUSIONS = 12, 10  # classes of a matrix; of more, the commonest pairs
SHORTEST_HEADING = 4  # characters of a class's name over its column


def figures(metrics: Metrics, findings: Findings, classes: Sequence[str]) -> dict[str, Any]:
    """All that was measured, as JSON has it: what is not finite is None. Classes are given by their
    position in `classes`, for two may have the same name."""
    from trainer.metrics import TOP, finite, per_class

    rows = zip(classes, per_class(findings.confusion), strict=True)
    return {
        "num_images": metrics.num_images,
        "loss": finite(metrics.loss),
        "accuracy": metrics.accuracy,
        f"top{TOP}_accuracy": findings.top5 if len(classes) > TOP else None,
        "calibration_error": finite(findings.calibration_error),
        "seconds": metrics.seconds,
        "images_per_s": metrics.images_per_s,
        "classes": list(classes),
        "per_class": [{"class": name, **row} for name, row in rows],
        "confusion": findings.confusion.tolist(),
        "mistakes": [
            {**dataclasses.asdict(mistake), "probability": finite(mistake.probability)}
            for mistake in findings.mistakes
        ],
    }


def show(results: Mapping[str, Any], data: Sequence[str] = ()) -> None:
    """The figures on the terminal. data: the words that name the set, if it is not the run's."""
    loss, error = (
        "nan" if results[key] is None else f"{results[key]:.4f}"
        for key in ("loss", "calibration_error")
    )
    top5 = results["top5_accuracy"]
    split = f"{results['split']} split{' of ' if data else ''}{' '.join(data)}"
    print(f"{split}, {results['num_images']:,} pictures on {results['device']}: "
          f"loss {loss}, accuracy {results['accuracy']:.4f}, "
          f"{results['images_per_s']:,.0f} images/s")  # fmt: skip
    print(f"{'' if top5 is None else f'top-5 accuracy {top5:.4f}, '}calibration error {error}\n")
    print(class_table(results["per_class"]))
    print()
    matrix = confusion_table(results["confusion"], results["classes"])
    print(matrix or commonest_confusions(results["confusion"], results["classes"]))


def class_table(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [["class", "pictures", "precision", "recall", "F1"]]
    shown = sorted(rows, key=lambda row: row["f1"])[:WORST_ROWS] if len(rows) > MOST_ROWS else rows
    for row in shown:
        lines.append([row["class"], f"{row['count']:,}",
                      *(f"{row[key]:.4f}" for key in ("precision", "recall", "f1"))])  # fmt: skip
    note = f"\nthe {len(shown)} of {len(rows):,} classes with the lowest F1"
    return align(lines, left={0}) + ("" if shown is rows else note)


def confusion_table(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> str | None:
    """Rows the true class, columns the predicted one; None if that is too large to be read."""
    if len(classes) > LARGEST_MATRIX:
        return None
    widest = max(len(name) for name in classes)
    room = (shutil.get_terminal_size().columns - max(widest, len("true"))) // len(classes) - 2
    digits = max(len(f"{count}") for row in confusion for count in row)
    if room < max(digits, min(widest, SHORTEST_HEADING)):
        return None
    cells = [[f"{count}" if count else "." for count in row] for row in confusion]
    lines = [["true", *(name[:room] for name in classes)]]
    lines += [[name, *row] for name, row in zip(classes, cells, strict=True)]
    return "predicted, of each true class:\n" + align(lines, left={0})


def commonest_confusions(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> str:
    wrong = [
        (count, was, said)
        for was, row in enumerate(confusion)
        for said, count in enumerate(row)
        if count and was != said
    ]
    if not wrong:
        return "no class was taken for another"
    lines = [["true", "predicted", "pictures", "of the class"]]
    for count, was, said in sorted(wrong, key=lambda one: -one[0])[:NUM_CONFUSIONS]:
        share = f"{100 * count / sum(confusion[was]):.1f} %"
        lines.append([classes[was], classes[said], f"{count:,}", share])
    return "the commonest confusions:\n" + align(lines, left={0, 1})


def as_json(results: Mapping[str, Any]) -> str:
    """A line for each key, and for each row of a table."""
    lines = []
    for key, value in results.items():
        text = json.dumps(value, allow_nan=False)
        if isinstance(value, list) and value and isinstance(value[0], list | dict):
            rows = ",\n".join(f"  {json.dumps(row, allow_nan=False)}" for row in value)
            text = f"[\n{rows}\n ]"
        lines.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"

"""Metrics of a model: as JSON, and as tables for the terminal."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trainer.evaluation.confusion import averages, class_sizes, most_common_confusions, per_class
from trainer.evaluation.findings import TOP, Confusion, Findings, mistakes_as_json
from trainer.evaluation.metrics import Metrics
from trainer.evaluation.statistics import interval_of
from trainer.text.json_text import finite
from trainer.text.tables import align
from trainer.text.values import count

MOST_ROWS, WORST_ROWS = 100, 20  # classes in a table; of more, the worst
LARGEST_MATRIX, NUM_CONFUSIONS = 12, 10  # classes of a matrix; of more, the most common pairs
SHORTEST_HEADING = 4  # characters of a class's name over its column
NUM_MISTAKES = 5  # on the terminal
LARGEST_IN_JSON = 1000  # classes of a matrix; of more, the cells that are not 0


def figures(
    metrics: Metrics,
    findings: Findings,
    classes: Sequence[str],
    index_at: Callable[[int], int],
    file_at: Callable[[int], str | None],
) -> dict[str, Any]:
    """All that was measured, as JSON has it: what is not finite is None.

    Args:
        index_at, file_at: from a position in the split to its place and its file.
    """
    cells = findings.confusion.cells.tolist()
    rows = zip(classes, per_class(cells, len(classes)), strict=True)
    return {
        "num_images": metrics.num_images,
        "loss": finite(metrics.loss),
        **({} if math.isfinite(metrics.loss) else {"reason": "the loss is NaN or infinite"}),
        "accuracy": metrics.accuracy,
        "accuracy_interval": interval_of(metrics.accuracy, metrics.num_images),
        f"top{TOP}_accuracy": findings.top5 if len(classes) > TOP else None,
        "calibration_error": finite(findings.calibration_error),
        "seconds": metrics.seconds,
        "images_per_s": metrics.images_per_s,
        "classes": list(classes),
        "per_class": [{"class": name, **row} for name, row in rows],
        "averages": averages(cells, len(classes)),
        **confusion_as_json(findings.confusion),
        "mistakes": mistakes_as_json(findings.mistakes, classes, index_at, file_at),
    }


def confusion_as_json(confusion: Confusion) -> dict[str, list[list[int]]]:
    """`confusion`: rows the true class, columns the predicted one. Where that would have millions
    of cells, `confusion_cells`: [true, predicted, count] of those that are not 0."""
    if confusion.num_classes <= LARGEST_IN_JSON:
        return {"confusion": confusion.dense().tolist()}
    return {"confusion_cells": confusion.cells.tolist()}


def show(results: Mapping[str, Any], confusion: Confusion, data: Sequence[str] = ()) -> None:
    """Print the metrics. data: the words that name the dataset, if it is not the run's."""
    loss, error = (
        "nan" if results[key] is None else f"{results[key]:.4f}"
        for key in ("loss", "calibration_error")
    )
    top5 = results["top5_accuracy"]
    folds, fold = (results["data"].get(key, 0) for key in ("folds", "fold"))
    of_fold = folds and results["split"] == "test"
    split = f"fold {fold} of {folds}" if of_fold else f"{results['split']} split"
    split += f"{' of ' if data else ''}{' '.join(data)}"
    print(f"{split}, {count(results['num_images'], 'image')} on {results['device']}: "
          f"loss {loss}, accuracy {results['accuracy']:.4f} (95 %: "
          f"{results['accuracy_interval']}), "
          f"{results['images_per_s']:,.0f} images/s")  # fmt: skip
    print(f"{'' if top5 is None else f'top-5 accuracy {top5:.4f}, '}calibration error {error}\n")
    print(class_table(results["per_class"], results["averages"]))
    print()
    cells, classes = confusion.cells.tolist(), results["classes"]
    print(confusion_table(cells, classes) or confusion_list(cells, classes))
    if results["mistakes"]:
        print()
        print(mistake_table(results["mistakes"]))


def class_table(
    rows: Sequence[Mapping[str, Any]], averages: Mapping[str, Mapping[str, float]]
) -> str:
    lines = [["class", "images", "precision", "recall", "95 %", "F1"]]
    shown = sorted(rows, key=lambda row: row["f1"])[:WORST_ROWS] if len(rows) > MOST_ROWS else rows
    for row in shown:
        lines.append([row["class"], f"{row['count']:,}", f"{row['precision']:.4f}",
                      f"{row['recall']:.4f}", str(row["interval"] or "-"),
                      f"{row['f1']:.4f}"])  # fmt: skip
    total = f"{sum(row['count'] for row in rows):,}"
    for kind, row in averages.items():
        lines.append([f"{kind} average", total, f"{row['precision']:.4f}", f"{row['recall']:.4f}",
                      "", f"{row['f1']:.4f}"])  # fmt: skip
    note = f"\n{len(shown)} of {len(rows):,} classes, those with the lowest F1"
    return align(lines, left={0}) + ("" if shown is rows else note)


def confusion_table(cells: Sequence[Sequence[int]], classes: Sequence[str]) -> str | None:
    """Rows the true class, columns the predicted one; None if that is too large to be read.

    Args:
        cells: [true, predicted, count] of those that are not 0.
    """
    if len(classes) > LARGEST_MATRIX:
        return None
    widest = max(len(name) for name in classes)
    room = (shutil.get_terminal_size().columns - max(widest, len("true"))) // len(classes) - 2
    digits = max((len(f"{number}") for _, _, number in cells), default=1)
    if room < max(digits, min(widest, SHORTEST_HEADING)):
        return None
    lines = [["true", *(name[:room] for name in classes)]]
    lines += [[name, *["."] * len(classes)] for name in classes]
    for true, predicted, number in cells:
        lines[1 + true][1 + predicted] = f"{number}"
    return "predicted, of each true class:\n" + align(lines, left={0})


def confusion_list(cells: Sequence[Sequence[int]], classes: Sequence[str]) -> str:
    commonest = most_common_confusions(cells, NUM_CONFUSIONS)
    if not commonest:
        return "no misclassifications"
    totals = class_sizes(cells)
    lines = [["true", "predicted", "images", "of the class"]]
    for true, predicted, number in commonest:
        share = f"{100 * number / totals[true]:.1f} %"
        lines.append([classes[true], classes[predicted], f"{number:,}", share])
    return "most common confusions:\n" + align(lines, left={0, 1})


def mistake_table(mistakes: Sequence[Mapping[str, Any]]) -> str:
    """The most confident ones; by their places where the images have no files."""
    lines = [["file" if mistakes[0]["file"] else "number", "true", "predicted", "probability"]]
    for one in mistakes[:NUM_MISTAKES]:
        sure = "nan" if one["probability"] is None else f"{one['probability']:.4f}"
        lines.append([one["file"] or f"{one['index']}", one["label"], one["predicted"], sure])
    return "most confident mistakes:\n" + align(lines, left={0, 1, 2})


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

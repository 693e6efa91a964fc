"""Report for programs: JSON, CSV, paths."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from trainer.evaluation.statistics import wilson
from trainer.runs import out_of_fold
from trainer.runs.read import Row, shared_overrides
from trainer.runs.report.differences import side_by_side, silent
from trainer.runs.report.result import result
from trainer.runs.selection import configurations, rule, selected
from trainer.text.json_text import json_of
from trainer.text.printable import in_csv


def as_json(
    rows: list[Row], folder: Path, shown: Sequence[Row], compared: Sequence[Path] = ()
) -> str:
    """The runs that are to be shown, the configurations, and the folder of the selected run: the
    best one, or null where runs on different datasets were compared.

    Args:
        compared: runs of which all keys that differ are told.
    """
    folders = [str(run) for run in compared]
    chosen = selected(rows)
    of_chosen = {row.folder for one in chosen for row in one.rows}
    return json_of(
        {
            "runs": [run_as_json(row, row.folder in of_chosen) for row in shown],
            "configurations": [
                {
                    "overrides": list(one.overrides), "n": one.val.n, "val_mean": one.val.mean,
                    "val_std": one.val.std, "val_interval": one.val.interval,
                    "test_mean": one.test.mean if one.test else None,
                    "test_std": one.test.std if one.test else None,
                    "test_interval": one.test.interval if one.test else None,
                }
                for one in configurations(rows)
            ],
            "selected": str(chosen[0].rows[0].folder) if len(chosen) == 1 else None,
            "differ_silently": dict(silent(rows)),
            "differ": {key: dict(zip(folders, values, strict=True))
                       for key, *values in side_by_side(compared)},
            "out_of_fold": out_of_fold_as_json(rows),
            "rule": rule(rows),
            "result": result(rows, folder, shared_overrides(rows)),
        },
        indent=1,
    )  # fmt: skip


def out_of_fold_as_json(rows: list[Row]) -> dict[str, Any] | None:
    """Accuracy of a cross-validation on all images; None of other runs."""
    if (counts := out_of_fold.accuracy(rows)) is None:
        return None
    right, n = counts
    return {"accuracy": right / n, "interval": wilson(right, n), "num_images": n}


def run_as_json(row: Row, is_selected: bool) -> dict[str, Any]:
    return {
        "folder": str(row.folder), "overrides": row.overrides, "status": row.status,
        "reason": row.reason, "val_accuracy": row.val_accuracy, "val_interval": row.val_interval,
        "val_loss": row.val_loss, "test_accuracy": row.test_accuracy,
        "test_interval": row.test_interval, "selected": is_selected,
        "best_epoch": row.best_epoch, "epochs": row.epochs, "train_s": row.train_s,
        "images_per_s": row.images_per_s,
    }  # fmt: skip


def as_csv(rows: Sequence[Row], shown: Sequence[Row]) -> str:
    """The runs that are to be shown, each override a column."""
    keys = list(dict.fromkeys(word.partition("=")[0] for row in rows for word in row.overrides))
    chosen = {row.folder for one in selected(rows) for row in one.rows}
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    names = [f"{key} (override)" if key in CSV_HEADER else key for key in keys]
    writer.writerow([*CSV_HEADER, *map(in_csv, names)])
    writer.writerows(csv_rows(shown, keys, chosen))
    return text.getvalue()


CSV_HEADER = (
    "folder", "status", "selected", "val_accuracy", "val_low", "val_high", "test_accuracy",
    "test_low", "test_high", "best_epoch", "epochs", "train_s", "images_per_s",
)  # fmt: skip


def csv_rows(rows: Sequence[Row], keys: list[str], chosen: set[Path]) -> Iterator[list[object]]:
    for row in rows:
        values = dict(word.partition("=")[::2] for word in row.overrides)
        cells = [
            in_csv(row.folder), in_csv(row.status), row.folder in chosen,
            row.val_accuracy, *(row.val_interval or (None, None)),
            row.test_accuracy, *(row.test_interval or (None, None)),
            row.best_epoch, row.epochs, row.train_s, row.images_per_s,
            *(in_csv(values[key]) if key in values else None for key in keys),
        ]  # fmt: skip
        yield ["" if cell is None else cell for cell in cells]

"""Table over runs: for the terminal, as JSON and as CSV. Best first, by validation."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainer.evaluation.statistics import Interval, Spread, wilson
from trainer.runs import out_of_fold
from trainer.runs.read import Row, duration, share, shared_overrides, text
from trainer.runs.report.result import name_of, result
from trainer.runs.selection import RULE, configurations, ordered, selected
from trainer.text.json_text import json_of
from trainer.text.printable import in_csv
from trainer.text.tables import align

HEADER = ["run", "", "status", "val", "95 %", "test", "95 %", "best", "epochs", "time", "images/s",
          "overrides"]  # fmt: skip


def table(rows: list[Row], folder: Path) -> str:
    """All runs, then the configurations that have several, then what was selected, then
    failures."""
    shared = shared_overrides(rows)
    chosen = {row.folder for one in selected(rows) for row in one.rows}
    held_out = held_out_name(rows)
    lines = [[held_out if name == "test" else name for name in HEADER]]
    for row in ordered(rows):
        lines.append([
            str(row.folder.relative_to(folder)), "*" if row.folder in chosen else "", row.status,
            share(row.val_accuracy),
            interval(row.val_interval), share(row.test_accuracy), interval(row.test_interval),
            text(row.best_epoch), text(row.epochs), duration(row.train_s),
            "-" if row.images_per_s is None else f"{row.images_per_s:,.0f}",
            " ".join(word for word in row.overrides if word not in shared) or "-",
        ])  # fmt: skip
    blocks = [align(lines, left=(0, len(HEADER) - 1))]
    if shared:
        blocks.append(f"all: {' '.join(sorted(shared))}")
    if chosen:
        blocks.append(f"* {RULE}")
    if several := over_seeds(rows, shared):
        header = [f"over {'folds' if held_out != 'test' else 'seeds'}", "runs", "val mean", "std",
                  "95 %", f"{held_out} mean", "std", "95 %"]  # fmt: skip
        blocks.append("\n" + align([header, *several], left=(0,)))
    if in_words := result(rows, folder, shared):
        blocks.append("\n" + "\n".join(in_words))
    failed = [row for row in rows if row.status == "failed"]
    blocks += [f"{row.folder}: {row.reason}; see trainer.log there" for row in failed]
    return "\n\n".join(blocks[:1]) + "".join(f"\n{block}" for block in blocks[1:])


def held_out_name(rows: list[Row]) -> str:
    """Heading of the split that was held out: the test split, or each run's own fold."""
    return "fold" if rows and all(row.fold is not None for row in rows) else "test"


def over_seeds(rows: list[Row], shared: set[str]) -> list[list[str]]:
    """Rows of the configurations of several runs, best first: name, runs, and of validation and
    test the mean, the standard deviation and the interval of the mean."""
    return [
        [name_of(one, shared), str(one.val.n), *spelled(one.val), *spelled(one.test)]
        for one in configurations(rows)
        if len(one.rows) > 1
    ]


def spelled(found: Spread | None) -> list[str]:
    if found is None:
        return ["-", "-", "-"]
    if found.n == 1:
        return [share(found.mean), "-", "-"]
    return [share(found.mean), share(found.std), str(found.interval)]


def interval(value: Interval | None) -> str:
    return "-" if value is None else str(value)


def as_json(rows: list[Row], folder: Path) -> str:
    """The runs, best first, the configurations, and the folder of the selected run: the best one,
    or null where runs on different datasets were compared."""
    chosen = selected(rows)
    of_chosen = {row.folder for one in chosen for row in one.rows}
    return json_of(
        {
            "runs": [run_as_json(row, row.folder in of_chosen) for row in ordered(rows)],
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
            "out_of_fold": out_of_fold_as_json(rows),
            "rule": RULE,
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


def as_csv(rows: list[Row]) -> str:
    """The runs, best first, each override a column."""
    keys = list(dict.fromkeys(word.partition("=")[0] for row in rows for word in row.overrides))
    chosen = {row.folder for one in selected(rows) for row in one.rows}
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*CSV_HEADER, *map(in_csv, keys)])
    writer.writerows(csv_rows(ordered(rows), keys, chosen))
    return text.getvalue()


CSV_HEADER = (
    "folder", "status", "selected", "val_accuracy", "val_low", "val_high", "test_accuracy",
    "test_low", "test_high", "best_epoch", "epochs", "train_s", "images_per_s",
)  # fmt: skip


def csv_rows(rows: list[Row], keys: list[str], chosen: set[Path]) -> Iterator[list[object]]:
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

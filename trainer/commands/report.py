"""`trainer report DIR`: a table over the runs in a folder, or over the jobs of a sweep.

Reads only small files (summary.json, metrics.jsonl, .hydra/overrides.yaml), so it answers at once
and shows runs that are still going or were killed, too.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.errors import UserError


@dataclass(frozen=True)
class Row:
    """One run. overrides: what its command line changed. status: as in summary.json, or
    "unfinished" where that file is missing. metrics: None where unknown."""

    folder: Path
    overrides: list[str]
    status: str
    reason: str | None
    test_accuracy: float | None
    val_accuracy: float | None
    best_epoch: int | None
    epochs: int | None
    train_s: float | None
    images_per_s: float | None


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="trainer report",
        description="A table over the runs in a folder: what each changed, what it reached.",
    )
    parser.add_argument(
        "dir", type=Path, nargs="?", default=Path("outputs"),
        help="a run, a sweep, or any folder with runs below it (default: outputs)",
    )  # fmt: skip
    folder = parser.parse_args(argv).dir
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder.")
    rows = read_runs(folder)
    if not rows:
        raise UserError(f"{folder}: no runs in this folder. A run's folder holds .hydra/.")
    print(table(rows, folder))
    return 0


def read_runs(folder: Path) -> list[Row]:
    """The runs at or below a folder, in natural order (2 before 10)."""
    found = {path.parent.parent for path in folder.rglob(".hydra/overrides.yaml")}
    return [read_run(run) for run in sorted(found, key=natural)]


def natural(path: Path) -> list[tuple[int, str]]:
    parts = re.findall(r"\d+|\D+", str(path))
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def read_run(folder: Path) -> Row:
    summary = read_summary(folder)
    return Row(
        folder=folder,
        overrides=read_overrides(folder / ".hydra" / "overrides.yaml"),
        status=summary.get("status", "unfinished"),
        reason=summary.get("reason"),
        test_accuracy=summary.get("test_accuracy"),
        val_accuracy=summary.get("val_accuracy"),
        best_epoch=summary.get("best_epoch"),
        epochs=summary.get("epochs"),
        train_s=summary.get("train_s"),
        images_per_s=summary.get("images_per_s"),
    )


def read_summary(folder: Path) -> dict[str, Any]:
    """summary.json; of a run without one, what metrics.jsonl tells so far."""
    try:
        summary: dict[str, Any] = json.loads((folder / "summary.json").read_text("utf-8"))
        return summary
    except (OSError, ValueError):
        pass
    best: dict[str, Any] = {}
    for row in read_metrics(folder / "metrics.jsonl"):
        if row["split"] == "val" and row["accuracy"] > best.get("val_accuracy", -1.0):
            best |= {"val_accuracy": row["accuracy"], "best_epoch": row["epoch"]}
        best["epochs"] = row["epoch"]
    return best


def read_metrics(file: Path) -> list[dict[str, Any]]:
    """The whole rows; a last line that a kill cut off is left out."""
    rows = []
    for line in file.read_text("utf-8").splitlines() if file.is_file() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def read_overrides(file: Path) -> list[str]:
    """Hydra writes a YAML list of strings, one a line."""
    lines = file.read_text("utf-8").splitlines()
    return [line.removeprefix("- ").strip("'\"") for line in lines if line.startswith("- ")]


def table(rows: list[Row], folder: Path) -> str:
    """All runs, then the mean over seeds where runs differ in nothing else, then failures."""
    shared = set.intersection(*(set(row.overrides) for row in rows)) if len(rows) > 1 else set()
    header = ["run", "status", "test", "val", "best", "epochs", "time", "images/s", "overrides"]
    lines = [header]
    for row in rows:
        lines.append([
            str(row.folder.relative_to(folder)), row.status, share(row.test_accuracy),
            share(row.val_accuracy), text(row.best_epoch), text(row.epochs),
            duration(row.train_s), "-" if row.images_per_s is None else f"{row.images_per_s:,.0f}",
            " ".join(word for word in row.overrides if word not in shared) or "-",
        ])  # fmt: skip
    blocks = [align(lines)]
    if shared:
        blocks.append(f"all: {' '.join(sorted(shared))}")
    blocks += [seeds] if (seeds := over_seeds(rows, shared)) else []
    failed = [row for row in rows if row.status == "failed"]
    blocks += [f"{row.folder}: {row.reason}; see trainer.log there" for row in failed]
    return "\n\n".join(blocks[:1]) + "".join(f"\n{block}" for block in blocks[1:])


def over_seeds(rows: list[Row], shared: set[str]) -> str:
    """Mean and standard deviation of the test accuracy over runs that differ in the seed alone."""
    groups: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row.test_accuracy is not None:
            rest = [w for w in row.overrides if not w.startswith("seed=") and w not in shared]
            groups[" ".join(rest) or "all runs"].append(row.test_accuracy)
    if not any("seed=" in word for row in rows for word in row.overrides):
        return ""
    lines = [["over seeds", "runs", "test mean", "std"]]
    for name, values in groups.items():
        if len(values) > 1:
            mean, deviation = statistics.mean(values), statistics.stdev(values)
            lines.append([name, str(len(values)), f"{mean:.4f}", f"{deviation:.4f}"])
    return "\n" + align(lines) if len(lines) > 1 else ""


def align(lines: list[list[str]]) -> str:
    """Columns two spaces apart; numbers to the right, the first and last column to the left."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i in (0, len(line) - 1) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def share(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def text(value: int | None) -> str:
    return "-" if value is None else str(value)


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}:{rest:04.1f}" if minutes else f"{rest:.1f}s"

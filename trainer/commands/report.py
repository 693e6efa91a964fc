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

import yaml

from trainer.errors import UserError
from trainer.tables import align

RUN_FILES = ("summary.json", "metrics.jsonl")


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
    found |= {path.parent for name in RUN_FILES for path in folder.rglob(name)}
    return [read_run(run) for run in sorted(found, key=natural)]


def natural(path: Path) -> list[tuple[int, str]]:
    parts = re.findall(r"\d+|\D+", str(path))
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def read_run(folder: Path) -> Row:
    """One run; "unreadable" where its files are not what they should be."""
    overrides: list[str] = []
    try:
        overrides = read_overrides(folder / ".hydra" / "overrides.yaml")
        summary = read_summary(folder)
        numbers = {name: number(summary.get(name)) for name in NUMBERS}
        status, reason = summary.get("status", "unfinished"), summary.get("reason")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError):
        status, reason, numbers = "unreadable", None, dict.fromkeys(NUMBERS)
    return Row(folder, overrides, status, reason, **numbers)


NUMBERS = ("test_accuracy", "val_accuracy", "best_epoch", "epochs", "train_s", "images_per_s")


def number(value: Any) -> Any:
    if value is not None and not isinstance(value, int | float):
        raise TypeError(f"{value!r} is no number")
    return value


def read_summary(folder: Path) -> dict[str, Any]:
    """summary.json; of a run without one, what metrics.jsonl tells so far."""
    file = folder / "summary.json"
    if file.is_file():
        summary: dict[str, Any] = json.loads(file.read_text("utf-8"))
        return summary
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
    """What Hydra noted of the command line."""
    noted = yaml.safe_load(file.read_text("utf-8")) if file.is_file() else []
    return [str(word) for word in noted or []]


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
    blocks = [align(lines, left=(0, len(header) - 1))]
    if shared:
        blocks.append(f"all: {' '.join(sorted(shared))}")
    blocks += [seeds] if (seeds := over_seeds(rows, shared)) else []
    failed = [row for row in rows if row.status == "failed"]
    blocks += [f"{row.folder}: {row.reason}; see trainer.log there" for row in failed]
    return "\n\n".join(blocks[:1]) + "".join(f"\n{block}" for block in blocks[1:])


def over_seeds(rows: list[Row], shared: set[str]) -> str:
    """Mean and standard deviation of the test accuracy over runs that differ in the seed alone;
    of runs that do not even differ in that, the last."""
    groups: dict[str, dict[str, float]] = defaultdict(dict)
    for row in rows:
        seeds = [word for word in row.overrides if word.startswith("seed=")]
        if row.test_accuracy is not None and seeds:
            rest = [word for word in row.overrides if word not in seeds and word not in shared]
            groups[" ".join(rest) or "all runs"][seeds[-1]] = row.test_accuracy
    lines = [["over seeds", "runs", "test mean", "std"]]
    for name, by_seed in groups.items():
        if len(by_seed) > 1:
            mean, deviation = statistics.mean(by_seed.values()), statistics.stdev(by_seed.values())
            lines.append([name, str(len(by_seed)), f"{mean:.4f}", f"{deviation:.4f}"])
    return "\n" + align(lines, left=(0,)) if len(lines) > 1 else ""


def share(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def text(value: int | None) -> str:
    return "-" if value is None else str(value)


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}:{rest:04.1f}" if minutes else f"{rest:.1f}s"

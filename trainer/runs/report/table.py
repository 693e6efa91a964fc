"""Table over runs for the terminal. Best first by validation, unless asked otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trainer.evaluation.statistics import Interval, Spread
from trainer.runs.read import Row, duration, share, shared_overrides, text
from trainer.runs.report.differences import MOST_KEYS, side_by_side, silent
from trainer.runs.report.names import changed, configuration_name, run_name
from trainer.runs.report.result import best_run, result
from trainer.runs.selection import configurations, ordered, rule, selected
from trainer.system.paths import shell_path
from trainer.text.tables import align
from trainer.text.values import count

HEADER = ["run", "", "status", "val", "95 %", "test", "95 %", "best", "epochs", "time", "images/s",
          "overrides"]  # fmt: skip
# Of a job of a sweep the first has what it would have printed, tracebacks, too.
LOGS = ("terminal.log", "trainer.log")


def table(
    rows: list[Row],
    folder: Path,
    shown: Sequence[Row] | None = None,
    compared: Sequence[Path] = (),
) -> str:
    """All runs, then the configurations that have several, then keys that differ, what was
    selected, and failures.

    Args:
        shown: the runs in the order in which they are to stand; None: best first by validation.
        compared: runs of which all keys that differ are told; else those that no override names.
    """
    shared = shared_overrides(rows)
    blocks = [listing(rows, shown or ordered(rows), folder)]
    if several := over_seeds(rows, shared):
        held_out = held_out_name(rows)
        header = [f"over {'folds' if held_out != 'test' else 'seeds'}", "runs", "val mean", "std",
                  "95 %", f"{held_out} mean", "std", "95 %"]  # fmt: skip
        blocks.append(align([header, *several], left=(0,)))
    if compared:
        blocks.append(sides_table(compared, folder))
    elif found := silent(rows):
        blocks.append("differ beside the overrides:\n" + silent_table(found))
    if in_words := result(rows, folder, shared):
        blocks.append("\n".join(in_words))
    blocks += ["\n".join(best_run(one, folder, shared)) for one in selected(rows) if len(rows) > 1]
    if failed := [row for row in rows if row.status == "failed"]:
        blocks.append("\n".join(failure(row, folder) for row in failed))
    return "\n\n".join(blocks)


def listing(rows: list[Row], shown: Sequence[Row], folder: Path) -> str:
    """The runs that are to be shown of all, what all have in common, and the rule."""
    shared = shared_overrides(rows)
    chosen = {row.folder for one in selected(rows) for row in one.rows}
    held_out = held_out_name(rows)
    lines = [[held_out if name == "test" else name for name in HEADER]]
    for row in shown:
        lines.append([
            run_name(row.folder, folder), "*" if row.folder in chosen else "", row.status,
            share(row.val_accuracy),
            interval(row.val_interval), share(row.test_accuracy), interval(row.test_interval),
            text(row.best_epoch), text(row.epochs), duration(row.train_s),
            "-" if row.images_per_s is None else f"{row.images_per_s:,.0f}",
            changed(row, shared) or "-",
        ])  # fmt: skip
    below = [f"all: {' '.join(sorted(shared))}"] if shared else []
    below += [f"* {rule(rows)}"] if chosen else []
    return "\n".join([align(lines, left=(0, len(HEADER) - 1)), *below])


def silent_table(found: Sequence[tuple[str, str]]) -> str:
    lines = [["", key, values] for key, values in found[:MOST_KEYS]]
    more = len(found) - MOST_KEYS
    return align(lines, left=(1, 2)) + (f"\n  and {count(more, 'more key')}" if more > 0 else "")


def sides_table(runs: Sequence[Path], folder: Path) -> str:
    """Keys whose values differ between runs, a column for each run."""
    lines = [list(line) for line in side_by_side(runs)]
    if not lines:
        return "the configurations are the same"
    header = ["keys that differ", *(run_name(run, folder) for run in runs)]
    return align([header, *lines], left=range(len(header)))


def failure(row: Row, folder: Path) -> str:
    """Why a run has failed, and the log that says more."""
    logs = (row.folder / name for name in LOGS)
    log = next((f"; log: {shell_path(log)}" for log in logs if log.is_file()), "")
    return f"failed: {run_name(row.folder, folder)}: {row.reason}{log}"


def held_out_name(rows: list[Row]) -> str:
    """Heading of the split that was held out: the test split, or each run's own fold."""
    return "fold" if rows and all(row.fold is not None for row in rows) else "test"


def over_seeds(rows: list[Row], shared: set[str]) -> list[list[str]]:
    """Rows of the configurations of several runs, best first: name, runs, and of validation and
    test the mean, the standard deviation and the interval of the mean."""
    return [
        [
            configuration_name(one.overrides, shared),
            str(one.val.n),
            *spelled(one.val),
            *spelled(one.test),
        ]
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

"""Result of several runs in words: which configuration validation chose, how sure that is, how
often the test split was read. The same lines stand under the table and on the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trainer.evaluation.statistics import Interval, Spread
from trainer.runs import out_of_fold, readings
from trainer.runs.read import Row
from trainer.runs.report.names import configuration_name, run_name
from trainer.runs.selection import REPEATS, Configuration, configurations, selected, std_over_seeds
from trainer.system.paths import shell_path
from trainer.text.values import count

MOST_NAMED = 5  # runs that wait for their test


def result(rows: Sequence[Row], folder: Path, shared: set[str]) -> list[str]:
    """Lines, in the order in which they are read."""
    if len(rows) == 1:
        return [line for one in selected(rows) if (line := readings_in_words(one)) is not None]
    found, chosen, lines = configurations(rows), selected(rows), []
    finished = [row for row in rows if row.is_over]
    if len(finished) < len(rows):
        are = "is" if len(finished) == 1 else "are"
        lines.append(
            f"{len(finished)} of {len(rows)} runs {are} finished: the selection may change"
        )
    elif len(found) == 1 and len(found[0].rows) > 1:
        lines.append(f"{len(found[0].rows)} runs are one configuration: they differ in "
                     f"{repeated(found[0])} alone")  # fmt: skip
    if len(chosen) > 1:
        lines.append(f"{len(chosen)} groups of runs were validated on different images, and are "
                     "selected apart")  # fmt: skip
    if line := out_of_fold.in_words(rows):
        lines.append(line)
    for one in chosen:
        lines += in_words(one, folder, shared)
        if (read := readings_in_words(one)) is not None:
            lines.append(read)
    return lines


def repeated(one: Configuration) -> str:
    """What tells the runs of a configuration apart: "the seed", "the fold"."""
    keys = {word.partition("=")[0] for row in one.rows for word in row.overrides}
    names = {"seed": "the seed", "data.split_seed": "the split's seed", "data.fold": "the fold"}
    return " and ".join(names[key] for key in REPEATS if key in keys) or "nothing"


def in_words(one: Configuration, folder: Path, shared: set[str]) -> list[str]:
    """A configuration with its accuracies: over the seeds, and of the run that validation chose; or
    over the folds."""
    best, name = one.rows[0], configuration_name(one.overrides, shared)
    of_best = f"{run_name(best.folder, folder)}: {accuracies(best)}"
    if len(one.rows) == 1:
        return [f"selected: {name}, run {of_best}"]
    held_out = "held out" if one.num_folds else "test"
    what = "seeds" if not one.num_folds else "folds" if one.num_folds == one.val.n else "runs"
    of_test = f"{held_out} split not read" if one.test is None else f"{held_out} {mean(one.test)}"
    line = f"selected: {name}, {one.val.n} {what}: val {mean(one.val)}; {of_test}"
    of_these = [] if one.num_folds else [f"of these validation chose {of_best}"]
    return [line, *of_these]


def best_run(one: Configuration, folder: Path, shared: set[str]) -> list[str]:
    """The run that validation chose, with the next commands, to be pasted into a shell."""
    best = one.rows[0]
    file = best.folder / "checkpoints" / "best.pth"
    checkpoint = shell_path(file)
    name = configuration_name(one.overrides, shared)
    lines = [f"best: {name}, run {run_name(best.folder, folder)}"]
    if file.is_file():
        lines += [
            f"checkpoint    {checkpoint}",
            f"classify      python -m trainer predict {checkpoint} IMAGE_OR_FOLDER",
            f"look closer   python -m trainer evaluate {checkpoint} split=val",
        ]
    unread = [row.folder for row in one.rows if row.test_accuracy is None]
    return lines + [f"read test     python -m trainer resume {shell_path(run)} test=all"
                    for run in unread[:MOST_NAMED]]  # fmt: skip


def mean(found: Spread) -> str:
    """As "0.9412, std 0.0031, 95 %: 0.937 to 0.946"; of one run the accuracy alone."""
    if found.n == 1:
        return f"{found.mean:.4f} (1 run)"
    return f"mean {found.mean:.4f}, std {found.std:.4f}, 95 %: {found.interval}"


def accuracies(row: Row) -> str:
    val = accuracy(row.val_accuracy, row.val_interval, row.num_val_images)
    if row.best_by not in (None, "accuracy") and row.val_score is not None:
        val += f", {row.best_by.replace('_', ' ')} {row.val_score:.4f}"
    if row.test_accuracy is None:
        return f"val {val}; test split not read"
    return f"val {val}; test {accuracy(row.test_accuracy, row.test_interval, row.num_test_images)}"


def accuracy(value: float | None, interval: Interval | None, num_images: int | None) -> str:
    """As "0.9400 of 1,000 images, 95 %: 0.924 to 0.953"; of an older run the accuracy alone."""
    if value is None or interval is None:
        return "unknown" if value is None else f"{value:.4f}"
    return f"{value:.4f} of {count(num_images or 0, 'image')}, 95 %: {interval}"


def readings_in_words(one: Configuration) -> str | None:
    """How often the test split of a configuration was read; None if that is not known."""
    best = one.rows[0]
    if best.dataset is None or one.num_folds:
        return None
    found = readings.readings_of(readings.ledger_of(best.folder), best.dataset, best.test_pixels)
    if not found.count:
        return None
    tested = next((row for row in one.rows if row.test_accuracy is not None), None)
    if tested is None:
        return found.told(None, 0)
    std = std_over_seeds(tested.folder, tested.dataset)
    return found.told(tested.test_accuracy, tested.num_test_images or 0, std)

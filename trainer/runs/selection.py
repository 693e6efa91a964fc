"""Selection among runs: by validation alone, never by the test split.

Runs are ordered by their validation accuracy, or by the measure that the key best_by names, if all
of them have the same; ties by the lower validation loss, then the earlier one. Runs that differ in
nothing but the seed, the split's seed or the fold are one configuration, and configurations are
ordered by the mean of their runs.
"""

from __future__ import annotations

import itertools
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.config.changes import IDLE
from trainer.evaluation.measures import MEASURES
from trainer.evaluation.statistics import Spread, spread
from trainer.runs.folder import sweep_of
from trainer.runs.read import Row, read_runs
from trainer.runs.readings import are_other
from trainer.runs.side_files import UNREADABLE, read_yaml

REPEATS = ("seed", "data.split_seed", "data.fold")


@dataclass(frozen=True)
class Configuration:
    """Runs that repeat each other.

    Attributes:
        overrides: of the command line, without those of `REPEATS`.
        rows: its runs that were validated, best first.
        num_folds: different folds that they hold out; 0: none.
        val, test: accuracy over the runs; test of those whose test split was read, None if none.
        score: mean over the runs of the measure that orders them, the larger the better.
    """

    overrides: tuple[str, ...]
    rows: tuple[Row, ...]
    num_folds: int
    val: Spread
    test: Spread | None
    score: float

    @property
    def val_loss(self) -> float:
        losses = [row.val_loss for row in self.rows]
        return math.inf if None in losses else math.fsum(losses) / len(losses)  # type: ignore[arg-type]


def measure_of(rows: Sequence[Row]) -> str:
    """Measure by which runs are compared: the best_by that all have, else the accuracy."""
    found = {row.best_by or MEASURES[0] for row in rows if row.val_accuracy is not None}
    return found.pop() if len(found) == 1 else MEASURES[0]


def rule(rows: Sequence[Row]) -> str:
    """How these runs are ordered and selected, for the reader."""
    by = measure_of(rows)
    least = "lowest " if by == "loss" else ""
    found = {row.best_by or MEASURES[0] for row in rows if row.val_accuracy is not None}
    why = ", since best_by differs" if len(found) > 1 else ""
    ties = "earlier" if by == "loss" else "lower validation loss, then earlier"
    return (
        f"order and selection by {least}validation {by.replace('_', ' ')}{why} (ties: {ties}); the "
        "test split selects nothing"
    )


def score(row: Row, by: str) -> float:
    """What a run's validation is worth by a measure, the larger the better; -infinity of one that
    does not say."""
    known = {"accuracy": row.val_accuracy, "loss": row.val_loss}
    value = known.get(by, row.val_score if by == row.best_by else None)
    if value is None:
        return -math.inf
    return -value if by == "loss" else value


def rank(row: Row, by: str) -> tuple[float, float]:
    """Key of the order; equal ones keep the order that they came in."""
    return -score(row, by), math.inf if row.val_loss is None else row.val_loss


def ordered(rows: Sequence[Row], by: str | None = None) -> list[Row]:
    """Best first; those without a validation last.

    Args:
        by: one of progress.MEASURES; None: that of these runs.
    """
    by = by or measure_of(rows)
    return sorted(rows, key=lambda row: rank(row, by))


def configurations(rows: Sequence[Row]) -> list[Configuration]:
    """Configurations of the finished runs, best first. Runs with the same weights count once: they
    are one run, however it was typed."""
    groups: dict[tuple[str, ...], dict[object, Row]] = defaultdict(dict)
    by = measure_of(rows)
    for row in rows:
        if row.val_accuracy is not None and row.status == "finished":
            result = (row.weights_sha256, row.fold, row.val_accuracy, row.val_loss)
            groups[own_overrides(row)][result if result[0] else tuple(row.overrides)] = row
    found = [configuration(own, list(group.values()), by) for own, group in groups.items()]
    return sorted(found, key=lambda one: (-one.score, one.val_loss))


def configuration(overrides: tuple[str, ...], rows: Sequence[Row], by: str) -> Configuration:
    tested = [row.test_accuracy for row in rows if row.test_accuracy is not None]
    folds = {row.fold for row in rows if row.fold is not None}
    overlap = 1 / (len(folds) - 1) if len(folds) > 1 else 0.0
    val = spread([row.val_accuracy or 0.0 for row in rows], overlap=overlap)
    mean = val.mean if by == MEASURES[0] else sum(score(row, by) for row in rows) / len(rows)
    return Configuration(
        overrides, tuple(ordered(rows, by)), len(folds), val,
        spread(tested, overlap=overlap) if tested else None, mean,
    )  # fmt: skip


def own_overrides(row: Row) -> tuple[str, ...]:
    """Overrides of a run's configuration, with the epochs that it was extended to."""
    words = [word for word in row.overrides if not is_repeat(word)]
    typed = [word for word in words if word.startswith("epochs=")]
    if typed and row.epochs is not None and typed[-1] != f"epochs={row.epochs}":
        words = [word for word in words if word not in typed] + [f"epochs={row.epochs}"]
    return tuple(words)


def is_repeat(word: str) -> bool:
    """True for an override that makes no configuration of its own."""
    return word.lstrip("+").partition("=")[0] in (*REPEATS, *IDLE)


def selected(rows: Sequence[Row]) -> list[Configuration]:
    """The best configuration among the finished runs on each dataset: accuracies on other images
    cannot be compared."""
    datasets: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.val_accuracy is not None and row.status == "finished":
            datasets[dataset_of(row)].append(row)
    groups = (group for found in datasets.values() for group in by_pixels(found))
    return [configurations(group)[0] for group in groups]


def by_pixels(rows: Sequence[Row]) -> list[Sequence[Row]]:
    """Runs on datasets of one id, apart where their images differ though they were brought to the
    same shape in the same way."""
    found = list(dict.fromkeys(row.test_pixels for row in rows))
    if not any(are_other(a, b) for a, b in itertools.combinations(found, 2)):
        return [rows]
    return [[row for row in rows if row.test_pixels == one] for one in found]


def std_over_seeds(run: Path, dataset: str | None) -> float | None:
    """Standard deviation of the test accuracy over the seeds of a run's configuration in its sweep;
    None if it is not known.

    Args:
        dataset: id of the test split.
    """
    sweep = sweep_of(run)
    for one in configurations(read_runs(sweep)) if sweep is not None else ():
        folders = {row.folder.resolve() for row in one.rows if row.dataset == dataset}
        if run.resolve() in folders and one.test is not None and not one.num_folds:
            return None if math.isnan(one.test.std) else one.test.std
    return None


def dataset_of(row: Row) -> str:
    """Tells which images a run was validated on; of an older run by the options of its data."""
    if row.dataset is not None:
        # Folds of one dataset need not be equally large.
        return row.dataset if row.fold is not None else f"{row.dataset} {row.num_val_images}"
    try:
        options = read_yaml(row.folder / ".hydra" / "config.yaml")["data"]
        return json.dumps(options, sort_keys=True, default=str)
    except UNREADABLE:
        return ""

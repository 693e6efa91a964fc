"""Curves of many runs in one chart: a line for each configuration, its seeds as a band.

The axis is cut to where the lines are. A run that is far off, such as one whose loss has exploded,
is named below the chart and kept out of its configuration's mean.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from trainer.runs.read import LARGEST, Row, read_metrics
from trainer.runs.report.groups import Group, run_label
from trainer.runs.report.svg import OTHER, Chart, Line, Point, line_chart
from trainer.runs.side_files import is_number, readable
from trainer.text.values import listed

SHARE, POSITIVE = (0.0, 1.0), (0.0, math.inf)  # limits of values
FAR_OFF = 4.0  # times as bad as the next better run
LONG_ENOUGH = 8  # epochs, of which the first quarter does not widen the axis
MOST_NAMED = 4


@dataclass(frozen=True)
class Figure:
    """What a chart shows: a key of the rows of a split.

    Attributes:
        floor: so bad the best are taken for at least where others are called far off, which starts
            at FAR_OFF times as bad: an error of 5 %, a loss of 0.25. None: none is far off.
    """

    title: str
    split: str
    key: str
    limits: tuple[float, float]
    floor: float | None

    def badness(self, value: float) -> float:
        return 1 - value if self.limits is SHARE else value


FIGURES = (
    Figure("Validation accuracy", "val", "accuracy", SHARE, 0.05),
    Figure("Validation loss", "val", "loss", POSITIVE, 0.25),
    Figure("Training loss", "train", "loss", POSITIVE, 0.25),
    Figure("Learning rate", "train", "lr", POSITIVE, None),
)


@dataclass(frozen=True, eq=False)
class Run:
    """Points of a run in one chart."""

    row: Row
    points: list[Point]

    @property
    def late(self) -> list[float]:
        """Its values after the first quarter of its epochs."""
        known = [y for _, y in self.points if y is not None]
        return known[len(known) // 4 :] if len(known) >= LONG_ENOUGH else known


def is_shown(value: Any) -> bool:
    return is_number(value) and abs(value) < LARGEST


def points(metrics: Sequence[Any], split: str, key: str) -> list[Point]:
    """(epoch, value) of the whole rows; the value None where a row has none."""
    found = []
    for row in metrics:
        if isinstance(row, dict) and row.get("split") == split:
            epoch, value = row.get("epoch"), row.get(key)
            if isinstance(epoch, int):
                found.append((float(epoch), value if is_shown(value) else None))
    return found


def overlaid(groups: Sequence[Group], shared: set[str]) -> list[Chart]:
    """The same figure of all runs in one chart each."""
    folders = [row.folder for group in groups for row in group.rows]
    metrics = {folder: readable([], read_metrics, folder / "metrics.jsonl") for folder in folders}
    drawn = [overlay(groups, shared, metrics, figure) for figure in FIGURES]
    return [chart for chart in drawn if chart]


def overlay(
    groups: Sequence[Group],
    shared: set[str],
    metrics: Mapping[Path, Sequence[Any]],
    figure: Figure,
) -> Chart | None:
    runs = [
        [Run(row, points(metrics[row.folder], figure.split, figure.key)) for row in group.rows]
        for group in groups
    ]
    known = [run for of_group in runs for run in of_group if run.late]
    off, on = far_off(known, figure)
    lines = []
    for i in reversed(range(len(groups))):  # the best on top
        lines += lines_of(i, groups[i], runs[i], off, len(groups) > 1)
    broken = [f"{run_label(run.row, shared)} from epoch {run.points[-1][0]:g}"
              for run in known if run.points[-1][1] is None]  # fmt: skip
    notes = [f"far off, and left out of the means: {told(off, on, shared)}"] if off else []
    notes += [f"NaN or infinite: {listed(broken, MOST_NAMED)}"] if broken else []
    return line_chart(
        figure.title, lines, None, False, figure.limits, span(on, figure), "; ".join(notes),
        has_labels=figure.floor is not None,
    )  # fmt: skip


def far_off(runs: Sequence[Run], figure: Figure) -> tuple[list[Run], list[Run]]:
    """Runs far behind the others, of which the best third are none, and the others."""
    rising = sorted(runs, key=lambda run: figure.badness(median(run.late)))
    bad = [figure.badness(median(run.late)) for run in rising]
    for i in range(max(1, math.ceil(len(runs) / 3)), len(rising)):
        if figure.floor is not None and bad[i] > FAR_OFF * max(figure.floor, bad[i - 1]):
            return rising[i:], rising[:i]
    return [], rising


def told(off: Sequence[Run], on: Sequence[Run], shared: set[str]) -> str:
    """Runs that are far off, and where they are; by an override that they alone have, if there is
    one."""
    places = [median(run.late) for run in off]
    words = set.intersection(*(set(run.row.overrides) for run in off)) - shared
    words -= {word for run in on for word in run.row.overrides}
    if len(off) > 1 and words:
        of = f"the {len(off)} runs with {' '.join(sorted(words))}"
        return f"{of} (at {min(places):.4g} to {max(places):.4g})"
    names = [f"{run_label(run.row, shared)} (at {at:.4g})"
             for run, at in zip(off, places, strict=True)]  # fmt: skip
    return listed(names, MOST_NAMED)


def span(runs: Sequence[Run], figure: Figure) -> tuple[float, float] | None:
    """Lowest and highest value that the axis shows: of accuracies all after the first quarter of
    the epochs and the highest, of losses the other way round."""
    values = [y for run in runs for _, y in run.points if y is not None]
    late = [y for run in runs for y in run.late]
    if figure.floor is None or not late:
        return None
    if figure.limits is SHARE:
        return min(late), max(values)
    return min(values), max(late)


def lines_of(
    number: int, group: Group, runs: Sequence[Run], off: Sequence[Run], has_label: bool
) -> list[Line]:
    """The mean of a configuration with its band, and the runs that are far off by themselves."""
    on = [run for run in runs if run not in off]
    apart = [Line(group.name, run.points, group.style, is_thin=True, group=number)
             for run in runs if run in off]  # fmt: skip
    mean, band = mean_of([run.points for run in on])
    label = group.label if has_label and group.style != OTHER else ""
    around = band if len(on) > 1 and group.style != OTHER else []
    return [Line(group.name, mean, group.style, around, label, group=number), *apart]


def mean_of(
    runs: Sequence[Sequence[Point]],
) -> tuple[list[Point], list[tuple[float, float, float]]]:
    """Mean, and lowest and highest value, in the epochs that at least half of the runs have."""
    if len(runs) == 1:
        return list(runs[0]), []
    values: dict[float, list[float]] = defaultdict(list)
    for run in runs:
        for x, y in run:
            if y is not None:
                values[x].append(y)
    shown = sorted((x, ys) for x, ys in values.items() if 2 * len(ys) >= len(runs))
    mean: list[Point] = [(x, math.fsum(ys) / len(ys)) for x, ys in shown]
    return mean, [(x, min(ys), max(ys)) for x, ys in shown]

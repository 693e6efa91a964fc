"""Validation accuracy over what was swept: a heat map of two keys, dots of two numbers that were
drawn at random, parallel coordinates of more. swept.html draws them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from statistics import median
from typing import ClassVar

from trainer.runs.read import share
from trainer.runs.report.groups import Group
from trainer.runs.report.order import as_number, place
from trainer.runs.report.svg import Axis, nice_ticks, shortened, spell

MOST_MAPS, MOST_CELLS = 4, 24  # maps beside each other; cells along a side
FILLED = 0.5  # share of a map's cells that have a run
MOST_AXES = 8
MOST_TICKS, LONGEST_TICK = 8, 14
RATIO_OF_LOG = 10.0  # from the least to the greatest value of an axis with a logarithmic scale
DEPTH = 2.5  # worst accuracy that has a shade, in distances from the best to the median


@dataclass(frozen=True)
class Cell:
    """A configuration on a map. shade: 0 to 1."""

    x: float
    y: float
    shade: float
    text: str
    title: str
    group: int
    is_best: bool


@dataclass(frozen=True)
class Map:
    """Cells, or dots, over two keys, in pixels. ticks: (place, label)."""

    left: ClassVar[int] = 90
    top: ClassVar[int] = 6

    title: str
    x_key: str
    y_key: str
    size: tuple[int, int]  # of a cell; (0, 0): dots
    right: int
    bottom: int
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    cells: list[Cell]


@dataclass(frozen=True)
class Parallel:
    """An axis for each key, the validation accuracy last; a line for each configuration. axes:
    (x, key, ticks). lines: (css, path, title, number of the group)."""

    width: ClassVar[int] = 1000
    height: ClassVar[int] = 330
    top: ClassVar[int] = 36
    bottom: ClassVar[int] = 300

    axes: list[tuple[float, str, list[tuple[float, str]]]]
    lines: list[tuple[str, str, str, int]]


def drawings(groups: Sequence[Group]) -> tuple[list[Map], Parallel | None]:
    """What shows these configurations best; ([], None) where fewer than two keys were swept in
    every one of them."""
    known = [(i, group) for i, group in enumerate(groups) if group.val is not None]
    keys = [
        key for key in (groups[0].values if groups else ())
        if all(key in group.values for group in groups)
        and len({group.values[key] for group in groups}) > 1
    ]  # fmt: skip
    if FRACTION in keys and (curve := learning_curve(known)) is not None:
        return [curve], None
    if len(keys) < 2 or len(known) < 3:
        return [], None
    if maps := heat_maps(known, keys):
        return maps, None
    if len(keys) == 2 and all(is_numeric(groups, key) for key in keys):
        return [dots(known, keys[0], keys[1])], None
    return [], parallel(known, keys[:MOST_AXES])


Known = Sequence[tuple[int, Group]]
FRACTION = "data.fraction"


def learning_curve(known: Known) -> Map | None:
    """Dots: validation accuracy over the number of training images, on a logarithmic axis; None
    where fewer than two numbers are known."""
    sizes = {i: group.rows[0].num_train_images for i, group in known}
    placed = [(i, group, size) for i, group in known if (size := sizes[i])]
    counts = sorted({size for _, _, size in placed})
    if len(counts) < 2:
        return None
    groups, right, bottom = [group for _, group, _ in placed], 620, 366
    x_axis = Axis(math.log10(counts[0]), math.log10(counts[-1]), Map.left, right)
    values = [group.val or 0.0 for group in groups]
    nice = nice_ticks(min(values), max(values), limits=(0.0, 1.0))
    y_axis, shade = Axis(nice[0], nice[-1], bottom, Map.top), Shades(groups)
    cells = [
        Cell(x_axis(math.log10(size)), y_axis(group.val or 0.0), shade(group), "",
             f"{told(group)}, {size:,} training images", i, i == 0)
        for i, group, size in reversed(placed)
    ]  # fmt: skip
    shown = counts if len(counts) <= MOST_TICKS else [counts[0], counts[-1]]
    x_ticks = [(x_axis(math.log10(size)), f"{size:,}") for size in shown]
    y_ticks = [(y_axis(tick), spell(tick, nice)) for tick in nice]
    return Map(
        "", "training images", "val accuracy", (0, 0), right, bottom, x_ticks, y_ticks, cells
    )


def is_numeric(groups: Sequence[Group], key: str) -> bool:
    return all(as_number(group.values[key]) is not None for group in groups)


def heat_maps(known: Known, keys: Sequence[str]) -> list[Map]:
    """A map of two keys for each combination of the others; [] where that is no grid."""
    groups = [group for _, group in known]
    numbers = [key for key in keys if is_numeric(groups, key)]
    axes = keys if len(keys) == 2 else numbers
    others = [key for key in keys if key not in axes]
    if len(axes) != 2:
        return []
    values = {key: in_order(groups, key) for key in keys}
    combinations = list(product(*(values[key] for key in others)))
    x_key, y_key = sorted(axes, key=lambda key: -len(values[key]))
    num_cells = len(values[x_key]) * len(values[y_key]) * len(combinations)
    if (len(combinations) > MOST_MAPS or len(values[x_key]) > MOST_CELLS
            or len(known) < FILLED * num_cells):  # fmt: skip
        return []
    shade = Shades(groups)
    drawn = []
    for combination in combinations:
        fixed = dict(zip(others, combination, strict=True))
        here = [(i, group) for i, group in known if fixed.items() <= group.values.items()]
        title = " ".join(f"{key}={value}" for key, value in fixed.items())
        drawn.append(heat_map(here, (x_key, y_key), values, title, shade))
    return drawn


def heat_map(
    known: Known, keys: tuple[str, str], values: dict[str, list[str]], title: str, shade: Shades
) -> Map:
    columns, rows = values[keys[0]], values[keys[1]]
    width, height = (62, 32) if len(columns) <= 12 else (44, 26)
    at = [(Map.left + columns.index(group.values[keys[0]]) * width,
           Map.top + (len(rows) - 1 - rows.index(group.values[keys[1]])) * height)
          for _, group in known]  # fmt: skip
    cells = [
        Cell(x, y, shade(group), f"{group.val:.{4 if width > 50 else 3}f}", told(group), i, i == 0)
        for (x, y), (i, group) in zip(at, known, strict=True)
    ][::-1]  # the best on top, with its frame
    bottom = Map.top + len(rows) * height
    return Map(
        title, *keys, (width, height), Map.left + len(columns) * width, bottom,
        [(Map.left + (k + 0.5) * width, shortened(v, 8)) for k, v in enumerate(columns)],
        [(bottom - (k + 0.5) * height, shortened(v, 12)) for k, v in enumerate(rows)],
        cells,
    )  # fmt: skip


def dots(known: Known, x_key: str, y_key: str) -> Map:
    groups, right, bottom = [group for _, group in known], 620, 366
    x_axis, x_ticks = numbers_axis(groups, x_key, Map.left, right)
    y_axis, y_ticks = numbers_axis(groups, y_key, bottom, Map.top)
    shade = Shades(groups)
    cells = [
        Cell(x_axis(group), y_axis(group), shade(group), "", told(group), i, i == 0)
        for i, group in reversed(known)
    ]
    return Map("", x_key, y_key, (0, 0), right, bottom, x_ticks, y_ticks, cells)


def told(group: Group) -> str:
    of = f", mean of {group.num_finished}" if group.num_finished > 1 else ""
    return f"{group.name}: {share(group.val)}{of}"


class Shades:
    """Shade of a configuration: 1 of the best accuracy, 0 of the worst, or of one that is so far
    from the best that the others would look alike."""

    def __init__(self, groups: Sequence[Group]) -> None:
        values = [group.val or 0.0 for group in groups]
        self.best = max(values)
        self.low = max(min(values), self.best - DEPTH * (self.best - median(values)))

    def __call__(self, group: Group) -> float:
        if self.best <= self.low:
            return 1.0
        return round(max(0.0, ((group.val or 0.0) - self.low) / (self.best - self.low)), 3)


class GroupAxis:
    """Place of a configuration along one key's axis."""

    def __init__(self, key: str, axis: Axis, places: dict[str, float], is_log: bool) -> None:
        self.key, self.axis, self.places, self.is_log = key, axis, places, is_log

    def __call__(self, group: Group) -> float:
        value = self.places[group.values[self.key]]
        return self.axis(math.log10(value) if self.is_log else value)


Ticks = list[tuple[float, str]]


def numbers_axis(
    groups: Sequence[Group], key: str, start: int, end: int
) -> tuple[GroupAxis, Ticks]:
    """Of numbers: logarithmic where they are spread wide; the swept values are the ticks, if they
    are few."""
    places = {group.values[key]: float(group.values[key]) for group in groups}
    low, high = min(places.values()), max(places.values())
    is_log = low > 0 and high / low >= RATIO_OF_LOG
    of = math.log10 if is_log else float
    axis = Axis(of(low), of(high), start, end)
    if len(places) <= MOST_TICKS:
        ticks = [(axis(of(value)), text) for text, value in places.items()]
    elif is_log:
        powers = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
        step = math.ceil(len(powers) / MOST_TICKS)
        ticks = [(axis(power), f"{10.0**power:g}") for power in powers[:: max(1, step)]]
    else:
        nice = nice_ticks(low, high)
        axis = Axis(nice[0], nice[-1], start, end)
        ticks = [(axis(value), spell(value, nice)) for value in nice]
    return GroupAxis(key, axis, places, is_log), [
        (at, shortened(t, LONGEST_TICK)) for at, t in ticks
    ]


def names_axis(groups: Sequence[Group], key: str, start: int, end: int) -> tuple[GroupAxis, Ticks]:
    names = in_order(groups, key)
    axis = Axis(-0.5, len(names) - 0.5, start, end)
    ticks = [(axis(k), shortened(name, LONGEST_TICK)) for k, name in enumerate(names)]
    places = {name: float(k) for k, name in enumerate(names)}
    return GroupAxis(key, axis, places, False), ticks if len(ticks) <= 2 * MOST_TICKS else []


def in_order(groups: Sequence[Group], key: str) -> list[str]:
    return sorted({group.values[key] for group in groups}, key=place)


def parallel(known: Known, keys: Sequence[str]) -> Parallel:
    groups, top, bottom = [group for _, group in known], Parallel.top, Parallel.bottom
    made = [
        (numbers_axis if is_numeric(groups, key) else names_axis)(groups, key, bottom, top)
        for key in keys
    ]
    step = (Parallel.width - 190) / len(keys)
    at = [round(100 + k * step, 1) for k in range(len(keys) + 1)]
    low, best = Shades(groups).low, max(group.val or 0.0 for group in groups)
    nice = nice_ticks(low, best, limits=(0.0, 1.0))
    val = Axis(nice[0], nice[-1], bottom, top)
    axes = [
        (x, shortened(key, 22), ticks) for x, key, (_, ticks) in zip(at, keys, made, strict=False)
    ]
    axes.append((at[-1], "val accuracy", [(val(tick), spell(tick, nice)) for tick in nice]))
    lines = []
    for i, group in reversed(known):
        ys = [axis(group) for axis, _ in made] + [min(bottom + 8.0, val(group.val or 0.0))]
        path = "M" + "L".join(f"{x} {y}" for x, y in zip(at, ys, strict=True))
        lines.append((group.css, path, told(group), i))
    return Parallel(axes, lines)

"""Geometry of the drawings: where the curves and the cells of a confusion matrix stand.

chart.html and matrix.html draw them; the page's style sheet gives the colours (classes c0 to c7,
axis, grid, cell), so that they follow its theme.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from trainer.evaluation.confusion import Cell, class_sizes

NUM_COLOURS = 8
MOST_POINTS = 300  # of a line; more would not be seen
MOST_DOTS = 40  # with more points there are no dots to read values from

MATRIX_SIDE, LARGEST_CELL, SMALLEST_CELL = 640, 44, 2
LARGEST_TEXT, SMALLEST_TEXT = 13, 8
LONGEST_NAME = 20  # characters
NUM_SHADES = 16


@dataclass(frozen=True)
class Line:
    """A curve. points: (x, y), y None where there is a gap. style: which of the colours; from
    NUM_COLOURS on they come again, dashed."""

    name: str
    points: Sequence[tuple[float, float | None]]
    style: int

    @property
    def css(self) -> str:
        dashes = self.style // NUM_COLOURS % 3
        return f"c{self.style % NUM_COLOURS}" + (f" d{dashes}" if dashes else "")


@dataclass(frozen=True)
class Curve:
    """A line in its places. path: as SVG has it. dots: (x, y, what it says)."""

    name: str
    css: str
    path: str
    radius: float
    dots: list[tuple[float, float, str]]


@dataclass(frozen=True)
class Chart:
    """Curves over epochs, in about as many pixels as they are shown in. Ticks: (place, label).
    mark: where the best epoch stands."""

    width: ClassVar[int] = 460
    height: ClassVar[int] = 250
    left: ClassVar[int] = 60
    right: ClassVar[int] = 448
    top: ClassVar[int] = 18
    bottom: ClassVar[int] = 214

    title: str
    curves: list[Curve]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    mark: float | None
    has_legend: bool


@dataclass(frozen=True)
class Axis:
    """From values, low to high, to places, start to end."""

    low: float
    high: float
    start: int
    end: int

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return round(self.start + share * (self.end - self.start), 1)


def line_chart(
    title: str,
    lines: Sequence[Line],
    mark: float | None = None,
    has_legend: bool = False,
    limits: tuple[float, float] = (-math.inf, math.inf),
) -> Chart | None:
    """None if there is no point.

    Args:
        mark: an epoch to be marked as the best.
        limits: of the values: 0 and 1 for shares.
    """
    lines = [line for line in lines if any(y is not None for _, y in line.points)]
    known = [(x, y) for line in lines for x, y in line.points if y is not None]
    if not known:
        return None
    first, last = min(x for x, _ in known), max(x for x, _ in known)
    y_ticks = nice_ticks(min(y for _, y in known), max(y for _, y in known), limits=limits)
    x_axis = Axis(first, last, Chart.left, Chart.right)
    y_axis = Axis(y_ticks[0], y_ticks[-1], Chart.bottom, Chart.top)
    return Chart(
        title,
        [curve(line, x_axis, y_axis) for line in lines],
        [(x_axis(x), f"{x:g}") for x in whole_ticks(first, last)],
        [(y_axis(y), spell(y, y_ticks)) for y in y_ticks],
        x_axis(mark) if mark is not None and first <= mark <= last else None,
        has_legend,
    )


def curve(line: Line, x_axis: Axis, y_axis: Axis) -> Curve:
    points = thinned(line.points)
    path, dots, pen_down = "", [], False
    for x, y in points:
        if y is not None:
            at = x_axis(x), y_axis(y)
            path += f"{'L' if pen_down else 'M'}{at[0]} {at[1]}"
            dots.append((*at, f"{line.name}, epoch {x:g}: {y:.4g}"))
        pen_down = y is not None
    radius = 4 if len(points) == 1 else 2.2
    return Curve(line.name, line.css, path, radius, dots if len(points) <= MOST_DOTS else [])


def thinned(
    points: Sequence[tuple[float, float | None]],
) -> Sequence[tuple[float, float | None]]:
    """At most about MOST_POINTS of them, evenly, with the last."""
    step = math.ceil(len(points) / MOST_POINTS)
    return points if step <= 1 else [*points[:-1:step], points[-1]]


def nice_ticks(
    low: float,
    high: float,
    about: int = 5,
    limits: tuple[float, float] = (-math.inf, math.inf),
) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten from below `low` to above `high`. Where these
    are equal, some room is added, but none beyond the limits."""
    if high <= low:
        least, most = min(low, limits[0]), max(high, limits[1])
        low, high = low - (abs(low) / 2 or 0.5), high + (abs(high) / 2 or 0.5)
        low, high = max(low, least), min(high, most)
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if raw <= power * m * (1 + 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [k * step for k in range(first, last + 1)]


def whole_ticks(low: float, high: float) -> list[float]:
    """Whole numbers within the range, the first and about seven more."""
    step = max(1, nice_ticks(0, max(1.0, high - low), about=7)[1])
    inner = [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return [low, *(x for x in inner if x - low >= step / 2)]


def spell(value: float, ticks: Sequence[float]) -> str:
    """A tick's label with as many digits as tell it from its neighbours."""
    step = ticks[1] - ticks[0]
    largest = max(abs(tick) for tick in ticks)
    if largest >= 1e5 or step < 1e-4:
        return "0" if value == 0 else f"{value:.{2 if largest > 20 * step else 1}g}"
    return f"{value:,.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix in its places, in pixels. shades: (opacity, path). counts: (x, y, count,
    class of the style sheet). names: (middle, name) of the classes that are named. is_flat: the
    names of the columns stand side by side, not upright."""

    left: int
    side: int
    width: int
    height: int
    font_size: int
    shades: list[tuple[float, str]]
    counts: list[tuple[float, float, int, str]]
    names: list[tuple[float, str]]
    is_flat: bool


def confusion_matrix(cells: Sequence[Cell], classes: Sequence[str]) -> Matrix:
    """Rows the true class, columns the predicted one; the shade goes by the square root of the
    share of the row, so that what is rare shows."""
    num = len(classes)
    cell = min(LARGEST_CELL, max(SMALLEST_CELL, MATRIX_SIDE // num))
    size = min(LARGEST_TEXT, max(SMALLEST_TEXT, cell - 2))
    names = [
        name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…" for name in classes
    ]
    longest = max(map(len, names)) * size * 0.6
    left, side = round(longest + 30), cell * num
    is_flat = longest <= cell
    return Matrix(
        left, side, left + side + 2, side + (18 if is_flat else round(longest + 8)) + 24, size,
        shades(cells, cell), counts(cells, cell, size),
        [(k * cell + cell / 2, names[k]) for k in range(0, num, math.ceil((size + 1) / cell))],
        is_flat,
    )  # fmt: skip


def shades(cells: Sequence[Cell], cell: int) -> list[tuple[float, str]]:
    """One path for all cells of a shade: a thousand classes have many."""
    totals, paths = class_sizes(cells), defaultdict(list)
    for true, predicted, count in cells:
        shade = math.ceil(math.sqrt(count / totals[true]) * NUM_SHADES)
        paths[shade].append(f"M{predicted * cell} {true * cell}h{cell}v{cell}h{-cell}z")
    return [(shade / NUM_SHADES, "".join(parts)) for shade, parts in sorted(paths.items())]


def counts(cells: Sequence[Cell], cell: int, size: int) -> list[tuple[float, float, int, str]]:
    """In every cell or in none."""
    totals = class_sizes(cells)
    longest = max((len(str(count)) for _, _, count in cells), default=0)
    if cell < SMALLEST_TEXT + 6 or longest * size * 0.62 > cell:
        return []
    return [
        ((predicted + 0.5) * cell, (true + 0.5) * cell, count,
         "on" if count > totals[true] / 4 else "off")
        for true, predicted, count in cells
    ]  # fmt: skip

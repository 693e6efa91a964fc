"""Geometry of the charts: where the curves, bands and labels stand.

chart.html draws them; the page's style sheet gives the colours (classes c0 to c11, other, axis,
grid), so that they follow its theme.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

NUM_COLOURS = 12
OTHER = -1  # style of a line that is one of many
MOST_POINTS = 300  # of a line; more would not be seen
ALL_POINTS = 6000  # of a chart's lines together, of which each has at least LEAST_POINTS
LEAST_POINTS = 40
MOST_DOTS = 40  # with more points there are no dots to read values from
LABEL_HEIGHT, LONGEST_LABEL = 13, 22  # pixels, characters
ANY = (-math.inf, math.inf)

Point = tuple[float, float | None]


@dataclass(frozen=True)
class Line:
    """A curve.

    Attributes:
        points: (x, y), y None where there is a gap.
        style: which of the colours; OTHER: grey and thin.
        band: (x, low, high) around it.
        label: at its end.
        is_thin: of one run, beside the mean of its configuration.
        group: number of its configuration on a page that filters by them.
    """

    name: str
    points: Sequence[Point]
    style: int
    band: Sequence[tuple[float, float, float]] = ()
    label: str = ""
    is_thin: bool = False
    group: int = -1

    @property
    def css(self) -> str:
        colour = "other" if self.style == OTHER else f"c{self.style % NUM_COLOURS}"
        return f"{colour} thin" if self.is_thin else colour


@dataclass(frozen=True)
class Curve:
    """A line in its places. path, band: as SVG has them. dots: (x, y, what it says)."""

    name: str
    css: str
    path: str
    band: str
    radius: float
    dots: list[tuple[float, float, str]]
    group: int


@dataclass(frozen=True)
class Chart:
    """Curves over epochs, in about as many pixels as they are shown in. Ticks: (place, label).
    mark: where the best epoch stands. labels: (y, css, text) at the ends of the curves. note: what
    cannot be seen."""

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
    labels: list[tuple[float, str, str]]
    longest_label: int
    note: str

    @property
    def width(self) -> int:
        return self.right + 12 + 7 * self.longest_label


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

    def within(self, value: float) -> float:
        """Place of a value that may be beyond the axis, by its length at most: what lies outside
        of the chart is cut off."""
        length = self.high - self.low
        return self(min(self.high + length, max(self.low - length, value)))


def line_chart(
    title: str,
    lines: Sequence[Line],
    mark: float | None = None,
    has_legend: bool = False,
    limits: tuple[float, float] = ANY,
    span: tuple[float, float] | None = None,
    note: str = "",
    has_labels: bool = True,
) -> Chart | None:
    """None if there is no point.

    Args:
        mark: an epoch to be marked as the best.
        limits: of the values: 0 and 1 for shares.
        span: lowest and highest value that the axis shows; None: of all.
        note: of what the axis does not show.
        has_labels: False: there is room for the lines' labels, so that the chart is as wide as
            those that have them, and no more.
    """
    lines = [line for line in lines if any(y is not None for _, y in line.points)]
    known = [(x, y) for line in lines for x, y in line.points if y is not None]
    if not known:
        return None
    first, last = min(x for x, _ in known), max(x for x, _ in known)
    low, high = span or (min(y for _, y in known), max(y for _, y in known))
    y_ticks = nice_ticks(low, high, limits=limits)
    x_axis = Axis(first, last, Chart.left, Chart.right)
    y_axis = Axis(y_ticks[0], y_ticks[-1], Chart.bottom, Chart.top)
    most = min(MOST_POINTS, max(LEAST_POINTS, ALL_POINTS // len(lines)))
    has_dots = len(lines) <= NUM_COLOURS
    return Chart(
        title,
        [curve(line, x_axis, y_axis, most, has_dots) for line in lines],
        [(x_axis(x), f"{x:g}") for x in whole_ticks(first, last)],
        [(y_axis(y), spell(y, y_ticks)) for y in y_ticks],
        x_axis(mark) if mark is not None and first <= mark <= last else None,
        has_legend,
        end_labels(lines, y_axis) if has_labels else [],
        max(min(len(line.label), LONGEST_LABEL) for line in lines),
        note,
    )


def curve(line: Line, x_axis: Axis, y_axis: Axis, most: int, has_dots: bool) -> Curve:
    points = thinned(line.points, most)
    path, dots, pen_down = "", [], False
    for x, y in points:
        if y is not None:
            at = x_axis(x), y_axis.within(y)
            path += f"{'L' if pen_down else 'M'}{at[0]} {at[1]}"
            dots.append((*at, f"{line.name}, epoch {x:g}: {y:.4g}"))
        pen_down = y is not None
    radius = 4 if len(points) == 1 else 2.2
    has_dots = (has_dots and len(points) <= MOST_DOTS) or len(points) == 1
    around = band(line.band, x_axis, y_axis, most)
    return Curve(line.name, line.css, path, around, radius, dots if has_dots else [],
                 line.group)  # fmt: skip


def band(
    points: Sequence[tuple[float, float, float]], x_axis: Axis, y_axis: Axis, most: int
) -> str:
    """Path around an area, or ""."""
    if len(points) < 2:
        return ""
    points = thinned(points, most)
    upper = [f"{x_axis(x)} {y_axis.within(high)}" for x, _, high in points]
    lower = [f"{x_axis(x)} {y_axis.within(low)}" for x, low, _ in reversed(points)]
    return f"M{'L'.join(upper + lower)}Z"


def end_labels(lines: Sequence[Line], y_axis: Axis) -> list[tuple[float, str, str]]:
    """Beside the last point of each line that has a label, moved apart where they would cover each
    other."""
    wanted = []
    for line in lines:
        if line.label:
            last = next(y for _, y in reversed(line.points) if y is not None)
            y = min(y_axis.start, max(y_axis.end, y_axis.within(last)))
            wanted.append((y, line.css, shortened(line.label, LONGEST_LABEL)))
    wanted.sort(key=lambda label: label[0])
    places: list[float] = []
    for y, _, _ in wanted:
        places.append(max(y, places[-1] + LABEL_HEIGHT) if places else y)
    lowest = float(y_axis.start)
    for i in reversed(range(len(places))):
        places[i] = min(places[i], lowest)
        lowest = places[i] - LABEL_HEIGHT
    return [(round(y, 1), *label[1:]) for y, label in zip(places, wanted, strict=True)]


def shortened(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def thinned(points: Sequence[Any], most: int) -> Sequence[Any]:
    """At most about so many of them, evenly, with the last."""
    step = math.ceil(len(points) / most)
    return points if step <= 1 else [*points[:-1:step], points[-1]]


def nice_ticks(
    low: float, high: float, about: int = 5, limits: tuple[float, float] = ANY
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

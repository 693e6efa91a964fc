"""Drawings for a page: curves with axes, a confusion matrix.

Plain SVG to stand inside HTML, whose style sheet gives the colours (classes c0 to c7, axis, grid,
cell), so that they follow its theme.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from trainer.evaluation.confusion import class_sizes
from trainer.text.printable import in_html as escape

NUM_COLOURS = 8
WIDTH, HEIGHT = 460, 250  # of a chart, about as many pixels as it is shown in
LEFT, RIGHT, TOP, BOTTOM = 60, 12, 18, 36
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


def line_chart(lines: Sequence[Line], title: str, mark: float | None = None) -> str:
    """Curves over epochs.

    Args:
        mark: an epoch to be marked as the best.
    """
    known = [(x, y) for line in lines for x, y in line.points if y is not None]
    if not known:
        return ""
    x_ticks = whole_ticks(min(x for x, _ in known), max(x for x, _ in known))
    y_ticks = nice_ticks(min(y for _, y in known), max(y for _, y in known))
    x_range = (min(x for x, _ in known), max(x for x, _ in known))
    plot = _Plot(x_range, (y_ticks[0], y_ticks[-1]))
    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title)}">'
    ]
    parts += [plot.y_tick(y, spell(y, y_ticks)) for y in y_ticks]
    parts += [plot.x_tick(x) for x in x_ticks]
    parts.append(
        f'<text class="axis" x="{(LEFT + WIDTH - RIGHT) / 2:g}" y="{HEIGHT - 4}" '
        'text-anchor="middle">epoch</text>'
    )
    if mark is not None and x_range[0] <= mark <= x_range[1]:
        parts.append(plot.marked(mark))
    parts += [plot.line(line) for line in lines]
    return "".join([*parts, "</svg>"])


@dataclass(frozen=True)
class _Plot:
    """From values to places."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def x(self, value: float) -> float:
        low, high = self.x_range
        share = (value - low) / (high - low) if high > low else 0.5
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        low, high = self.y_range
        share = (value - low) / (high - low) if high > low else 0.5
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)

    def y_tick(self, value: float, label: str) -> str:
        y = self.y(value)
        return (
            f'<path class="grid" d="M{LEFT} {y}H{WIDTH - RIGHT}"/><text class="axis" '
            f'x="{LEFT - 7}" y="{y}" dy=".35em" text-anchor="end">{label}</text>'
        )

    def x_tick(self, value: float) -> str:
        return (
            f'<text class="axis" x="{self.x(value)}" y="{HEIGHT - BOTTOM + 15}" '
            f'text-anchor="middle">{value:g}</text>'
        )

    def marked(self, value: float) -> str:
        x = self.x(value)
        return (
            f'<path class="mark" d="M{x} {TOP}V{HEIGHT - BOTTOM}"/>'
            f'<text class="axis" x="{x}" y="{TOP - 6}" text-anchor="middle">best</text>'
        )

    def line(self, line: Line) -> str:
        points = thinned(line.points)
        places = [None if y is None else (self.x(x), self.y(y)) for x, y in points]
        path, pen_down = [], False
        for place in places:
            if place is not None:
                path.append(f"{'L' if pen_down else 'M'}{place[0]} {place[1]}")
            pen_down = place is not None
        parts = [f'<path class="line" d="{"".join(path)}"/>']
        if len(points) <= MOST_DOTS:
            parts += [
                f'<circle cx="{place[0]}" cy="{place[1]}" r="{4 if len(points) == 1 else 2.2}">'
                f"<title>{escape(line.name)}, epoch {x:g}: {y:.4g}</title></circle>"
                for (x, y), place in zip(points, places, strict=True)
                if place is not None and y is not None
            ]
        return f'<g class="{line.css}">{"".join(parts)}</g>'


def thinned(
    points: Sequence[tuple[float, float | None]],
) -> Sequence[tuple[float, float | None]]:
    """At most about MOST_POINTS of them, evenly, with the last."""
    step = math.ceil(len(points) / MOST_POINTS)
    return points if step <= 1 else [*points[:-1:step], points[-1]]


def nice_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten from below `low` to above `high`."""
    if high <= low:
        low, high = low - (abs(low) / 2 or 0.5), high + (abs(high) / 2 or 0.5)
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


def confusion_matrix(cells: Sequence[tuple[int, int, int]], classes: Sequence[str]) -> str:
    """Rows the true class, columns the predicted one; the shade goes by the square root of the
    share of the row, so that what is rare shows.

    Args:
        cells: (true, predicted, count) of those that are not 0.
    """
    num = len(classes)
    cell = min(LARGEST_CELL, max(SMALLEST_CELL, MATRIX_SIDE // num))
    size = min(LARGEST_TEXT, max(SMALLEST_TEXT, cell - 2))
    names = [
        name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…" for name in classes
    ]
    longest = max(map(len, names)) * size * 0.6
    left, side = round(longest + 30), cell * num
    flat = longest <= cell
    below = 18 if flat else round(longest + 8)
    width, height = left + side + 2, side + below + 24
    shown = range(0, num, math.ceil((size + 1) / cell))
    return "".join([
        f'<svg class="matrix" viewBox="0 0 {width} {height}" width="{width}" '
        f'style="min-width:{width * 3 // 5}px" role="img" aria-label="confusion matrix">',
        f'<text class="axis" transform="translate(12 {side / 2:g}) rotate(-90)" '
        'text-anchor="middle">true</text>',
        f'<text class="axis" x="{left + side / 2:g}" y="{height - 5}" text-anchor="middle">'
        "predicted</text>",
        f'<path class="frame" d="M{left} 1h{side}v{side}h{-side}z"/>',
        f'<g transform="translate({left} 1)">{_shades(cells, cell)}',
        f'<g font-size="{size}">', _counts(cells, cell, size),
        *(
            f'<text class="axis" x="-7" y="{k * cell + cell / 2:g}" dy=".35em" text-anchor="end">'
            f"{escape(names[k])}</text>" + _column_name(names[k], k * cell + cell / 2, side, flat)
            for k in shown
        ),
        "</g></g></svg>",
    ])  # fmt: skip


def _column_name(name: str, x: float, side: int, flat: bool) -> str:
    if flat:
        return (
            f'<text class="axis" x="{x:g}" y="{side + 16}" text-anchor="middle">'
            f"{escape(name)}</text>"
        )
    return (
        f'<text class="axis" transform="translate({x:g} {side + 7}) rotate(-90)" dy=".35em" '
        f'text-anchor="end">{escape(name)}</text>'
    )


def _shades(cells: Sequence[tuple[int, int, int]], cell: int) -> str:
    """One path for all cells of a shade: a thousand classes have many."""
    totals, paths = class_sizes(cells), defaultdict(list)
    for true, said, count in cells:
        shade = math.ceil(math.sqrt(count / totals[true]) * NUM_SHADES)
        paths[shade].append(f"M{said * cell} {true * cell}h{cell}v{cell}h{-cell}z")
    return "".join(
        f'<path class="cell" fill-opacity="{shade / NUM_SHADES:g}" d="{"".join(parts)}"/>'
        for shade, parts in sorted(paths.items())
    )


def _counts(cells: Sequence[tuple[int, int, int]], cell: int, size: int) -> str:
    """In every cell or in none."""
    totals = class_sizes(cells)
    longest = max((len(str(count)) for _, _, count in cells), default=0)
    if cell < SMALLEST_TEXT + 6 or longest * size * 0.62 > cell:
        return ""
    return "".join(
        f'<text class="{"on" if count > totals[true] / 4 else "off"}" '
        f'x="{(said + 0.5) * cell:g}" y="{(true + 0.5) * cell:g}" dy=".35em" '
        f'text-anchor="middle">{count}</text>'
        for true, said, count in cells
    )

"""Plot of one curve over a linear or logarithmic axis: as a Pillow image, and as lines of text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT = 800, 480  # pixels
LEFT, RIGHT, TOP, BOTTOM = 90, 20, 40, 60
INK, GRID, CURVE, MARK, WHITE = (34, 34, 34), (225, 225, 225), (8, 69, 148), (190, 40, 40), "white"
TEXT = 14
COLUMNS, ROWS = 64, 12  # characters


@dataclass(frozen=True)
class Curve:
    """Curve with its axes.

    Attributes:
        x, y: its points, x rising.
        marks: x of vertical lines, with the words beside them.
        log_x: x stands on a logarithmic axis.
    """

    title: str
    x: Sequence[float]
    y: Sequence[float]
    x_label: str
    y_label: str
    marks: Sequence[tuple[float, str]] = ()
    log_x: bool = False

    def share(self, x: float) -> float:
        """Place of a value on the x axis, 0..1."""
        low, high, at = (math.log(v) if self.log_x else v for v in (self.x[0], self.x[-1], x))
        return (at - low) / (high - low) if high > low else 0.5

    @property
    def span(self) -> tuple[float, float]:
        """Lowest and highest value of the y axis."""
        low, high = min(self.y), max(self.y)
        room = (high - low) * 0.05 or abs(high) * 0.05 or 1.0
        return low - room if low else 0.0, high + room

    def x_ticks(self) -> list[float]:
        first, last = self.x[0], self.x[-1]
        if self.log_x:
            powers = range(math.ceil(math.log10(first)), math.floor(math.log10(last)) + 1)
            return [10.0**power for power in powers]
        return [first + (last - first) * k / 5 for k in range(6)]


def picture(curve: Curve) -> Image.Image:
    image = Image.new("RGB", (WIDTH, HEIGHT), WHITE)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(TEXT)
    low, high = curve.span

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + curve.share(x) * (WIDTH - LEFT - RIGHT)
        return across, HEIGHT - BOTTOM - (y - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    for k in range(6):
        value = low + (high - low) * k / 5
        _, y = place(curve.x[0], value)
        draw.line((LEFT, y, WIDTH - RIGHT, y), GRID)
        draw.text((LEFT - 8, y), f"{value:.3g}", INK, font, anchor="rm")
    for tick in curve.x_ticks():
        x, _ = place(tick, low)
        draw.line((x, TOP, x, HEIGHT - BOTTOM), GRID)
        draw.text((x, HEIGHT - BOTTOM + 8), f"{tick:.3g}", INK, font, anchor="mt")
    draw.line([place(x, y) for x, y in zip(curve.x, curve.y, strict=True)], CURVE, 2)
    for number, (value, words) in enumerate(curve.marks):
        x, _ = place(value, low)
        draw.line((x, TOP, x, HEIGHT - BOTTOM), MARK)
        anchor = "lt" if curve.share(value) < 0.6 else "rt"
        beside = x + 5 if anchor == "lt" else x - 5
        draw.text((beside, TOP + 4 + number * (TEXT + 4)), words, MARK, font, anchor=anchor)
    draw.text((LEFT, 12), f"{curve.title}: {curve.y_label}", INK, font)
    middle = (LEFT + WIDTH - RIGHT) / 2
    draw.text((middle, HEIGHT - 14), curve.x_label, INK, font, anchor="mb")
    return image


def as_text(curve: Curve) -> str:
    """The curve in characters: a column has the mean of its points."""
    columns: list[list[float]] = [[] for _ in range(COLUMNS)]
    for x, y in zip(curve.x, curve.y, strict=True):
        columns[min(COLUMNS - 1, int(curve.share(x) * COLUMNS))].append(y)
    low, high = min(curve.y), max(curve.y)
    rows = [[" "] * COLUMNS for _ in range(ROWS)]
    for column, values in enumerate(columns):
        if values:
            share = (sum(values) / len(values) - low) / ((high - low) or 1)
            rows[ROWS - 1 - min(ROWS - 1, int(share * ROWS))][column] = "*"
    lines = []
    for number, row in enumerate(rows):
        value = low + (high - low) * (ROWS - 1 - number) / (ROWS - 1)
        label = f"{value:9.3g}" if number in (0, ROWS // 2, ROWS - 1) else " " * 9
        lines.append(f"{label} |{''.join(row)}".rstrip())
    ends = f"{curve.x[0]:.3g}", f"{curve.x[-1]:.3g}"
    inside = COLUMNS - len(ends[0]) - len(ends[1])
    lines.append(" " * 10 + "+" + "-" * COLUMNS)
    lines.append(" " * 11 + ends[0] + curve.x_label.center(inside) + ends[1])
    return "\n".join(lines)

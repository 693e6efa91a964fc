"""Geometry of a confusion matrix: where its cells stand.

matrix.html draws it; the page's style sheet gives the colours, so that they follow its theme.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from trainer.evaluation.confusion import Cell, class_sizes

MATRIX_SIDE, LARGEST_CELL, SMALLEST_CELL = 640, 44, 2
LARGEST_TEXT, SMALLEST_TEXT = 13, 8
LONGEST_NAME = 20  # characters
NUM_SHADES = 16


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

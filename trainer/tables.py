"""Plain tables for the terminal, and what of a confusion matrix goes into them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from trainer.printable import printable


def align(lines: list[list[str]], left: Collection[int]) -> str:
    """Columns two spaces apart; those numbered in `left` start on the left, the others end on the
    right, as numbers do."""
    lines = [[printable(cell) for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def commonest_confusions(cells: Iterable[Sequence[int]], most: int) -> list[Sequence[int]]:
    """Of the cells (true class, predicted one, count) of a confusion matrix those off its diagonal,
    the largest counts first, `most` of them."""
    return sorted((cell for cell in cells if cell[0] != cell[1]), key=lambda c: -c[2])[:most]

"""Plain tables for the terminal, and what of a confusion matrix goes into them."""

from __future__ import annotations

from collections.abc import Collection

from trainer.text.printable import printable


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

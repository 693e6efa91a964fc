"""Plain tables for the terminal."""

from __future__ import annotations

from collections.abc import Collection

from trainer.text.printable import printable


def align(lines: list[list[str]], left: Collection[int]) -> str:
    """Table with columns two spaces apart; those whose index is in `left` are left-aligned, the
    others right-aligned."""
    lines = [[printable(cell) for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )

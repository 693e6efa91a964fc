"""Confusion of classes: which are taken for which."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def commonest_confusions(cells: Iterable[Sequence[int]], most: int) -> list[Sequence[int]]:
    """Of the cells (true class, predicted one, count) of a confusion matrix those off its diagonal,
    the largest counts first, `most` of them."""
    return sorted((cell for cell in cells if cell[0] != cell[1]), key=lambda c: -c[2])[:most]

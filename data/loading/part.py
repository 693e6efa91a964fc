"""Part of each batch that one of several processes takes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from data.augment.ops import PartGenerator


@dataclass
class Part:
    """Part of one process: of a training batch a run of its rows, of an evaluation every
    `size`-th batch. A training batch of fewer than two rows a process is not divided: each process
    takes the whole of it.

    Attributes:
        rank, size: index of the process, and number of processes.
        share: of the latest training batch; those of all processes add up to 1.
        is_whole: True if the latest training batch was not divided.
    """

    rank: int
    size: int
    share: float = 1.0
    is_whole: bool = False

    def span(self, number: int) -> tuple[int, int]:
        """First row and the one after the last, of a batch of `number` rows."""
        if number < 2 * self.size:
            return 0, number
        return self.rank * number // self.size, (self.rank + 1) * number // self.size

    def rows(self, number: int, with_previous: bool) -> slice | Tensor:
        """Index of these rows, int64 (n,) or a slice.

        Args:
            with_previous: first the row before them, of the first row the last one.
        """
        first, end = self.span(number)
        return torch.arange(first - 1, end) % number if with_previous else slice(first, end)

    def generator(self, number: int, with_previous: bool) -> PartGenerator:
        """Generator that draws for these rows what one process would draw for them."""
        generator = PartGenerator()
        generator.number, generator.rows = number, self.rows(number, with_previous)
        return generator

    def begin(self, number: int) -> None:
        """Note that a training batch of `number` rows is next."""
        first, end = self.span(number)
        self.is_whole = number < 2 * self.size
        self.share = 1 / self.size if self.is_whole else (end - first) / number

"""World: the processes that train one model together; today one."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class World:
    """Rank of this process and number of processes that train the model.

    Attributes:
        rank: index of this process, from 0.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """True if this process writes the log, checkpoints and pages."""
        return self.rank == 0

    def reduce(self, values: Tensor) -> Tensor:
        """Sum of `values` (any shape) over all processes, on each of them."""
        assert self.size == 1, "several processes are not built yet"
        return values

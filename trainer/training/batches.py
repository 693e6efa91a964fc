"""Batches as the training loop sees them, with a progress bar or a stop check."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from trainer.system.progress_bars import bar


class BatchSource(Protocol):
    """Interface of a source of batches (images (N, C, H, W) float, targets (N,) int64 or (N, K)
    float); `epoch(e, start)` iterates over those of epoch e from batch `start` on."""

    num_images: int  # per epoch

    def __len__(self) -> int: ...

    def epoch(self, epoch: int = 0, start: int = 0) -> Any: ...


class SeenBatches:
    """Batches of a source, which a subclass sees pass by."""

    def __init__(self, batches: BatchSource) -> None:
        self.batches, self.num_images = batches, batches.num_images

    def __len__(self) -> int:
        return len(self.batches)

    @property
    def num_rounds(self) -> int:
        """Batches of the process that has the most of an evaluation's."""
        return getattr(self.batches, "num_rounds", len(self))

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[Any]:
        # Closed at once, with its threads: an error's traceback would keep it open.
        with contextlib.closing(self.batches.epoch(epoch, start)) as batches:
            yield from self.seen(batches)

    def seen(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The same batches; the iterator may end or raise earlier."""
        raise NotImplementedError


class BatchesWithBar(SeenBatches):
    """Batches with a progress bar on a terminal, drawn until `is_over` returns True."""

    def __init__(
        self, batches: BatchSource, what: str, is_over: Callable[[], bool] = lambda: False
    ) -> None:
        super().__init__(batches)
        self.what, self.is_over = what, is_over

    def seen(self, batches: Iterator[Any]) -> Iterator[Any]:
        with bar(len(self), self.what, is_over=self.is_over) as shown:
            for batch in batches:
                yield batch
                shown.update()


class StoppableBatches(SeenBatches):
    """Batches of an evaluation with a stop check: `ends` is called after each, and True ends the
    epoch. It may raise. Several processes call it equally often, however many batches each has."""

    def __init__(self, batches: BatchSource, ends: Callable[[], bool]) -> None:
        super().__init__(batches)
        self.ends = ends

    def seen(self, batches: Iterator[Any]) -> Iterator[Any]:
        for batch in batches:
            yield batch
            if self.ends():
                return
        for _ in range(len(self), self.num_rounds):
            if self.ends():
                return

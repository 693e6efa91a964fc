"""Batches as the loop sees them: where they come from is not its business."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from trainer.system.progress_bars import bar


class BatchSource(Protocol):
    """Batches of (images (N, C, H, W) float, targets); `epoch(e, start)` gives those of epoch e
    from batch `start` on."""

    num_images: int  # per epoch

    def __len__(self) -> int: ...

    def epoch(self, epoch: int = 0, start: int = 0) -> Any: ...


class BarredBatches:
    """The same batches, with a bar on a terminal until `is_over` says True."""

    def __init__(
        self, batches: BatchSource, what: str, is_over: Callable[[], bool] = lambda: False
    ) -> None:
        self.batches, self.what, self.is_over = batches, what, is_over
        self.num_images = batches.num_images

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[Any]:
        with (
            contextlib.closing(self.batches.epoch(epoch, start)) as batches,
            bar(len(self), self.what, is_over=self.is_over) as shown,
        ):
            for batch in batches:
                yield batch
                shown.update()


class WatchedBatches:
    """The same batches, after each of which `ends` is asked: True ends them, and it may raise."""

    def __init__(self, batches: BatchSource, ends: Callable[[], bool]) -> None:
        self.batches, self.ends, self.num_images = batches, ends, batches.num_images

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[Any]:
        # Closed at once, with its threads: an error's traceback would keep it open.
        with contextlib.closing(self.batches.epoch(epoch, start)) as batches:
            for batch in batches:
                yield batch
                if self.ends():
                    return

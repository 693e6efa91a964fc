"""Sides of a comparison that take turns of a few steps in one process, so that a machine whose
speed changes by the second changes it for all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping

from trainer.training import loop
from trainer.training.run import Run


def steps_of(run: Run) -> Iterator[None]:
    """One training step of it at a time, epoch after epoch: what `loop.fit` does in an epoch."""
    while True:
        run.start_epoch()
        for images, targets in run.train.epoch(run.progress.epoch):
            loss, logits = loop.train_step(run, images, targets)
            run.meter.add(loss, logits, targets)
            run.step_done()
            yield
        run.end_training_epoch()
        run.meter.reset()
        run.progress.epoch, run.progress.batch = run.progress.epoch + 1, 0


def take_turns(
    sides: Mapping[str, Iterator[None]], num_turns: int, num_steps: int
) -> dict[str, list[float]]:
    """Seconds of a step, for each turn of each side; the first turn of each is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(1 + num_turns):
        for name, steps in sides.items():
            start = time.perf_counter()
            for _ in range(num_steps):
                next(steps)
            seconds[name].append((time.perf_counter() - start) / num_steps)
    return {name: times[1:] for name, times in seconds.items()}


def ratio(longer: list[float], shorter: list[float]) -> float:
    """How many times as long, in the middle of all pairs of turns that followed each other."""
    return statistics.median(a / b for a, b in zip(longer, shorter, strict=True))


def show(seconds: Mapping[str, list[float]], batch_size: int) -> None:
    for name, times in seconds.items():
        middle = statistics.median(times)
        print(f"{name:<12} {1000 * middle:8.3f} ms a step (from {1000 * min(times):.3f} to "
              f"{1000 * max(times):.3f})   {batch_size / middle:>9,.0f} images/s")  # fmt: skip

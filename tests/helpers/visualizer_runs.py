"""For tests: a small run built but not trained, and what TensorBoard finds in its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trainer.builders import training_run
from trainer.config import compose
from trainer.evaluation.metrics import Metrics
from trainer.monitoring.visualizer import Visualizer
from trainer.system.signals import StopSignals
from trainer.training import loop
from trainer.training.run import Run

WORDS = (
    "data=synthetic", "data.num_train=80", "data.num_test=40", "data.num_classes=4",
    "data.shape=[3,8,8]", "batch_size=16", "epochs=2",
)  # fmt: skip


def compose_words(*words: str) -> dict[str, Any]:
    composer = compose.Composer(compose.parse([*WORDS, *words]))
    return compose.plain(composer.jobs(composer.master())[0])


def built(config: dict[str, Any], folder: Path, **changes: Any) -> Run:
    return training_run.build({**config, **changes}, folder, StopSignals())


def gallery_of(run: Run) -> Visualizer:
    return next(watcher for watcher in run.watchers if isinstance(watcher, Visualizer))


def first_epoch(run: Run) -> None:
    """The gallery's part of it: as after a validation."""
    loop.evaluate(run.model, run.eval_loss, run.val, run.autocast, gallery_of(run).meter("val"))
    run.progress.epoch = 1
    gallery_of(run).epoch(run, Metrics(1.0, 0.5, 72), Metrics(1.0, 0.5, 8))


def finish(run: Run) -> None:
    """The gallery's part of it, as after a test."""
    gallery_of(run).finish(run, Metrics(1.0, 0.5, 40))


def events(folder: Path) -> EventAccumulator:
    keep_all = {"images": 0, "scalars": 0, "histograms": 0}
    return EventAccumulator(str(folder / "tensorboard"), size_guidance=keep_all).Reload()

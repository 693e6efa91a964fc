"""Images of a run beside its curves: for TensorBoard while it trains, and findings.json, which is
what `report` shows of its result."""

from __future__ import annotations

import base64
import contextlib
import io
import logging
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from trainer.evaluation.findings import Examiner, Findings, mistakes_as_json
from trainer.evaluation.metrics import Meter, Metrics, finite, json_of
from trainer.monitoring import tensorboard_images
from trainer.monitoring.graph import graph_nodes
from trainer.system.files import write_bytes
from trainer.training import loop
from trainer.training.batches import WatchedBatches
from trainer.training.run import Run, Watcher

log = logging.getLogger("trainer")

FINDINGS_NAME = "findings.json"
# Of the training time, at most, for pictures while it goes on; imports and the end come on top.
SHARE = 0.01
NUM_MISTAKES = 16
THUMBNAIL = 128  # the longer side, in pixels, of a picture in findings.json


class Gallery(Watcher):
    """Images of a run beside its curves.

    While it trains, each best epoch is drawn if the budget allows; what was left out is drawn at
    the end, for the best weights. Nothing here changes what is trained, and a picture that cannot
    be made is a line in the log.

    Args:
        folder: the run's.
        writer: TensorBoard's; None: only findings.json.
        histograms: those of weights and gradients, after each epoch.
        probabilities: how they follow from the model's outputs, see `losses.probabilities`.
        clock: gives seconds.
    """

    def __init__(
        self,
        folder: Path,
        writer: Any = None,
        histograms: bool = False,
        probabilities: str = "softmax",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder, self.writer, self.histograms = folder, writer, histograms
        self.probabilities = probabilities
        self.budget = Budget(SHARE, clock)
        self.latest: dict[str, Examiner] = {}  # what the last evaluation of each split collects
        self.of_best: dict[str, Examiner] = {}  # the same, where it was with the best weights
        self.drawn_epoch: int | None = None

    def meter(self, split: str) -> Meter:
        """What the evaluation of a split is to collect into, so that none is needed twice."""
        self.latest[split] = Examiner(num_mistakes=NUM_MISTAKES, probabilities=self.probabilities)
        return self.latest[split]

    def start(self, run: Run) -> None:
        """The first pictures that are trained on, and the graph."""
        if self.writer is None or run.progress.step:
            return
        with self.budget.spending():
            with harmless("the training pictures"):
                images, targets = next(iter(run.train.epoch(0)))
                tensorboard_images.show_batch(self.writer, run, images, targets)
            with harmless("the graph"):
                self.writer.add_nodes(graph_nodes(run.model, images[:1]))

    def epoch(self, run: Run, train: Metrics, val: Metrics | None) -> None:
        if self.writer is not None and self.histograms:
            with harmless("the histograms"):
                tensorboard_images.show_histograms(self.writer, run)

    def best(self, run: Run) -> None:
        """After an epoch that is the best so far, its weights being the model's."""
        self.of_best = {"val": self.latest["val"]} if "val" in self.latest else {}
        if self.writer is not None and self.budget.allows(run.progress.train_s):
            self.draw_best(run)

    def finish(self, run: Run, test: Metrics) -> None:
        """All that is missing still; of a result that is no number nothing."""
        if not math.isfinite(test.loss):
            return
        if "test" in self.latest:
            self.of_best["test"] = self.latest["test"]
        with harmless("the findings"):
            found = {split: self.look(run, split) for split in ("val", "test")}
            whole = {split: findings for split, findings in found.items() if findings is not None}
            if len(whole) == len(found):
                write_findings(self.folder / FINDINGS_NAME, run, whole)
        if self.writer is not None and run.signals.received is None:
            if self.drawn_epoch != run.best.epoch:
                self.draw_best(run)
            with harmless("the pictures of the test split"):
                if (findings := self.look(run, "test")) is not None:
                    tensorboard_images.show_findings(
                        self.writer, run, "test", findings, run.progress.step
                    )

    def draw_best(self, run: Run) -> None:
        epochs_ago = run.progress.epoch - (run.best.epoch or run.progress.epoch)
        step = max(0, run.progress.step - epochs_ago * len(run.train))
        with self.budget.spending(), harmless("the pictures of the best epoch"):
            findings = self.look(run, "val")
            if findings is None:
                return
            tensorboard_images.show_findings(self.writer, run, "val", findings, step)
            tensorboard_images.show_classes(self.writer, run, findings, step)
            tensorboard_images.show_filters(self.writer, run, step)
            self.drawn_epoch = run.best.epoch

    def look(self, run: Run, split: str) -> Findings | None:
        """What was found in a split with the model's weights, by a pass over it if no evaluation
        has collected it; None if a signal asks to stop before that is done."""
        if split not in self.of_best:
            examiner = Examiner(num_mistakes=NUM_MISTAKES, probabilities=self.probabilities)
            batches = WatchedBatches(getattr(run, split), lambda: run.signals.received is not None)
            loop.evaluate(run.evaluated_model, run.eval_loss, batches, run.autocast, examiner)
            if run.signals.received is not None:
                return None
            self.of_best[split] = examiner
        return self.of_best[split].findings()


class Budget:
    """A share of the training time."""

    def __init__(self, share: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.share, self.clock = share, clock
        self.spent_s = self.last_s = 0.0

    def allows(self, train_s: float) -> bool:
        """Whether after so much training as much can be spent again as the last time."""
        return self.spent_s + self.last_s <= self.share * train_s

    @contextlib.contextmanager
    def spending(self) -> Iterator[None]:
        start = self.clock()
        try:
            yield
        finally:
            self.last_s = self.clock() - start
            self.spent_s += self.last_s


@contextlib.contextmanager
def harmless(what: str) -> Iterator[None]:
    """No picture is worth a training."""
    try:
        yield
    except Exception as error:
        log.warning("%s could not be made: %s: %s", what, type(error).__name__, error)


def write_findings(file: Path, run: Run, found: dict[str, Findings]) -> None:
    """What `report` shows of the best weights, by split: `confusion`, the cells that are not 0 as
    [true, predicted, count]; `top5`; `calibration_error`; `mistakes`, the surest first, each with
    its picture as a data: URI, so that the data set is not needed again."""
    content: dict[str, Any] = {"epoch": run.best.epoch, "classes": run.about.description.classes}
    for split, findings in found.items():
        file_at = getattr(run.about.data, split).file_at
        rows = mistakes_as_json(findings.mistakes, run.about.description.classes, file_at)
        pictures = tensorboard_images.pictures_of(run, split, findings.mistakes)
        content[split] = {
            "confusion": findings.confusion.cells.tolist(),
            "top5": finite(findings.top5),
            "calibration_error": finite(findings.calibration_error),
            "mistakes": [
                {**row, "picture": data_uri(pixels)}
                for row, pixels in zip(rows, pictures, strict=True)
            ],
        }
    write_bytes(file, (json_of(content) + "\n").encode())


def data_uri(pixels: Tensor) -> str:
    """(C, H, W) uint8 as a PNG; of other than 3 channels the first is shown."""
    shown = pixels.permute(1, 2, 0) if len(pixels) == 3 else pixels[0]
    picture = Image.fromarray(np.ascontiguousarray(shown.numpy()))
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()

"""Images of a run beside its curves: for TensorBoard while it trains; and, of its result,
predictions.csv and findings.json, which is what `report` shows."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainer.evaluation import plots
from trainer.evaluation.findings import Examiner, Findings, mistakes_as_json
from trainer.evaluation.metrics import Meter, Metrics
from trainer.monitoring import tensorboard_images
from trainer.monitoring.graph import graph_nodes
from trainer.runs import image_keys, predictions
from trainer.system.files import write_bytes
from trainer.text.json_text import finite, json_of
from trainer.training import loop
from trainer.training.batches import StoppableBatches
from trainer.training.run import Run
from trainer.training.watcher import Watcher

log = logging.getLogger("trainer")

FINDINGS_NAME = "findings.json"
NUM_MISTAKES = 16


class Visualizer(Watcher):
    """Images of a run beside its curves.

    While it trains, some of the epochs are drawn, see `is_drawn`; at the end the test split, for
    the best weights. Nothing here changes what is trained, and an image that cannot be made is a
    line in the log.

    Args:
        folder: the run's.
        writer: TensorBoard's; None: only findings.json.
        histograms: those of weights and gradients, after each epoch.
        probabilities: how they follow from the model's outputs, see `losses.probabilities`.
    """

    def __init__(
        self,
        folder: Path,
        writer: Any = None,
        histograms: bool = False,
        probabilities: str = "softmax",
    ) -> None:
        self.folder, self.writer, self.histograms = folder, writer, histograms
        self.probabilities = probabilities
        self.latest: dict[str, Examiner] = {}  # what the last evaluation of each split collects
        self.of_best: dict[str, Examiner] = {}  # the same, where it was with the best weights

    def meter(self, split: str) -> Meter:
        """Meter for the evaluation of a split, so that none is needed twice."""
        self.latest[split] = Examiner(num_mistakes=NUM_MISTAKES, probabilities=self.probabilities)
        return self.latest[split]

    def start(self, run: Run) -> None:
        """The first images that are trained on, and the graph."""
        if self.writer is None or run.progress.step:
            return
        with harmless("the training images"):
            images, targets = next(iter(run.train.epoch(0)))
            tensorboard_images.show_batch(self.writer, run, images, targets)
        with harmless("the graph"):
            self.writer.add_nodes(graph_nodes(run.model, images[:1]))

    def epoch(self, run: Run, train: Metrics, val: Metrics | None) -> None:
        """Before the state of the epoch is saved, so that a resumed run has each drawing once."""
        if self.writer is None:
            return
        if self.histograms:
            with harmless("the histograms"):
                tensorboard_images.show_histograms(self.writer, run)
        every = run.plan.eval_every_epochs  # the validations are counted, the last one included
        number, last = (math.ceil(n / every) for n in (run.progress.epoch, run.plan.epochs))
        if val is not None and math.isfinite(val.loss) and is_drawn(number, last):
            with harmless(f"the images of epoch {run.progress.epoch}"):
                self.draw(run, self.latest["val"].findings())

    def draw(self, run: Run, findings: Findings) -> None:
        """Images of the validation split and of the weights after an epoch."""
        step = run.progress.step
        tensorboard_images.show_findings(self.writer, run, "val", findings, step)
        tensorboard_images.show_classes(self.writer, run, findings, step)
        tensorboard_images.show_filters(self.writer, run, step)

    def best(self, run: Run) -> None:
        """After an epoch that is the best so far, its weights being the model's."""
        self.of_best = {"val": self.latest["val"]} if "val" in self.latest else {}

    def finish(self, run: Run, test: Metrics | None) -> None:
        """Findings and predictions of the best weights, and images of the test split where it was
        read; nothing of a result that is not finite."""
        if test is not None and not math.isfinite(test.loss):
            return
        if test is not None and "test" in self.latest:
            self.of_best["test"] = self.latest["test"]
        splits = ("val",) if test is None else ("val", "test")
        with harmless("the findings"):
            found = {split: self.examined(run, split) for split in splits}
            whole = {split: examiner for split, examiner in found.items() if examiner is not None}
            if len(whole) == len(found) and run.world.is_main:
                write_predictions(self.folder / predictions.NAME, run, whole)
                findings = {split: examiner.findings() for split, examiner in whole.items()}
                write_findings(self.folder / FINDINGS_NAME, run, findings)
        if test is not None and self.writer is not None and run.signals.received is None:
            with harmless("the images of the test split"):
                if (examiner := self.examined(run, "test")) is not None:
                    tensorboard_images.show_findings(
                        self.writer, run, "test", examiner.findings(), run.progress.step
                    )

    def examined(self, run: Run, split: str) -> Examiner | None:
        """Examiner of a split with the best weights, by a pass over it if no evaluation has
        collected what it needs; None if a signal asks to stop before that is done."""

        def ends() -> bool:
            run.world.exchange(run.signals)
            return run.signals.received is not None

        if split not in self.of_best:
            examiner = Examiner(num_mistakes=NUM_MISTAKES, probabilities=self.probabilities)
            loop.evaluate(
                run.evaluated_model, run.eval_loss, StoppableBatches(getattr(run, split), ends),
                run.autocast, examiner, run.world,
            )  # fmt: skip
            if run.signals.received is not None:
                return None
            self.of_best[split] = examiner
        return self.of_best[split]


def is_drawn(epoch: int, epochs: int) -> bool:
    """Rule of what is drawn while a run trains: the epochs 1, 4, 16, 64 and so on, and the last.
    It costs little however long a run is, and depends on no clock: a resumed run shows the same."""
    is_power_of_two = epoch & (epoch - 1) == 0
    return epoch == epochs or (is_power_of_two and epoch.bit_length() % 2 == 1)


@contextlib.contextmanager
def harmless(what: str) -> Iterator[None]:
    """An error in here is a line in the log: no image is worth a training."""
    try:
        yield
    except Exception as error:
        log.warning("%s could not be made: %s: %s", what, type(error).__name__, error)


def write_predictions(file: Path, run: Run, found: dict[str, Examiner]) -> None:
    """Write predictions.csv, the predictions of the best weights, split by split, and images.json
    beside it."""
    classes = run.about.description.classes
    rows = []
    for split, examiner in found.items():
        images = getattr(run.about.data, split)
        rows.append(
            predictions.rows_of(
                split, examiner.predictions(), classes, images.index_at, images.file_at
            )
        )
    keys = {split: getattr(run.about.data, split).keys_by_place() for split in found}
    image_keys.write(file.parent, classes, keys)
    predictions.write(file, itertools.chain(*rows))


def write_findings(file: Path, run: Run, found: dict[str, Findings]) -> None:
    """Write what `report` shows of the best weights, by split: `confusion_cells`, [true, predicted,
    count] of those that are not 0; `top5`; `calibration_error`; `mistakes`, the most confident
    first, each with its image as a data: URI, so that the dataset is not needed again."""
    content: dict[str, Any] = {"epoch": run.best.epoch, "classes": run.about.description.classes}
    for split, findings in found.items():
        own, classes = getattr(run.about.data, split), run.about.description.classes
        rows = mistakes_as_json(findings.mistakes, classes, own.index_at, own.file_at)
        images = tensorboard_images.pictures_of(run, split, findings.mistakes)
        content[split] = {
            "confusion_cells": findings.confusion.cells.tolist(),
            "top5": finite(findings.top5),
            "calibration_error": finite(findings.calibration_error),
            "mistakes": [
                {**row, "image": plots.data_uri(pixels)}
                for row, pixels in zip(rows, images, strict=True)
            ],
        }
    write_bytes(file, (json_of(content) + "\n").encode())

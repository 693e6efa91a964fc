"""Run logger: a bar and a line per epoch for people, metrics.jsonl for programs, curves in
TensorBoard, summary.json at the end."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from trainer.errors import named
from trainer.evaluation.metrics import Metrics
from trainer.runs import side_files
from trainer.runs.progress import Progress
from trainer.system import progress_bars
from trainer.system.files import write_bytes
from trainer.text.json_text import json_of
from trainer.text.values import listed
from trainer.training.run import Run
from trainer.training.watcher import Watcher

log = logging.getLogger("trainer")

BAR_INTERVAL_S = 0.1
# TensorBoard shows five at first, of those that are said to differ; one run cannot know which do.
NUM_SHOWN_HPARAMS = 5


class RunLogger(Watcher):
    """Writes a run's figures into its folder, and into TensorBoard.

    Args:
        folder: the run's.
        writer: TensorBoard's, or MUTE.
        batch_size: images per step, for the bar's images/s.
        first_step: rows after this step are dropped; they come again.
        num_epochs: complete ones, of which there must be rows.
        hparams: the run's row on TensorBoard's HParams page, those to be shown first.
        is_over: True from when on the bar is not drawn again.
    """

    def __init__(
        self,
        folder: Path,
        writer: Any,
        batch_size: int,
        first_step: int = 0,
        num_epochs: int = 0,
        hparams: dict[str, Any] | None = None,
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        self.writer, self.batch_size, self.hparams = writer, batch_size, hparams or {}
        drop_rows_after(folder / "metrics.jsonl", first_step, num_epochs)
        self.rows = open(folder / "metrics.jsonl", "a", encoding="utf-8")  # noqa: SIM115
        self.show_bar = progress_bars.is_watched()
        self.is_over = is_over
        self.bar: tqdm[Any] | None = None
        self.bar_shown_at = 0.0

    def step(self, run: Run) -> None:
        """The bar, ten times a second at most; at the log interval the epoch's figures so far."""
        if run.is_interval and run.progress.batch < len(run.train):  # else `epoch` writes it
            self.add_lrs(run)
        if not self.show_bar:
            return
        now = time.monotonic()
        if self.bar is None:
            self.bar = progress_bars.bar(
                len(run.train), f"epoch {run.progress.epoch + 1}", initial=run.progress.batch - 1,
                shown=True, delay=0, is_over=self.is_over,
            )  # fmt: skip
        if now - self.bar_shown_at >= BAR_INTERVAL_S:
            self.bar.update(run.progress.batch - self.bar.n)
            self.bar_shown_at = now
        if run.is_interval:
            so_far = run.meter.read()  # a sync
            speed = (self.bar.format_dict["rate"] or 0.0) * self.batch_size
            self.bar.set_postfix_str(
                f"loss {so_far.loss:.4f}, accuracy {so_far.accuracy:.4f}, {speed:,.0f} images/s",
                refresh=False,
            )

    def epoch(self, run: Run, train: Metrics, val: Metrics | None) -> None:
        """The figures of a finished epoch, everywhere."""
        self.close_bar()
        progress, num_epochs = run.progress, run.plan.epochs
        words = [f"epoch {progress.epoch:>{len(str(num_epochs))}}/{num_epochs}"]
        for split, metrics in (("train", train), ("val", val)):
            if metrics is not None:
                self.row(progress, split, metrics, run.lr)
                words.append(f"{split} loss {metrics.loss:.4f} acc {metrics.accuracy:.4f}")
        self.add_lrs(run)
        self.writer.add_scalar("images_per_s", train.images_per_s, progress.step)
        if val is not None and not math.isfinite(val.loss):
            log.warning("epoch %d: the validation loss is NaN or infinite", progress.epoch)
        is_best = run.best.epoch == progress.epoch
        words += [f"{train.images_per_s:,.0f} images/s", *(["best"] if is_best else [])]
        log.info("  ".join(words))

    def finish(self, run: Run, test: Metrics | None) -> None:
        """The test's row; of a sound result the run's place among others, too."""
        if test is not None:
            self.row(run.progress, "test", test, run.lr)
        if test is None or math.isfinite(test.loss):
            results = {"accuracy/val": run.best.accuracy, "loss/val": run.best.loss}
            if test is not None:
                results |= {"accuracy/test": test.accuracy, "loss/test": test.loss}
            self.writer.add_hparams_row(
                {**self.hparams, "num_parameters": run.about.cost.num_parameters},
                results,
                list(self.hparams)[:NUM_SHOWN_HPARAMS],
            )
        self.save(run)  # before summary.json says that all is done

    def add_lrs(self, run: Run) -> None:
        """The learning rate, and that of each parameter group if there are several."""
        self.writer.add_scalar("lr", run.lr, run.progress.step)
        for name, lr in run.lrs.items():
            self.writer.add_scalar(f"lr/{name}", lr, run.progress.step)

    def row(self, progress: Progress, split: str, metrics: Metrics, lr: float) -> None:
        """One row of metrics.jsonl and its two points in TensorBoard."""
        names = ("balanced_accuracy", "macro_f1")
        known = {name: getattr(metrics, name) for name in names}
        extra = {name: value for name, value in known.items() if value is not None}
        row = {
            "step": progress.step,
            "epoch": progress.epoch,
            "split": split,
            "loss": metrics.loss,
            "accuracy": metrics.accuracy,
            **extra,
            "lr": lr,
            "images_per_s": round(metrics.images_per_s, 1),
        }
        if not math.isfinite(metrics.loss):  # it becomes null
            row["reason"] = "the loss is NaN or infinite"
        with named(self.rows.name):
            self.rows.write(json_of(row) + "\n")
            self.rows.flush()
        self.writer.add_scalar(f"loss/{split}", metrics.loss, progress.step)
        for name, value in {"accuracy": metrics.accuracy, **extra}.items():
            self.writer.add_scalar(f"{name}/{split}", value, progress.step)

    def save(self, run: Run) -> None:
        """Rows and events reach the disk before the state that counts on them."""
        with named(self.rows.name):
            os.fsync(self.rows.fileno())
        self.writer.flush()

    def close_bar(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def close(self) -> None:
        """All of it, also where one fails."""
        with contextlib.ExitStack() as closing:
            closing.callback(self.writer.close)
            closing.callback(self.rows.close)
            closing.callback(self.close_bar)


class _Mute:
    """Takes every call and does nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **options: self


MUTE = _Mute()


def drop_rows_after(file: Path, step: int, num_epochs: int = 0) -> None:
    """Keep the rows of metrics.jsonl up to a step; the test row comes again. What cannot be used,
    and which of the first `num_epochs` have no row left, is said, and the file then kept aside."""
    text = side_files.content(file) if file.is_file() else b""
    rows, bad = side_files.read_rows(text)
    kept = [(row, line) for _, row, line in rows if row["step"] <= step and row["split"] != "test"]
    if bad:
        aside = file.with_name(f"{file.name}.damaged")
        write_bytes(aside, text)
        log.warning("%s: %d of its lines cannot be used (%s) and are left out; the file as it was "
                    "is %s", file, len(bad), listed(bad, 8), aside)  # fmt: skip
    there = {row["epoch"] for row, _ in kept if row["split"] == "train"}
    lost = [epoch for epoch in range(1, num_epochs + 1) if epoch not in there]
    if lost:
        log.warning("%s: the curves lack epoch %s, whose row is not there", file,
                    listed(lost, 8))  # fmt: skip
    if text:
        write_bytes(file, b"".join(line for _, line in kept))

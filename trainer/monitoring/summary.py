"""Summary of a run: summary.json, and the lines at the end of its log."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from trainer.checkpoints import weights_sha256
from trainer.evaluation.metrics import Metrics
from trainer.evaluation.statistics import interval_of
from trainer.system.files import write_bytes
from trainer.system.memory import peak_memory_bytes
from trainer.text.json_text import json_of
from trainer.text.values import count
from trainer.training.run import Run

log = logging.getLogger("trainer")


def summarise(
    run: Run,
    folder: Path,
    status: str,
    test: Metrics | None = None,
    digests: dict[str, str | None] | None = None,
    reason: str | None = None,
) -> dict[str, Any]:
    """Write summary.json. Returns its content.

    Args:
        status: finished, interrupted or failed.
        test: None: the test split was not evaluated.
        digests: of the final weights, see `digests_of`; None: computed here, unless the run failed.
        reason: first line of the error message.
    """
    progress, best = run.progress, run.best
    val_accuracy = best.accuracy if best.epoch else None
    summary = {
        "status": status,
        "reason": reason,
        "ended_by": ended_by(run) or None,
        "val_accuracy": val_accuracy,
        "val_interval": interval_of(val_accuracy, run.val.num_images),
        "val_loss": best.loss if best.epoch else None,
        "best_by": best.by,
        "val_score": abs(best.score) if best.epoch else None,
        "num_train_images": len(run.about.data.train),
        "num_val_images": run.val.num_images,
        "test_accuracy": test.accuracy if test else None,
        "test_interval": interval_of(test.accuracy, test.num_images) if test else None,
        "test_loss": test.loss if test else None,
        "num_test_images": test.num_images if test else None,
        "dataset": run.about.data.test_set_id,
        "test_pixels": run.about.data.test_pixels,
        "test_sha256": run.about.data.test_sha256 if test else None,
        "held_out": run.about.data.held_out,
        "best_epoch": best.epoch or None,
        "lost_best_epoch": best.lost_epoch or None,
        "epochs": progress.epoch,
        "steps": progress.step,
        "num_parameters": run.about.cost.num_parameters,
        "train_s": round(progress.train_s, 3),
        "compile_s": round(run.compile_time.seconds, 3),
        "images_per_s": round(progress.num_images / progress.train_s, 1)
        if progress.train_s
        else None,
        "peak_memory_bytes": peak_memory_bytes(run.about.device),
        # After a failure the model may be inconsistent: batch norm statistics may hold NaN.
        **({"weights_sha256": None, "average_sha256": None} if status == "failed"
           else digests or digests_of(run)),
        "checkpoint": str(run.checkpoints.best) if best.epoch else None,
        "device": str(run.about.device),
        "num_threads": torch.get_num_threads(),
        "processes": run.world.size,
        "versions": run.about.description.versions,
    }  # fmt: skip
    write_summary(folder, summary)
    return summary


def ended_by(run: Run) -> str:
    """Reason why the training ended before its last epoch; empty if it did not."""
    return run.ended_by if run.progress.epoch < run.plan.epochs else ""


def digests_of(run: Run) -> dict[str, str | None]:
    """Digests of the trained weights and, if there are any, of the averaged ones."""
    average = None if run.average is None else weights_sha256(run.average.state_dict())
    return {"weights_sha256": weights_sha256(run.model.state_dict()), "average_sha256": average}


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
    """summary.json, whole or not at all."""
    write_bytes(folder / "summary.json", (json_of(summary, indent=2) + "\n").encode())


def log_result(summary: dict[str, Any]) -> None:
    """Log the test result with its interval, the training time and the speed."""
    log.info("")
    val = accuracy_in_words("val", summary)
    weights = f"with the weights of epoch {summary['best_epoch'] or 'last'}"
    if summary["test_accuracy"] is None:
        log.info("%s, %s; the test split was not read", val, weights)
    else:
        test = accuracy_in_words("test", summary, summary["held_out"])
        log.info("%s   loss %.4f", test, summary["test_loss"])
        log.info("%s, chosen by %s", weights, f"{chosen_by(summary)}{val}")
    speed = summary["images_per_s"]  # None if no time was measured
    at_speed = "" if speed is None else f" at {speed:,.0f} images/s"
    log.info("trained for %.1f s%s, %s", summary["train_s"], at_speed,
             count(summary["steps"], "step"))  # fmt: skip


def chosen_by(summary: dict[str, Any]) -> str:
    """Measure of the best epoch with its value, unless it is the accuracy."""
    by, score = summary["best_by"], summary["val_score"]
    if by == "accuracy" or score is None:
        return ""
    return f"val {by.replace('_', ' ')} {score:.4f}; "


def sureness_in_words(split: str, num_images: int) -> str:
    """How far the accuracy of a split may be from the truth: for lines without an interval."""
    least, most = (
        max(interval.high - accuracy, accuracy - interval.low)
        for accuracy in (0.95, 0.5)
        if (interval := interval_of(accuracy, num_images))
    )
    return (
        f"{split} accuracy is of {count(num_images, 'image')}: at 0.95 within {least:.3f} of the "
        f"truth, at 0.5 within {most:.3f} (95 %)"
    )


def accuracy_in_words(split: str, summary: dict[str, Any], name: str = "") -> str:
    """Accuracy of a split with its interval.

    Args:
        name: of the split for the reader; "": as in the summary.
    """
    accuracy, interval = summary[f"{split}_accuracy"], summary[f"{split}_interval"]
    if accuracy is None:
        return f"no {split} accuracy"
    images = count(summary[f"num_{split}_images"], "image")
    return f"{name or split} accuracy {accuracy:.4f} of {images}, 95 %: {interval}"


def where(run: Run) -> str:
    """Device, and number of processes and threads."""
    device, size = run.about.device, run.world.size
    words = [str(device) if size == 1 else device.type]
    if size > 1:
        words.append(f"{size} processes")
    if device.type == "cpu":
        threads = count(torch.get_num_threads(), "thread")
        words.append(threads if size == 1 else f"{threads} each")
    return ", ".join(words)

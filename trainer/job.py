"""Training job: from a checked configuration to summary.json and the last line of the log."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shlex
import traceback
from pathlib import Path
from typing import Any

import torch

from trainer.builders import leaks_file, training_run
from trainer.checkpoints import weights_sha256
from trainer.errors import Stopped, TrainingError, UserError, complain, exit_code, in_words
from trainer.evaluation.metrics import Metrics, no_better_than_guessing
from trainer.monitoring.run_logger import write_summary
from trainer.runs.progress import Progress
from trainer.runs.side_files import status_of
from trainer.system.memory import peak_memory_bytes
from trainer.system.signals import StopSignals
from trainer.text.printable import in_lines
from trainer.training import best_weights, faults, loop, snapshot
from trainer.training.run import Run
from trainer.training.soundness import SMALLER_STEPS

log = logging.getLogger("trainer")

LOG_NAME = "trainer.log"


def run(
    config: dict[str, Any],
    folder: Path,
    choices: dict[str, Any],
    in_sweep: bool = False,
    state: dict[str, Any] | None = None,
) -> None:
    """Build, train and test a run, and log the result.

    Args:
        config: the checked configuration.
        folder: the run's folder; must exist.
        choices: name of the chosen option of each config group, for the log and TensorBoard.
        in_sweep: leave out the lines that propose the next commands.
        state: full state of a checkpoint to resume from; None: start a new training.

    Raises:
        UserError: the state does not belong to this run; nothing was written.
        TrainingError: the training failed.
        Stopped: a signal arrived, and the state is saved.
    """
    with StopSignals().noted() as signals:
        progress = Progress(**state["progress"]) if state else None
        run = training_run.build(config, folder, signals, progress, choices)
        try:
            notes = snapshot.load(run, state) if state else ()
        except BaseException:
            run.close()  # no step was made, so no summary is written
            raise
        for note in notes:
            log.warning("%s", note)
        try:
            test, summary = train(run, folder, choices, is_resumed=state is not None)
        finally:
            run.close()
        log_result(summary)
        labels = run.about.data.test.labels[: test.num_images]
        if line := no_better_than_guessing(labels, run.about.description.classes, test.accuracy):
            log.info("%s", line)
        if not in_sweep:
            log_next_commands(run, folder)
        elif signals.received is not None:  # during the test: this job is finished, the sweep stops
            raise Stopped(signals.received)


def train(
    run: Run, folder: Path, choices: dict[str, Any], is_resumed: bool
) -> tuple[Metrics, dict[str, Any]]:
    """Train and test a built run. Returns the test metrics and the content of summary.json, which
    is written whether the training succeeds, fails or is stopped."""
    sha256 = None
    try:
        if is_resumed:
            best_weights.mend(run)
            # It describes the run before it was resumed; if killed now, the run is unfinished.
            (folder / "summary.json").unlink(missing_ok=True)
        log_header(run, choices)
        leaks_file.write(folder, run.about.data)
        faults.check_room(run, folder)
        run.start()
        loop.fit(run)
        sha256 = weights_sha256(run.model.state_dict())
        run.check_validated()
        best_weights.mend(run, trained=True)
        test = loop.test_best(run)
        run.finish(test)
        check_tested(test)
        try:
            return test, summarise(run, folder, "finished", test, sha256)
        except OSError as error:
            raise TrainingError(unconfirmed(error, folder)) from error
    except BaseException as error:
        fault = faults.fault_of(error, run, folder)
        note_end(run, folder, error, fault, sha256)
        if fault:
            raise fault from error
        raise


def note_end(
    run: Run,
    folder: Path,
    error: BaseException,
    fault: TrainingError | None,
    sha256: str | None,
) -> None:
    """Write the summary of a run that was interrupted or failed.

    Args:
        error: the exception that ended it.
        fault: the same as a message for the user, if there is one.
        sha256: digest of the final weights; None: training had not ended.
    """
    status = "interrupted" if isinstance(error, Stopped) else "failed"
    with contextlib.suppress(OSError):  # the disk may be full
        reason = str(fault or error).partition("\n")[0]
        if status_of(folder) != "finished":  # else the result is written, see `unconfirmed`
            summarise(run, folder, status, sha256=sha256, reason=reason)
    if status == "interrupted" and run.checkpoints.states():
        log.info("Stopped. Continue with: python -m trainer resume %s", shell_path(folder))


def unconfirmed(error: OSError, folder: Path) -> str:
    """Message for a finished run whose summary.json could not be written durably."""
    fault = f"{folder / 'summary.json'}: {error.strerror}."
    if status_of(folder) == "finished":
        return (
            f"{fault}\nThe training is finished and this file holds its result, but the disk did "
            "not confirm the write. There is nothing to resume; check the disk and copy the run's "
            "folder."
        )
    return (
        f"{fault}\nThe training is finished and its checkpoints are intact; only the result could "
        f"not be written. Once the disk is writable again, this repeats the test and writes it: "
        f"python -m trainer resume {shell_path(folder)}"
    )


def check_tested(test: Metrics) -> None:
    """Raises TrainingError if the test loss is not finite: a run without a result is not
    finished."""
    if not math.isfinite(test.loss):
        raise TrainingError(f"The test loss is NaN or infinite: no result.\n{SMALLER_STEPS}")


def log_header(run: Run, choices: dict[str, Any]) -> None:
    """Log model, dataset, device, epochs and the notes of both, before the first step."""
    shape = "x".join(map(str, run.about.description.shape))
    log.info("%s: %s parameters, %s MACs per image, input %s",
             choices.get("model"), f"{run.about.cost.num_parameters:,}", f"{run.about.cost.macs:,}",
             shape)  # fmt: skip
    log.info("%s: %s train, %s val, %s test images, %d classes", choices.get("data"),
             *(f"{b.num_images:,}" for b in (run.train, run.val, run.test)),
             len(run.about.description.classes))  # fmt: skip
    known = run.about.data.leaks.known
    for note in (*run.about.data.notes, *([known] if known else [])):
        log.info("%s", note)
    threads = torch.get_num_threads()
    on_cpu = f", {count(threads, 'thread')}" if run.about.device.type == "cpu" else ""
    log.info("device %s%s, %s of %s", run.about.device, on_cpu, count(run.plan.epochs, "epoch"),
             count(len(run.train), "step"))  # fmt: skip
    schedule = run.schedule
    if schedule.warmup_steps < schedule.asked_warmup_steps:
        log.info("scheduler.warmup_steps=%s is cut to %s, a tenth of the run's steps",
                 schedule.asked_warmup_steps, schedule.warmup_steps)  # fmt: skip
    if run.about.resize_note:
        log.info(run.about.resize_note)


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def summarise(
    run: Run,
    folder: Path,
    status: str,
    test: Metrics | None = None,
    sha256: str | None = None,
    reason: str | None = None,
) -> dict[str, Any]:
    """Write summary.json. Returns its content.

    Args:
        status: finished, interrupted or failed.
        test: None: the test split was not evaluated.
        sha256: digest of the final weights; None: computed here, unless the run failed.
        reason: first line of the error message.
    """
    progress, best = run.progress, run.best
    summary = {
        "status": status,
        "reason": reason,
        "test_accuracy": test.accuracy if test else None,
        "test_loss": test.loss if test else None,
        "val_accuracy": best.accuracy if best.epoch else None,
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
        "weights_sha256": None
        if status == "failed"
        else sha256 or weights_sha256(run.model.state_dict()),
        "checkpoint": str(run.checkpoints.best) if best.epoch else None,
        "device": str(run.about.device),
        "num_threads": torch.get_num_threads(),
        "versions": run.about.description.versions,
    }
    write_summary(folder, summary)
    return summary


def log_result(summary: dict[str, Any]) -> None:
    """Log the test result, the training time and the speed."""
    log.info("")
    log.info("test accuracy %.4f   loss %.4f   with the weights of epoch %s (val accuracy %.4f)",
             summary["test_accuracy"], summary["test_loss"], summary["best_epoch"] or "last",
             summary["val_accuracy"] or 0.0)  # fmt: skip
    speed = summary["images_per_s"]  # None if no time was measured
    at_speed = "" if speed is None else f" at {speed:,.0f} images/s"
    log.info("trained for %.1f s%s, %s", summary["train_s"], at_speed,
             count(summary["steps"], "step"))  # fmt: skip


def log_next_commands(run: Run, folder: Path) -> None:
    """Log the run's folder and commands for the next steps."""
    best = shell_path(run.checkpoints.best)
    log.info("run folder    %s", shell_path(folder))
    log.info("classify      python -m trainer predict %s IMAGE_OR_FOLDER", best)
    log.info("look closer   python -m trainer evaluate %s", best)
    log.info("as a page     python -m trainer report %s", shell_path(folder))
    if (folder / "tensorboard").is_dir():
        log.info("see curves    tensorboard --logdir %s", shell_path(folder.parent))


def shell_path(path: Path) -> str:
    """The path for use in a shell: relative to the working folder if it lies below it, quoted if
    need be."""
    short = os.path.relpath(path)
    return shlex.quote(str(path) if short.startswith("..") else short)


def report_error(error: Exception, folder: Path) -> int:
    """Print one message to stderr and append it to the run's log, with the traceback if the error
    is unexpected. Writes summary.json if the run has none. Returns the exit code."""
    foreseen = isinstance(error, TrainingError | UserError | OSError)
    log_file = folder / LOG_NAME
    message = str(error) if foreseen else f"{type(error).__name__}: {error}"
    if isinstance(error, OSError):
        message = in_words(error)
    complain(message if foreseen else f"{message}\nThe traceback is in {log_file}")
    with contextlib.suppress(OSError):  # the disk may be full
        with open(log_file, "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"ERROR {in_lines(message)}\n")
            if not foreseen or error.__cause__ is not None or isinstance(error, OSError):
                file.write(in_lines("".join(traceback.format_exception(error))))
        if not (folder / "summary.json").exists():
            write_summary(folder, {"status": "failed", "reason": message.partition("\n")[0]})
    return exit_code(error)

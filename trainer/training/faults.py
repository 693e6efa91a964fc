"""Faults of the machine during a run, as one message each: no disk space, no memory."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch

from trainer.checkpoints import step_of
from trainer.errors import NO_ROOM, TrainingError, UserError
from trainer.system.error_texts import NO_CPU_MEMORY, OVERFLOW
from trainer.training.run import Run
from trainer.training.sizes import MEGABYTE, megabytes, model_bytes, state_bytes
from trainer.training.soundness import SMALLER_STEPS
from trainer.training.world import ProcessEndedError, is_of_connection

log = logging.getLogger("trainer")


def fault_of(error: BaseException, run: Run, folder: Path) -> TrainingError | None:
    """Message for the user if an error is a fault of the machine, else None: errors that have a
    message already, and stop signals, stay as they are."""
    if isinstance(error, ProcessEndedError):
        return process_ended(run)
    if isinstance(error, TrainingError | UserError) or not isinstance(error, Exception):
        return None
    for cause in chain(error):
        if isinstance(cause, torch.OutOfMemoryError | MemoryError):
            return out_of_memory(run)
        if isinstance(cause, RuntimeError) and NO_CPU_MEMORY in str(cause):
            return out_of_memory(run)
        if isinstance(cause, RuntimeError) and OVERFLOW in str(cause):
            return TrainingError(
                f"Step {run.progress.step + 1} failed: a factor of the optimizer is NaN or "
                f"infinite in this precision (learning rate {run.lr:.3g}).\n{SMALLER_STEPS}"
            )
        if isinstance(cause, RuntimeError) and run.world.size > 1 and is_of_connection(cause):
            return process_ended(run)
        if isinstance(cause, OSError) and cause.errno is not None:
            return no_write(cause, run, folder)
    return None


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Iterate over the error, its causes and contexts: torch.save hides a full disk in a
    __context__."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def out_of_memory(run: Run) -> TrainingError:
    step, size = run.progress.step + 1, run.plan.batch_size
    return TrainingError(
        f"Out of memory on {run.about.device} at step {step:,} with batch_size={size}.\n"
        f"Use a smaller batch_size, or precision=bf16. {last_state(run)}"
    )


def process_ended(run: Run) -> TrainingError:
    return TrainingError(
        f"Another of the {run.world.size} processes of this training has ended, or cannot be "
        f"reached; its own message, if it had one, is beside this one.\n{last_state(run)}"
    )


def no_write(error: OSError, run: Run, folder: Path) -> TrainingError:
    where = error.filename or folder
    if error.errno in NO_ROOM:
        free = shutil.disk_usage(folder).free
        need = state_bytes(run.model, run.optimizer)
        what = (
            f"Not enough disk space to write {where}: a checkpoint needs about {megabytes(need)}, "
            f"{megabytes(free)} are free."
        )
    else:
        what = f"{where}: {error.strerror}."
    return TrainingError(f"{what}\n{last_state(run)}")


def last_state(run: Run) -> str:
    """Sentence about the newest state on disk and how to resume from it."""
    steps = [step_of(state) for state in run.checkpoints.states()]
    step = max((step for step in steps if step <= run.progress.step), default=None)
    if step is None:
        return "No state was saved yet."
    folder = run.checkpoints.folder.parent
    return f"The state of step {step:,} is intact; resume with: python -m trainer resume {folder}"


def check_room(run: Run, folder: Path) -> None:
    """Log the disk space that the run needs, and warn if it exceeds the free space: the states that
    are kept and one being written, and the best weights, old and new."""
    state = state_bytes(run.model, run.optimizer) + (run.average is not None) * model_bytes(
        run.model
    )
    need = (run.checkpoints.keep + 1) * state + 2 * model_bytes(run.model)
    free = shutil.disk_usage(folder).free + on_disk(run)
    if need > free:
        log.warning(
            "Low disk space: checkpoints need up to %s, and %s are free at %s.",
            megabytes(need), megabytes(free), folder,
        )  # fmt: skip
    elif need > 100 * MEGABYTE:
        log.info("checkpoints need up to %s of disk space, %s are free", megabytes(need),
                 megabytes(free))  # fmt: skip


def on_disk(run: Run) -> int:
    """Bytes of the existing checkpoints, which new ones will replace."""
    files = [*run.checkpoints.states(), run.checkpoints.best]
    return sum(file.stat().st_size for file in files if file.is_file())

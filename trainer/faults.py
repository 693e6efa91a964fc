"""What the machine under a run can do to it, as one message: no disk, no memory."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainer.checkpoint import step_of
from trainer.errors import NO_ROOM, TrainingError, UserError
from trainer.optimizer_state import trial_state
from trainer.run import Run
from trainer.soundness import SMALLER_STEPS

log = logging.getLogger("trainer")

MEGABYTE = 1e6


def explained(error: BaseException, run: Run, folder: Path) -> TrainingError | None:
    """The same in words for the user, if it is a fault of the machine; else None. What has such
    words already, and what was asked for, stays as it is."""
    if isinstance(error, TrainingError | UserError) or not isinstance(error, Exception):
        return None
    for cause in chain(error):
        if isinstance(cause, torch.OutOfMemoryError | MemoryError):
            return out_of_memory(run)
        if isinstance(cause, RuntimeError) and "can't allocate memory" in str(cause):
            return out_of_memory(run)
        if isinstance(cause, RuntimeError) and "without overflow" in str(cause):
            return TrainingError(
                f"Step {run.progress.step + 1} cannot be computed: a factor of the optimizer is "
                f"NaN or infinite at that precision (learning rate {run.lr:.3g}).\n{SMALLER_STEPS}"
            )
        if isinstance(cause, OSError) and cause.errno is not None:
            return no_write(cause, run, folder)
    return None


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it came from: torch.save hides a full disk in a __context__."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def out_of_memory(run: Run) -> TrainingError:
    step, size = run.progress.step + 1, run.plan.batch_size
    return TrainingError(
        f"Out of memory on {run.about.device} at step {step:,} with batch_size={size}.\n"
        f"Take a smaller batch_size, or precision=bf16. {last_state(run)}"
    )


def no_write(error: OSError, run: Run, folder: Path) -> TrainingError:
    where = error.filename or folder
    if error.errno in NO_ROOM:
        free = shutil.disk_usage(folder).free
        need = state_bytes(run.model, run.optimizer)
        what = (
            f"No room on the disk to write {where}: a state takes about {megabytes(need)}, "
            f"{megabytes(free)} are free."
        )
    else:
        what = f"{where}: {error.strerror}."
    return TrainingError(f"{what}\n{last_state(run)}")


def last_state(run: Run) -> str:
    """What is left to go on from."""
    steps = [step_of(state) for state in run.checkpoints.states()]
    step = max((step for step in steps if step <= run.progress.step), default=None)
    if step is None:
        return "No state was saved yet."
    folder = run.checkpoints.folder.parent
    return (
        f"The state of step {step:,} is intact; this goes on from it: "
        f"python -m trainer resume {folder}"
    )


def megabytes(count: float) -> str:
    return f"{count / MEGABYTE:,.1f} MB"


def model_bytes(model: nn.Module) -> int:
    """Of weights and buffers."""
    return sum(tensor.nbytes for tensor in model.state_dict().values())


def state_bytes(model: nn.Module, optimizer: Optimizer) -> int:
    """About what a full state takes on disk: weights, buffers, and as many copies of the trained
    weights as the optimizer keeps, which a step on a single number tells."""
    return model_bytes(model) + copies(optimizer) * trained_bytes(optimizer)


def trained_bytes(optimizer: Optimizer) -> int:
    return sum(p.nbytes for group in optimizer.param_groups for p in group["params"])


def copies(optimizer: Optimizer) -> int:
    """How many numbers the optimizer keeps for each that it trains."""
    kept = trial_state(optimizer).values()
    return sum(isinstance(value, Tensor) and value.shape == (2,) for value in kept)


def check_memory(
    model: nn.Module, optimizer: Optimizer, shape: Sequence[int], free: int, device: torch.device
) -> None:
    """Raises UserError if the `free` bytes of the device cannot hold the weights, their gradients
    and what the optimizer keeps of them. The model may be on the meta device, in float32."""
    need = state_bytes(model, optimizer) + trained_bytes(optimizer)
    if need > free:
        raise UserError(
            f"model: for data.shape={list(shape)} its weights, their gradients and the optimizer "
            f"take {need / 1e9:,.1f} GB of memory, and {free / 1e9:,.1f} GB are free on device "
            f"{device}.\nTake smaller pictures, smaller sizes in model.*, or optimizer=sgd, which "
            "keeps less."
        )


def check_room(run: Run, folder: Path) -> None:
    """Say before the first epoch if the disk will not hold what the run is going to write: the
    states that are kept and one being written, and the best weights, old and new."""
    state = state_bytes(run.model, run.optimizer)
    need = (run.checkpoints.keep + 1) * state + 2 * model_bytes(run.model)
    free = shutil.disk_usage(folder).free + on_disk(run)
    if need > free:
        log.warning(
            "The disk may not do: checkpoints will take up to %s, and %s are free at %s.",
            megabytes(need), megabytes(free), folder,
        )  # fmt: skip
    elif need > 100 * MEGABYTE:
        log.info("checkpoints take up to %s of disk, %s are free", megabytes(need),
                 megabytes(free))  # fmt: skip


def on_disk(run: Run) -> int:
    """Bytes of the checkpoints that are there already, which new ones will replace."""
    files = [*run.checkpoints.states(), run.checkpoints.best]
    return sum(file.stat().st_size for file in files if file.is_file())

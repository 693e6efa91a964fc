"""Weights of the best epoch: best.pth checked, and rewritten or replaced if damaged."""

from __future__ import annotations

import logging
from typing import Any

from trainer.checkpoints import entries
from trainer.checkpoints.finite import not_finite
from trainer.checkpoints.tensors import differences
from trainer.errors import UserError
from trainer.runs.progress import Best
from trainer.runs.side_files import set_aside
from trainer.text.values import listed
from trainer.training import loop, snapshot
from trainer.training.run import Run

log = logging.getLogger("trainer")


def mend(run: Run, trained: bool = False) -> None:
    """Make best.pth hold the weights of the epoch in `run.best`. If they are lost, both are set to
    the next best: the best epoch of a state on disk, else the current weights, validated if an
    epoch is complete. The loss is logged and noted in `run.best.lost_epoch`.

    Args:
        trained: True before the test. Before training, best.pth may be of a later epoch than the
            state that the run resumes from; that epoch is trained again.

    Raises:
        UserError: best.pth exists and cannot be read from the disk.
    """
    if not run.best.epoch:
        return
    reason = run.world.from_main(lambda: what_is_wrong(run, trained))
    if reason is None:
        return
    lost = run.best.epoch
    found = run.world.from_main(lambda: rewritten(run))
    if found is not None:
        best, step = found
        if best["epoch"] == lost:
            log.warning("%s It was rewritten from the state of step %s.", reason, step)
            return
        run.best.load_state_dict(best | {"lost_epoch": lost})
    else:
        run.best.load_state_dict(best_of_now(run).state_dict() | {"lost_epoch": lost})
        if run.best.epoch and run.world.is_main:
            run.checkpoints.save_best(run.checked(snapshot.portable(run)))
    instead = f"those of epoch {run.best.epoch}" if run.best.epoch else "the best of later epochs"
    log.warning("%s The weights of epoch %d are lost; %s replace them.", reason, lost, instead)
    run.save()  # a state that names the lost epoch would search for its weights again


def what_is_wrong(run: Run, trained: bool) -> str | None:
    """Reason why best.pth cannot be used, as a sentence; None if it can. A damaged file is
    renamed.

    Raises:
        UserError: the disk fails to read the file.
    """
    file = run.checkpoints.best
    try:
        found = entries.read(file)
        if names := not_finite(found["model"]):
            raise UserError(f"{file}: holds NaN or infinity in {listed(names)}.")
    except UserError as error:
        if not file.exists():
            return f"{file}: is missing."
        if isinstance(error.__cause__, OSError):  # the file itself may be intact
            raise
        return f"{error} It is kept as {set_aside(file).name}."
    if found["epoch"] == run.best.epoch or (found["epoch"] > run.progress.epoch and not trained):
        return None
    return f"{file}: is of epoch {found['epoch']}, not of the best epoch, {run.best.epoch}."


def rewritten(run: Run) -> tuple[dict[str, Any], int] | None:
    """Write best.pth anew from a state on disk. Returns what that state knows of the best epoch,
    and its step; None if there is no such state."""
    state = best_state(run)
    if state is None:
        return None
    run.checkpoints.save_best(snapshot.portable_of(state, run))
    return state["best"], state["step"]


def best_state(run: Run) -> dict[str, Any] | None:
    """Newest intact state on disk, not newer than the run, whose weights were the best so far when
    it was saved; None if there is none."""
    for path in reversed(run.checkpoints.states()):
        try:
            state = entries.read(path, state=True)
        except UserError:
            continue
        progress, best = state["progress"], state["best"]
        if not run.about.data.has_fingerprint(state.get("data", "")) or differences(
            state["model"], run.model.state_dict()
        ):  # a file of another run
            continue
        is_best = best["epoch"] == progress["epoch"] and not progress["batch"]
        if is_best and progress["step"] <= run.progress.step and not not_finite(state):
            return state
    return None


def best_of_now(run: Run) -> Best:
    """Result of validating the current weights; an empty one inside an epoch, whose end validates
    anyway."""
    if run.progress.batch:
        return Best(by=run.best.by)
    for rule in run.rules:
        rule.evaluate(run)
    batches, meter, best = run.interruptible(run.val), run.meter_of("val"), Best(by=run.best.by)
    val = loop.evaluate(run.evaluated_model, run.eval_loss, batches, run.autocast, meter, run.world)
    best.take(run.progress.epoch, val)
    return best

"""The weights of the best epoch: whether best.pth still holds them, and what stands in if not."""

from __future__ import annotations

import logging
from typing import Any

from trainer.checkpoints import entries
from trainer.checkpoints.finite import listed, not_finite
from trainer.checkpoints.tensors import differences
from trainer.errors import UserError
from trainer.runs.progress import Best
from trainer.runs.side_files import set_aside
from trainer.training import loop, snapshot
from trainer.training.run import Run

log = logging.getLogger("trainer")


def mend(run: Run, trained: bool = False) -> None:
    """See to it that best.pth holds the weights that `run.best` speaks of, or that both speak of
    the next best there is: the best of a state on disk, else the weights as they are now, validated
    if an epoch is complete. What was lost is said, and noted in `run.best.lost_epoch`.

    Args:
        trained: the test comes next. Before, best.pth may be of an epoch that is to come again,
            where the run goes on from a state older than it.

    Raises UserError if best.pth is there and the disk does not give it.
    """
    if not run.best.epoch or (reason := what_is_wrong(run, trained)) is None:
        return
    lost = run.best.epoch
    state = best_state(run)
    if state is not None and state["epoch"] == lost:
        log.warning("%s It was written anew from the state of step %s.", reason, state["step"])
        run.checkpoints.save_best({key: state[key] for key in snapshot.portable(run)})
        return
    if state is not None:
        run.best.load_state_dict(state["best"] | {"lost_epoch": lost})
        run.checkpoints.save_best({key: state[key] for key in snapshot.portable(run)})
    else:
        run.best.load_state_dict(best_of_now(run).state_dict() | {"lost_epoch": lost})
        if run.best.epoch:
            run.checkpoints.save_best(run.checked(snapshot.portable(run)))
    instead = f"those of epoch {run.best.epoch}" if run.best.epoch else "the best yet to come"
    log.warning("%s The weights of epoch %d are gone; %s take their place.", reason, lost, instead)
    run.save()  # a state that speaks of the lost ones would look for them again


def what_is_wrong(run: Run, trained: bool) -> str | None:
    """Why best.pth does not serve, as a sentence; None if it does. A damaged one is set aside."""
    file = run.checkpoints.best
    try:
        found = entries.read(file)
        if names := not_finite(found["model"]):
            raise UserError(f"{file}: holds NaN or infinity in {listed(names)}.")
    except UserError as error:
        if not file.exists():
            return f"{file}: is missing."
        if isinstance(error.__cause__, OSError):  # it may be sound tomorrow
            raise
        return f"{error} It is kept as {set_aside(file).name}."
    if found["epoch"] == run.best.epoch or (found["epoch"] > run.progress.epoch and not trained):
        return None
    return f"{file}: is of epoch {found['epoch']}, not of the best, {run.best.epoch}."


def best_state(run: Run) -> dict[str, Any] | None:
    """The newest sound state on disk, not newer than the run, whose own weights were the best."""
    for path in reversed(run.checkpoints.states()):
        try:
            state = entries.read(path, state=True)
        except UserError:
            continue
        progress, best = state["progress"], state["best"]
        if not run.about.data.has_fingerprint(state.get("data", "")) or differences(
            state["model"], run.model.state_dict()
        ):  # a file of another training
            continue
        is_best = best["epoch"] == progress["epoch"] and not progress["batch"]
        if is_best and progress["step"] <= run.progress.step and not not_finite(state):
            return state
    return None


def best_of_now(run: Run) -> Best:
    """What a validation of the weights as they are gives; in the middle of an epoch nothing, for
    its end brings one."""
    if run.progress.batch:
        return Best()
    batches = run.interruptible(run.val)
    val = loop.evaluate(run.evaluated_model, run.eval_loss, batches, run.autocast)
    return Best(run.progress.epoch, val.accuracy, val.loss) if Best().beaten_by(val) else Best()

"""Training job: from a checked configuration to summary.json and the last line of the log."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import traceback
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from trainer.builders import leaks_file, training_run
from trainer.checkpoints import weights_sha256
from trainer.errors import (
    Stopped,
    TrainingError,
    UserError,
    complain,
    exit_code,
    first_line,
    in_words,
)
from trainer.evaluation.metrics import Metrics, no_better_than_guessing
from trainer.monitoring.summary import (
    digests_of,
    ended_by,
    log_result,
    summarise,
    sureness_in_words,
    where,
    write_summary,
)
from trainer.runs import readings
from trainer.runs.progress import Progress
from trainer.runs.side_files import status_of
from trainer.system.distributed import is_other
from trainer.system.paths import shell_path
from trainer.system.signals import StopSignals
from trainer.text.printable import in_lines
from trainer.text.values import count, listed
from trainer.training import best_weights, faults, loop, snapshot
from trainer.training.optimizer_state import trained_names
from trainer.training.run import Run
from trainer.training.soundness import SMALLER_STEPS
from trainer.training.world import World

log = logging.getLogger("trainer")

LOG_NAME = "trainer.log"


def run(
    config: dict[str, Any],
    folder: Path,
    choices: dict[str, Any],
    in_sweep: bool = False,
    state: dict[str, Any] | None = None,
    world: World | None = None,
) -> None:
    """Build and train a run, test it where the key `test` says so, and log the result.

    Args:
        config: the checked configuration.
        folder: the run's folder; must exist.
        choices: name of the chosen option of each config group, for the log and TensorBoard.
        in_sweep: a job of a sweep, whose test is for the selected ones: see `is_tested`. The lines
            that propose the next commands are left out.
        state: full state of a checkpoint to resume from; None: start a new training.
        world: processes that train it together, of which the first writes; None: this one.

    Raises:
        UserError: the state does not belong to this run; nothing was written.
        TrainingError: the training failed.
        Stopped: a signal arrived, and the state is saved.
    """
    world = world or World()
    with StopSignals(is_shared=world.size > 1).noted() as signals:
        progress = Progress(**state["progress"]) if state else None
        build = partial(training_run.build, config, folder, signals, progress, choices, world)
        with contextlib.closing(world.together(build)) as run:
            if state:
                for note in world.together(partial(snapshot.load, run, state)):
                    log.warning("%s", note)
            # A fold that is held out is no test split: every run reads its own.
            waits = world.from_main(lambda: in_sweep) and not config["data"].get("folds")
            is_tested = reads_test(run.plan.test, waits)
            summary, read = train(run, folder, choices, is_tested, is_resumed=state is not None)
        if not world.is_main:
            return
        log_result(summary)
        accuracy, num_images = summary["test_accuracy"], summary["num_test_images"]
        if is_tested:
            labels = run.about.data.test.labels[:num_images]
            classes = run.about.description.classes
            if line := no_better_than_guessing(labels, classes, accuracy):
                log.info("%s", line)
        if not in_sweep:
            if read is not None:
                log.info("%s", read.told(accuracy, num_images))
            log_next_commands(run, folder)
        elif signals.received is not None:  # during the test: this job is finished, the sweep stops
            raise Stopped(signals.received)


def reads_test(key: str, in_sweep: bool) -> bool:
    """True if a run reads the test split at its end.

    Args:
        key: all, none, or selected: a single training, and of a sweep none, until it has ended.
    """
    return key == "all" or (key == "selected" and not in_sweep)


def train(
    run: Run, folder: Path, choices: dict[str, Any], is_tested: bool, is_resumed: bool
) -> tuple[dict[str, Any], readings.Readings | None]:
    """Train a built run, and test it. Returns the content of summary.json, which is written whether
    the training succeeds, fails or is stopped, and how often the test split was read. Of several
    processes the first one writes."""
    digests, is_main = None, run.world.is_main
    try:
        if is_resumed:
            best_weights.mend(run)
        if is_main:
            begin_log(run, folder, choices)
        run.start()
        first_step = run.progress.step
        loop.fit(run)
        digests = digests_of(run) if is_main else None
        if is_main and (why := ended_by(run)):
            log.info("ended after epoch %d: %s", run.progress.epoch, why)
        run.check_validated()
        best_weights.mend(run, trained=True)
        digest, read = loop.load_best(run) or weights_sha256(run.evaluated_model.state_dict()), None
        test = loop.test(run) if is_tested else None
        if test is not None and run.about.data.held_out == "test" and is_main:
            # After a training that had ended, as a sweep's, this is the test that belongs to it.
            goes_on = is_resumed and run.progress.step > first_step
            read = note_reading(run, folder, test, digest, "resume" if goes_on else "train")
        run.finish(test)
        if test is not None and not math.isfinite(test.loss):  # a run without a result
            raise TrainingError(f"The test loss is NaN or infinite: no result.\n{SMALLER_STEPS}")
        if not is_main:
            return {}, None
        try:
            return summarise(run, folder, "finished", test, digests), read
        except OSError as error:
            raise TrainingError(unconfirmed(error, folder)) from error
    except BaseException as error:
        fault = faults.fault_of(error, run, folder)
        if is_main:
            note_end(run, folder, error, fault, digests)
        if fault:
            raise fault from error
        raise


def begin_log(run: Run, folder: Path, choices: dict[str, Any]) -> None:
    """Write what is known before the first step."""
    # It describes the run before it was resumed; if killed now, the run is unfinished.
    (folder / "summary.json").unlink(missing_ok=True)
    log_header(run, choices)
    leaks_file.write(folder, run.about.data)
    faults.check_room(run, folder)


def note_end(
    run: Run, folder: Path, error: BaseException, fault: TrainingError | None, digests: Any
) -> None:
    """Write the summary of a run that was interrupted or failed.

    Args:
        error: the exception that ended it.
        fault: the same as a message for the user, if there is one.
        digests: of the final weights, see `digests_of`; None: training had not ended.
    """
    status = "interrupted" if isinstance(error, Stopped) else "failed"
    with contextlib.suppress(OSError):  # the disk may be full
        reason = first_line(fault or error)
        if isinstance(error, SystemExit):
            reason = f"sys.exit({error.code!r}) was called in it"
        if status_of(folder) != "finished":  # else the result is written, see `unconfirmed`
            summarise(run, folder, status, digests=digests, reason=reason)
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


def note_reading(
    run: Run, folder: Path, test: Metrics, digest: str, command: str
) -> readings.Readings | None:
    """Note in the ledger that the test split was read.

    Args:
        digest: of the checkpoint that was tested.
    """
    ledger = readings.ledger_of(folder)
    return readings.note(
        ledger, command=command, run=readings.name_in(ledger, folder),
        checkpoint=str(run.checkpoints.best) if run.best.epoch else None, digest=digest,
        weights=weights_sha256(run.evaluated_model.state_dict()),
        dataset=run.about.data.test_set_id, pixels=run.about.data.test_pixels, split="test",
        num_images=test.num_images,
    )  # fmt: skip


def log_header(run: Run, choices: dict[str, Any]) -> None:
    """Log model, dataset, device, epochs and the notes of both, before the first step."""
    shape = "x".join(map(str, run.about.description.shape))
    log.info("%s: %s parameters, %s MACs per image, input %s",
             choices.get("model"), f"{run.about.cost.num_parameters:,}", f"{run.about.cost.macs:,}",
             shape)  # fmt: skip
    log.info("%s: %s train, %s val, %s %s images, %d classes", choices.get("data"),
             *(f"{b.num_images:,}" for b in (run.train, run.val, run.test)),
             "test" if run.about.data.held_out == "test" else "held-out",
             len(run.about.description.classes))  # fmt: skip
    known = run.about.data.leaks.known
    for note in (*run.about.data.notes, *([known] if known else [])):
        log.info("%s", note)
    log.info("device %s, %s of %s", where(run), count(run.plan.epochs, "epoch"),
             count(len(run.train), "step"))  # fmt: skip
    log.info("%s", sureness_in_words("val", run.val.num_images))
    schedule = run.schedule
    if schedule.warmup_steps < schedule.asked_warmup_steps:
        log.info("scheduler.warmup_steps=%s is cut to %s, a tenth of the run's steps",
                 schedule.asked_warmup_steps, schedule.warmup_steps)  # fmt: skip
    for note in learning_rates(run):
        log.info("%s", note)
    if run.about.resize_note:
        log.info(run.about.resize_note)


def learning_rates(run: Run) -> Iterator[str]:
    """A line for each parameter group if there are several."""
    names = iter(trained_names(run.optimizer, run.model))
    for group in run.optimizer.param_groups if run.lrs else ():
        own = list(itertools.islice(names, len(group["params"])))
        decay = f", weight decay {group['weight_decay']:g}" if "weight_decay" in group else ""
        yield (
            f"group {group['name']}: learning rate {group['initial_lr']:.4g}{decay}, "
            f"{count(len(own), 'parameter')}: {listed(own, 3)}"
        )


def log_next_commands(run: Run, folder: Path) -> None:
    """Log the run's folder and commands for the next steps."""
    best = shell_path(run.checkpoints.best)
    log.info("run folder    %s", shell_path(folder))
    log.info("classify      python -m trainer predict %s IMAGE_OR_FOLDER", best)
    log.info("look closer   python -m trainer evaluate %s", best)
    log.info("as a page     python -m trainer report %s", shell_path(folder))
    if (folder / "tensorboard").is_dir():
        log.info("see curves    tensorboard --logdir %s", shell_path(folder.parent))


def report_error(error: Exception, folder: Path) -> int:
    """Print one message to stderr and append it to the run's log, with the traceback if the error
    is unexpected. Writes summary.json if the run has none. Returns the exit code."""
    foreseen = isinstance(error, TrainingError | UserError | OSError)
    log_file = folder / LOG_NAME
    message = str(error) if foreseen else f"{type(error).__name__}: {error}"
    if isinstance(error, OSError):
        message = in_words(error)
    if is_other() and isinstance(error, TrainingError | UserError):  # the first process tells it
        return exit_code(error)
    complain(message if foreseen else f"{message}\nThe traceback is in {log_file}")
    with contextlib.suppress(OSError):  # the disk may be full
        with open(log_file, "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"ERROR {in_lines(message)}\n")
            if not foreseen or error.__cause__ is not None or isinstance(error, OSError):
                file.write(in_lines("".join(traceback.format_exception(error))))
        if not is_other() and not (folder / "summary.json").exists():
            write_summary(folder, {"status": "failed", "reason": message.partition("\n")[0]})
    return exit_code(error)

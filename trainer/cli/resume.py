"""`trainer resume [RUN_DIR] [--force] [key=value ...]`: resume an interrupted run."""

from __future__ import annotations

import argparse
import logging.config
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from trainer.builders import idle_keys
from trainer.cli.arguments import parse_words
from trainer.config import knobs
from trainer.config.changes import FREE_KEYS, check_changes
from trainer.errors import Stopped, UserError
from trainer.runs.lock import is_locked, locked
from trainer.runs.mend import choices, mend_side_files, set_aside_no_files
from trainer.runs.read import read_runs
from trainer.runs.side_files import UNREADABLE, read_json, status_of

LONGEST_REASON = 300  # characters of another run's error message


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="trainer resume",
        description="Resume a run in its own folder, from its newest intact state.",
        epilog=f"Keys that may change: {', '.join(FREE_KEYS)}, and epochs if it grows. Others need "
        "--force, since the result is then no longer that of a single command.",
    )
    parser.add_argument(
        "run_dir", type=Path, nargs="?", help="default: the newest unfinished run below outputs/"
    )
    parser.add_argument("--force", action="store_true", help="change any key")
    args, values = parse_words(parser, argv, everything())
    folder = args.run_dir or newest_unfinished(Path("outputs"))
    if not (folder / "checkpoints").is_dir():
        if os.path.exists(folder / "multirun.yaml"):
            raise UserError(of_sweep(folder))
        raise UserError(
            f"{folder}: holds no run to resume: it has no checkpoints/. A training that ended "
            "before it saved a state must be started again with its own command."
        )
    with locked(folder):
        return resume(folder, values, args.force)


def of_sweep(folder: Path) -> str:
    """Message for a sweep's folder: it cannot be resumed, but its interrupted jobs can."""
    rows = [row for row in read_runs(folder) if row.status not in ("finished", "running")]
    jobs = [row.folder for row in rows if (row.folder / "checkpoints").is_dir()]
    first = f" For example: python -m trainer resume {jobs[0]}" if jobs else ""
    return (
        f"{folder}: is a sweep, which cannot be continued as a whole yet. "
        f"`python -m trainer report {folder}` lists which of its jobs are finished; {len(jobs)} of "
        f"them were interrupted and can be resumed one by one.{first}"
    )


def resume(folder: Path, values: dict[str, str], force: bool) -> int:
    """Resume the run in a folder whose lock is held. Returns the exit code.

    Args:
        values: changed keys with their values as typed.
        force: allow changes that make it a different run.
    """
    if status_of(folder) == "finished" and "epochs" not in values:
        raise UserError(f"{folder}: already finished; pass epochs=N (larger) to extend it.")

    from trainer import job
    from trainer.builders import restore, training_run
    from trainer.checkpoints.newest import newest_sound_state
    from trainer.config import stored
    from trainer.system.files import remove_half_written

    for path in (folder, folder / "checkpoints", folder / job.LOG_NAME):
        if path.exists() and not os.access(path, os.W_OK):
            raise UserError(f"{path}: cannot be written to: Permission denied.")
    remove_half_written(folder)
    warnings = set_aside_no_files(folder)  # before the log is opened, which may be one of them
    log_to(folder / job.LOG_NAME)
    for line in warnings:
        logging.getLogger("trainer").warning("%s", line)
    state = newest_sound_state(folder)
    begun, notes = stored.own_sources(stored.configuration(state, values), values)
    for note in notes:
        logging.getLogger("trainer").info("%s", note)
    config = restore.reconfigure(begun, values)
    check_changes(begun, config, force)
    idle_keys.refuse(values, idle_keys.FRESH_WEIGHTS, "a resumed run has its own weights")
    for key in ("weights", "replace_head"):
        if key in values:
            raise UserError(
                f"{key}={values[key]}: a resumed run has its own weights. Leave the key out, or "
                "start a new run with weights=FILE."
            )
    check_machine(config, values)
    restore.check_weights(state, config)
    state["progress"] = placed(state["progress"], begun, config)
    # The state holds the weights and normalisation of `weights=`; the file may no longer exist.
    own = {"mean": state["mean"], "std": state["std"]}
    own = {key: value for key, value in own.items() if f"data.{key}" not in values}
    config |= {"weights": None, "replace_head": False, "data": {**config["data"], **own}}
    training_run.check(config)
    idle_keys.refuse_in_training(values, [config])
    training_run.check_data(config)  # download or pack while a signal still ends the command
    mend_side_files(folder, state["config"], config)
    try:
        job.run(config, folder, choices(folder), state=state)
    except Stopped:
        raise
    except Exception as error:
        return job.report_error(error, folder)
    return 0


def check_machine(config: Mapping[str, Any], values: Mapping[str, str]) -> None:
    """Raises UserError if the run's device does not exist here: another one changes the last bits
    of the result, so the user must choose it."""
    from trainer.system.device import available_devices, has_device

    if "device" not in values and not has_device(config["device"]):
        ways = " or ".join(f"device={name}" for name in (*available_devices(), "auto"))
        raise UserError(
            f"device={config['device']}: the run started on it, and this machine has no such "
            f"device. To resume on another one, pass {ways}."
        )


def everything() -> tuple[str, ...]:
    """All keys; `check_changes` decides which of them may change."""
    own = (key for key in knobs.KNOBS if "." not in key)
    return (*own, *knobs.GROUPS, *(f"{group}." for group in knobs.GROUPS))


def newest_unfinished(outputs: Path) -> Path:
    """Folder of the newest unfinished run below `outputs` that is not running now. Failed runs are
    skipped: most fail again from the same state, and a repeated command would never reach the
    others. Raises UserError if there is none."""
    found = {state.parent.parent for state in outputs.rglob("checkpoints/step_*.pth")}
    found = {run for run in found if os.access(run, os.W_OK)}  # runs of other users may lie there
    status = {run: status_of(run) for run in found}
    unfinished = [run for run in found if status[run] not in ("finished", "failed")]
    idle = [run for run in unfinished if not is_locked(run)]
    failed = max((run for run in found if status[run] == "failed"), key=written, default=None)
    left_out = "" if failed is None else (
        f"Failed runs are skipped; the newest: {failed}: {reason_of(failed)}\n"
        f"Once the cause is fixed: trainer resume {failed}"
    )  # fmt: skip
    if not idle:
        going = " that is not running now" if unfinished else ""
        raise UserError(
            f"{outputs}: no unfinished run below it{going}. "
            f"{left_out or 'Name one: trainer resume RUN_DIR.'}"
        )
    newest = max(idle, key=written)
    if failed is not None and written(failed) > written(newest):
        print(left_out, file=sys.stderr)
    return newest


def written(run: Path) -> float:
    """Time of the latest change in a run's checkpoints/, in seconds since the epoch."""
    return (run / "checkpoints").stat().st_mtime


def reason_of(run: Path) -> str:
    try:
        return str(read_json(run / "summary.json").get("reason"))[:LONGEST_REASON]
    except UNREADABLE:
        return "unknown"


def placed(
    progress: dict[str, Any], stored: Mapping[str, Any], config: Mapping[str, Any]
) -> dict[str, Any]:
    """Progress of a state, adapted to a batch size changed with --force. Raises UserError if the
    run has passed the new number of epochs."""
    from trainer.runs.progress import Progress

    place = Progress(**progress).with_batch_size(stored["batch_size"], config["batch_size"])
    reached = place.epoch + bool(place.batch)
    if config["epochs"] < reached:
        raise UserError(
            f"epochs={config['epochs']}: the run is already in epoch {reached}; pass a larger one."
        )
    return asdict(place)


def log_to(file: Path) -> None:
    """Log to the terminal and a file, with the handlers that Hydra makes from
    configs/hydra/job_logging."""
    text = (knobs.CONFIGS / "hydra" / "job_logging" / "trainer.yaml").read_text("utf-8")
    logging.raiseExceptions = False  # ignore a closed terminal or a full disk
    settings = yaml.safe_load(text)
    settings["handlers"]["file"]["filename"] = str(file)
    logging.config.dictConfig(settings)

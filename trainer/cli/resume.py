"""`trainer resume [RUN_DIR] [--force] [key=value ...]`: resume an interrupted run."""

from __future__ import annotations

import argparse
import logging.config
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from trainer.cli import several
from trainer.cli.arguments import parse_words
from trainer.config import knobs
from trainer.config.changes import FREE_KEYS, LIMITS
from trainer.config.combinations import PROCESSES_TAKE, check_processes
from trainer.errors import Stopped, UserError
from trainer.runs.folder import sweep_of
from trainer.runs.lock import locked
from trainer.runs.mend import make_writable
from trainer.runs.read import noted_choices
from trainer.runs.side_files import read_json, read_yaml, readable, status_of
from trainer.runs.sweep_file import is_own
from trainer.runs.unfinished import newest_unfinished, refuse_no_run
from trainer.system import distributed
from trainer.system.distributed import Place

if TYPE_CHECKING:
    from trainer.training.world import World


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="trainer resume",
        description="Resume a run in its own folder, from its newest intact state.",
        epilog=f"Keys that may change: {', '.join(FREE_KEYS)}, and, if they grow, "
        f"{', '.join(LIMITS)}. Others need --force, since the result is then no longer that of a "
        "single command.",
    )
    parser.add_argument(
        "run_dir", type=Path, nargs="?", help="default: the newest unfinished run below outputs/"
    )
    parser.add_argument("--force", action="store_true", help="change any key")
    parser.add_argument(
        "--retry-failed", action="store_true", help="of a sweep: start its failed jobs again, too"
    )
    args, values = parse_words(parser, argv, everything())
    folder = args.run_dir or newest_unfinished(Path("outputs"))
    if is_own(folder):
        from trainer.cli import sweep

        return sweep.resume(folder, values, args.retry_failed, args.force)
    here = distributed.place()
    if here is None or here.rank == 0:
        refuse_no_run(folder)
    if args.retry_failed:
        raise UserError(f"--retry-failed: is for a sweep, and {folder} holds a run.")
    if others := [key for key in values if key in knobs.OF_SWEEPS]:
        raise UserError(f"{others[0]}: is a key of sweeps, and {folder} holds a run.")
    number = number_of_processes(folder, values, here)
    if here is None and number > 1:
        return distributed.launch(["resume", *argv], number)
    if here is None:
        return resume(folder, values, args.force)
    with several.joined(here) as world:
        return resume(folder, values, args.force, world)


def number_of_processes(folder: Path, values: dict[str, str], here: Place | None) -> int:
    """Number of processes that resume the run: that of the command line, or of torchrun, else as
    many as began it. Sets the key. Raises UserError."""
    if here is not None:
        if values.setdefault("processes", str(here.size)) != str(here.size):
            raise UserError(
                f"processes={values['processes']}: {here.size} processes were started. Leave the "
                "key out under torchrun."
            )
        return here.size
    begun = readable({}, read_yaml, folder / ".hydra" / "config.yaml")
    begun = begun if isinstance(begun, dict) else {}
    if begun.get("processes", 1) != 1 and knobs.KNOBS["processes"].allows(begun["processes"]):
        values.setdefault("processes", str(begun["processes"]))
    typed = values.get("processes", "1")
    if not typed.isdecimal() or not knobs.KNOBS["processes"].allows(int(typed)):
        return 1  # and `resumed` refuses it
    if typed != "1" and isinstance(begun.get("batch_size"), int):
        changed = {key: values[key] for key in PROCESSES_TAKE if key in values}
        check_processes({**begun, **changed, "processes": int(typed)})
    return int(typed)


def resume(
    folder: Path, values: dict[str, str], force: bool = False, world: World | None = None
) -> int:
    """Resume the run in a folder, or test it. Returns the exit code; the first arguments are those
    of `resumed`.

    Args:
        world: processes that do it together, of which the first holds the folder; None: this one.
    """
    if world is not None and not world.is_main:
        several.take_part(world, folder, lambda: several.known_to_all(world, nothing))
        return 0
    with locked(folder):
        return resume_locked(folder, values, force, world)


def go_on(folder: Path, config: dict[str, Any], modules: Sequence[str]) -> int:
    """Go on with the run in a folder whose own command was given again. Returns the exit code.

    Args:
        config: of the command, checked.
        modules: of the user's own that it names.
    """
    with locked(folder):
        if status_of(folder) == "finished":
            print(f"{folder}: already finished")
            return 0
        return resume_locked(folder, {"trust": f"[{','.join(modules)}]"}, False, None, config)


def nothing() -> tuple[dict[str, Any], dict[str, Any]]:
    """Configuration and state, which the first process knows."""
    raise NotImplementedError


def resume_locked(
    folder: Path,
    values: dict[str, str],
    force: bool,
    world: World | None,
    config: dict[str, Any] | None = None,
) -> int:
    summary = readable({}, read_json, folder / "summary.json")
    asks = ("all",) if sweep_of(folder) else ("all", "selected")
    is_test = values.get("test") in asks and summary.get("test_accuracy") is None
    ended_by = str(summary.get("ended_by") or "")
    limit = ended_by.partition("=")[0] if ended_by.startswith(LIMITS) else "epochs"
    if summary.get("status") == "finished" and not (limit in values or is_test):
        reason = f" ({ended_by[:300]})" if limit in ended_by else ""
        raise UserError(
            f"{folder}: already finished{reason}; pass {limit}=N (larger) to extend it"
            + ("." if summary.get("test_accuracy") is not None else ", or test=all to test it.")
        )

    # Imported here: they import torch, which takes seconds.
    from trainer import job
    from trainer.builders.resumed import resumed

    warnings = make_writable(folder)  # before the log is opened
    log_to(folder / job.LOG_NAME)
    for line in warnings:
        logging.getLogger("trainer").warning("%s", line)
    if world is None:
        config, state = resumed(folder, values, force, config)
    else:
        config, state = several.known_to_all(world, lambda: resumed(folder, values, force))
    choices = readable({}, noted_choices, folder / ".hydra" / "hydra.yaml")
    try:
        job.run(config, folder, choices, sweep_of(folder) is not None, state, world)
    except Stopped:
        raise
    except Exception as error:
        return job.report_error(error, folder)
    return 0


def everything() -> tuple[str, ...]:
    """All keys; `check_changes` decides which of them may change."""
    own = (key for key in knobs.KNOBS if "." not in key)
    of_sweeps = ("jobs", "launcher")
    return (*own, *of_sweeps, *knobs.GROUPS, *(f"{group}." for group in knobs.GROUPS))


def log_to(file: Path) -> None:
    """Log to the terminal and a file, with the handlers that Hydra makes from
    configs/hydra/job_logging."""
    text = (knobs.CONFIGS / "hydra" / "job_logging" / "trainer.yaml").read_text("utf-8")
    logging.raiseExceptions = False  # ignore a closed terminal or a full disk
    settings = yaml.safe_load(text)
    settings["handlers"]["file"]["filename"] = str(file)
    logging.config.dictConfig(settings)

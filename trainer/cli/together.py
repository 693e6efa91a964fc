"""One training in several processes: the first runs the job in its folder, the others take part."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.cli.resume import resume
from trainer.cli.several import take_part
from trainer.config import start
from trainer.config.compose import Composer
from trainer.config.plain_yaml import parse
from trainer.errors import UserError, complain, named
from trainer.runs.folder import claim_folder, is_gone_on_with, remove_half_made
from trainer.runs.side_files import read_text, readable, status_of
from trainer.system.distributed import Place
from trainer.system.paths import at_home


def take_over(args: argparse.Namespace, size: int) -> None:
    """Set the key `processes` to the number that torchrun has started. Raises UserError if the
    command names another."""
    typed = [word for word in args.overrides if word.lstrip("+").startswith("processes=")]
    if typed and typed[-1].partition("=")[2] != str(size):
        raise UserError(
            f"{typed[-1]}: {size} processes were started (WORLD_SIZE={size}). Leave the key out "
            "under torchrun."
        )
    if not typed:
        args.overrides.append(f"processes={size}")


def refuse_sweep(jobs: Sequence[Mapping[str, Any]], here: Place | None) -> None:
    """Raises UserError for a sweep whose jobs take several processes, where they are started by
    torchrun or by a launcher of Hydra's."""
    most = max(job["processes"] for job in jobs)
    if here is not None:
        raise UserError(
            f"--multirun: not supported under torchrun, which has started {here.size} processes "
            f"for one training. Start the sweep without it; processes={here.size} gives each job "
            "its own."
        )
    raise UserError(
        f"processes={most}: goes with this program's own sweeps, and a launcher or sweeper of "
        "Hydra's was named. Leave out one of the two."
    )


def train(
    world: Any,
    here: Place,
    composer: Composer,
    master: Any,
    config: dict[str, Any],
    modules: Sequence[str],
    task: Callable[..., None],
) -> None:
    """Train, in the folder that the first process claims; or go on in it, if it is that of a job
    of a sweep, or torchrun has started the processes again.

    Args:
        config: the checked configuration.
        modules: of the user's own that it takes its classes from.
        task: runs the job in its folder, from its configuration and the world.
    """
    folder = world.from_main(lambda: begun(master, config))
    if folder is not None and world.from_main(lambda: status_of(folder)) == "finished":
        if world.is_main:
            print(f"{folder}: already finished")
        return
    if folder is not None:
        values = {"trust": f"[{','.join(modules)}]"} if modules else {}
        raise SystemExit(resume(folder, values, False, world))
    if here.restarts and world.is_main:
        complain(
            f"The processes were started again, and {master.hydra.run.dir} holds no state of this "
            "training: it begins anew. Give hydra.run.dir=FOLDER for a restart to go on there."
        )
    folder = world.from_main(lambda: claim_folder(master, composer.overrides, "run"))
    if world.is_main:
        try:
            with named(folder):
                start.run(composer, master, folder, lambda cfg: task(cfg, world))
        finally:
            remove_half_made(folder)
    else:
        take_part(world, folder, lambda: (config, None))


def begun(master: Any, config: dict[str, Any]) -> Path | None:
    """Folder of the command, if it goes on there and a state of this run is there; else None."""
    from trainer.checkpoints import states_in
    from trainer.checkpoints.newest import unlike

    folder = at_home(Path(str(master.hydra.run.dir))).absolute()
    if not (is_gone_on_with(folder) and states_in(folder / "checkpoints")):
        return None
    first = readable({}, parse, readable("", read_text, folder / ".hydra" / "config.yaml"))
    return folder if first and not unlike(first, config) else None

"""Hydra's own start: the help, and the jobs of a command line that was composed and checked."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hydra import main as hydra_main
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from trainer.config.compose import Composer, parse, quoted
from trainer.config.hydra_errors import user_errors
from trainer.config.hydra_internals import Hydra, raise_errors
from trainer.config.knobs import CONFIGS, OF_SWEEPS
from trainer.errors import UserError

Task = Callable[[DictConfig], Any]


def tell(argv: list[str]) -> None:
    """`--info`, `--hydra-help` and the like, by `hydra.main`. An absolute path to configs/ works
    from a checkout, an installed package, as a module and as a console script."""
    raise_errors()
    sys.argv = ["trainer", *argv]
    with user_errors():
        hydra_main(version_base="1.3", config_path=str(CONFIGS), config_name="config")(_nothing)()


def _nothing(config: DictConfig) -> None:
    """Job that is never reached: Hydra prints what was asked for before."""


def show(composer: Composer, master: DictConfig, args: argparse.Namespace) -> None:
    """`--cfg job`, `hydra` or `all`."""
    with _hydra(composer, master) as hydra:
        hydra.show_cfg(
            composer.config_name, composer.overrides, args.cfg, args.package, args.resolve
        )


def run(composer: Composer, master: DictConfig, folder: Path, task: Task) -> None:
    """The job, or the jobs of the sweep, in this folder. `hydra.main` would compose the same words
    twice more: to know whether it is a sweep, and to run."""
    kind, mode = ("sweep", RunMode.MULTIRUN) if composer.multirun else ("run", RunMode.RUN)
    words = [f"hydra.{kind}.dir={quoted(str(folder))}", f"hydra.mode={mode.name}"]
    with open_dict(master):
        master.hydra[kind].dir, master.hydra.mode = str(folder), mode
        master.hydra.overrides.hydra.extend(words)  # the jobs of a sweep are composed with them
        for key in OF_SWEEPS if kind == "run" else ():
            master.pop(key)
    with _hydra(composer, master) as hydra:
        begin = hydra.multirun if composer.multirun else hydra.run
        begin(composer.config_name, task, composer.overrides)


def is_plain_sweep(master: DictConfig) -> bool:
    """True if no other launcher or sweeper than Hydra's basic ones is named."""
    targets = (str(master.hydra[part].get("_target_")) for part in ("launcher", "sweeper"))
    return all(target.rpartition(".")[2].startswith("Basic") for target in targets)


def refuse_objects(config: DictConfig, source: Path) -> None:
    """Raises UserError if a configuration that a file asks for has Hydra make other objects, or set
    other variables of the environment, than this program's own configuration.

    Args:
        config: with Hydra's node.
        source: the file.
    """
    own = Composer(parse([])).master().hydra
    for key in ("callbacks", "job_logging", "hydra_logging", "job.env_set", "job.env_copy"):
        if OmegaConf.select(config.hydra, key) != OmegaConf.select(own, key):
            raise UserError(
                f"{source}: the configuration that it names sets hydra.{key}, which is not taken "
                "from a file. Give the sweep's own command again, with sweep.name=..."
            )


@contextlib.contextmanager
def _hydra(composer: Composer, master: DictConfig) -> Iterator[Hydra]:
    """Hydra, with what it would compose first."""
    hydra = Hydra("trainer", composer.loader)
    composer.loader.composed = master
    GlobalHydra.instance().initialize(hydra)
    try:
        with user_errors():
            yield hydra
    finally:
        GlobalHydra.instance().clear()

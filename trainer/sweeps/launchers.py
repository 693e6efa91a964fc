"""Launchers by the key `launcher`. What an engine needs is imported where it is chosen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainer.sweeps import on_ray, on_slurm
from trainer.sweeps.driver import Launcher
from trainer.sweeps.elsewhere import Needs
from trainer.sweeps.processes import LocalProcesses
from trainer.system.device import has_device


def launcher_of(name: str, sweep: Path, needs: Callable[[Path], Needs]) -> Launcher:
    """Launcher of this name.

    Args:
        sweep: the sweep's folder.
        needs: what the job in a folder is to be given.
    """
    if name == "slurm":
        return on_slurm.Slurm(sweep, needs)
    if name == "ray":
        return on_ray.Ray(needs)
    return LocalProcesses()


def check(name: str) -> None:
    """Raises UserError where what a launcher needs is not installed."""
    if name == "slurm":
        on_slurm.check()
    elif name == "ray":
        on_ray.check()


def checked_here(name: str, job: dict[str, Any]) -> dict[str, Any]:
    """Configuration by which a job is checked on this machine, which need not have the device that
    the job will find on another."""
    return job if name == "local" or has_device(job["device"]) else {**job, "device": "cpu"}

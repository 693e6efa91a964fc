"""Checkpoints of one run: the newest states, the best weights."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Any

from trainer.checkpoints.file import write
from trainer.system.files import remove_half_written, sync_folder, write_bytes


def states_in(folder: Path) -> list[Path]:
    """The full states in a run's checkpoints/, oldest step first; by name, for a clock may have
    been set back and files copied."""
    found = folder.glob("step_*.pth")
    states = [p for p in found if re.fullmatch(r"step_(0|[1-9][0-9]*)\.pth", p.name)]
    return sorted(states, key=step_of)


def step_of(state: Path) -> int:
    """As its name tells it."""
    return int(state.stem.removeprefix("step_"))


class CheckpointFolder:
    """`step_<N>.pth`: full states, the newest `keep`. `last.pth`: the newest of them, a hard link
    where the file system has them. `best.pth`: weights and description.

    Whoever makes one for writing holds the run's lock: what a killed process left half-written is
    removed."""

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder, self.keep = folder, keep
        folder.mkdir(parents=True, exist_ok=True)
        remove_half_written(folder)

    @property
    def best(self) -> Path:
        return self.folder / "best.pth"

    def save_state(self, step: int, entries: dict[str, Any]) -> Path:
        path = self.folder / f"step_{step}.pth"
        write(path, entries)
        self._link_last(path)
        # One of a higher step could not be read or renamed before: it pushes none of ours out.
        done = [state for state in self.states() if step_of(state) <= step]
        for old in done[: -self.keep]:
            old.unlink()
        return path

    def save_best(self, entries: dict[str, Any]) -> None:
        write(self.best, entries)

    def states(self) -> list[Path]:
        return states_in(self.folder)

    def _link_last(self, path: Path) -> None:
        last, temporary = self.folder / "last.pth", self.folder / f".last.pth.tmp.{os.getpid()}"
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        try:
            os.link(path, temporary)
            os.replace(temporary, last)
            sync_folder(self.folder)
        except OSError:  # no hard links here (exFAT, some network drives)
            write_bytes(last, path.read_bytes())

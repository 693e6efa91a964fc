"""Folder of a run's checkpoints: the newest states, the best weights."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Any

from data.files import replace_durably
from trainer.checkpoints.file import write
from trainer.system.files import remove_half_written, write_bytes


def states_in(folder: Path) -> list[Path]:
    """Full states in a run's checkpoints/, lowest step first. Sorted by name: file times are wrong
    if the clock was changed or files were copied."""
    found = folder.glob("step_*.pth")
    states = [p for p in found if re.fullmatch(r"step_(0|[1-9][0-9]*)\.pth", p.name)]
    return sorted(states, key=step_of)


def step_of(state: Path) -> int:
    """Step in the file name of a state."""
    return int(state.stem.removeprefix("step_"))


class CheckpointFolder:
    """Checkpoints of a run. `step_<N>.pth`: full states, the newest `keep`. `last.pth`: the newest
    of them, a hard link if the file system supports it. `best.pth`: weights and description.

    The caller must hold the run's lock: temporary files of killed processes are removed.

    Args:
        is_reader: the caller only reads, and another process holds the lock.
    """

    def __init__(self, folder: Path, keep: int = 2, is_reader: bool = False) -> None:
        self.folder, self.keep = folder, keep
        if is_reader:
            return
        folder.mkdir(parents=True, exist_ok=True)
        remove_half_written(folder)

    @property
    def best(self) -> Path:
        return self.folder / "best.pth"

    def save_state(self, step: int, entries: dict[str, Any]) -> Path:
        """Write a full state, point last.pth to it, and delete older states beyond `keep`. Returns
        its path."""
        path = self.folder / f"step_{step}.pth"
        write(path, entries)
        self._link_last(path)
        # A state of a higher step could not be read or renamed; it does not count towards `keep`.
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
            replace_durably(temporary, last)
        except OSError:  # no hard links on this file system (exFAT, some network drives)
            write_bytes(last, path.read_bytes())

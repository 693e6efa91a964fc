"""Commands as users start them: from a folder of theirs, by the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.helpers import processes

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Finished:
    """A command that has ended."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        return self.stdout + self.stderr


def run_trainer(*argv: str, cwd: Path, timeout: float = 300, **env: str) -> Finished:
    """`python -m trainer ARGV` in a process of its own: a fork of one that has imported torch
    already, or, with an environment of its own, one that starts from nothing."""
    if not env:
        ended = processes.Command(cwd, argv).wait(timeout)
        return Finished(ended.code, ended.stdout, ended.stderr)
    done = subprocess.run(
        [sys.executable, "-m", "trainer", *argv],
        cwd=cwd, env=os.environ | env, capture_output=True, text=True, timeout=timeout,
    )  # fmt: skip
    return Finished(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True)
class TrainedRun:
    """A finished training and what it left."""

    command: Finished
    folder: Path

    @property
    def summary(self) -> dict[str, Any]:
        return read_json(self.folder / "summary.json")

    @property
    def rows(self) -> list[dict[str, Any]]:
        lines = (self.folder / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    @property
    def best(self) -> Path:
        return self.folder / "checkpoints" / "best.pth"


def read_json(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text())
    return content


def train(cwd: Path, *argv: str, folder: str = "run") -> TrainedRun:
    """Train into cwd/folder; fails with the program's own words if it does not end well."""
    command = run_trainer(*argv, f"hydra.run.dir={folder}", cwd=cwd)
    assert command.returncode == 0, command.output
    return TrainedRun(command, cwd / folder)

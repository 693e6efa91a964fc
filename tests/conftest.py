"""How the tests meet the program: as its users do, by the command line, from a folder of theirs."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmarks import processes

# Two test processes share two cores: one thread each, for them and for what they start. Before
# torch is imported, which reads it.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

# Packed images go to the user's cache folder: to one of these tests' own.
CACHE = Path(tempfile.mkdtemp(prefix="trainer-tests-cache-"))
for _folder in (CACHE, CACHE / "trainer", CACHE / "trainer" / "packs"):
    _folder.mkdir(exist_ok=True)
    _folder.chmod(0o777)  # some tests are another user for a while
os.environ["XDG_CACHE_HOME"] = str(CACHE)
atexit.register(shutil.rmtree, CACHE, ignore_errors=True)

# What a shell starts in the background has SIGINT ignored, and hands that on; tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent


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


@pytest.fixture(scope="session")
def default_run(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """The default training, as a newcomer starts it, shared by all tests that only look at it."""
    return train(tmp_path_factory.mktemp("default"))


@pytest.fixture
def dispatch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Finished]:
    """The command line inside this process, for words that end before any training starts."""
    monkeypatch.chdir(tmp_path)
    from trainer.cli import dispatch as commands

    def call(*argv: str) -> Finished:
        capsys.readouterr()
        try:
            code = commands.dispatch(list(argv))
        except SystemExit as exit:
            code = exit.code if isinstance(exit.code, int) else 1
        said = capsys.readouterr()
        return Finished(code, said.out, said.err)

    return call

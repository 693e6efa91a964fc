"""The command line in processes that can be killed, without waiting for torch each time.

`python -m trainer` takes three seconds to import torch and Hydra, a tiny training a third of one.
So one warm process imports them once, and each command is a fork of it. That is fair: what is
killed is a process like any other, the leader of a group of its own, and it dies by the kernel's
hand; all that it shares with the next one is the code that both have read. Threads, locks, files
and generators come into being after the fork.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import TextIO

PRELOADED = [
    "trainer.job", "trainer.cli.train", "trainer.cli.resume", "trainer.cli.evaluate",
    "trainer.cli.report", "trainer.inference.predict", "trainer.runs.report.write",
    "trainer.checkpoints.newest", "torch.utils.tensorboard",
    "tensorboard.summary.writer.event_file_writer", "hydra.core.plugins", "data.mnist",
    "data.augment.policy", "data.synthetic", "data.image_folder.load", "models.mlp", "models.lenet",
    "models.resnet", "trainer.__main__", "tests.helpers.composed_once", "tests.helpers.processes",
]  # fmt: skip

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(PRELOADED)

Prepare = Callable[[], object]


@dataclass(frozen=True)
class Ended:
    """A command that has ended; -9 as the code of one that was killed."""

    code: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        return self.stdout + self.stderr


class Command:
    """`python -m trainer ARGV` in the folder `cwd`.

    Args:
        prepare: called first in the new process, to spoil what the program relies on; pickled.
    """

    def __init__(self, cwd: Path, argv: Sequence[str], prepare: Prepare | None = None) -> None:
        # One thread each: the same bits at any load, and two of them may run at a time.
        os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
        self.files = [_new_file("out"), _new_file("err")]
        self.process: ForkServerProcess = _server.Process(
            target=_command, daemon=True,
            args=(str(cwd), list(argv), dict(os.environ), self.files, prepare),
        )  # fmt: skip
        self.process.start()
        assert self.process.pid is not None
        self.pid = self.process.pid

    @property
    def stdout(self) -> str:
        return self.files[0].read_text(errors="replace")

    @property
    def stderr(self) -> str:
        return self.files[1].read_text(errors="replace")

    @property
    def output(self) -> str:
        return self.stdout + self.stderr

    @property
    def is_running(self) -> bool:
        return self.process.is_alive()

    @property
    def leads_group(self) -> bool:
        """Whether it has made a group of its own, which it does first of all."""
        with contextlib.suppress(ProcessLookupError):
            return os.getpgid(self.pid) == self.pid
        return False

    def send(self, number: int, to_group: bool = False) -> None:
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if to_group else os.kill)(self.pid, number)

    def kill(self) -> Ended:
        """SIGKILL to the whole group; the leader too if it has not made one yet."""
        self.send(signal.SIGKILL, to_group=True)
        self.send(signal.SIGKILL)
        return self.wait()

    def wait(self, timeout_s: float = 300) -> Ended:
        self.process.join(timeout_s)
        if self.is_running:
            self.kill()
            raise TimeoutError(f"not done after {timeout_s} s:\n{self.output}")
        assert self.process.exitcode is not None
        return Ended(self.process.exitcode, self.stdout, self.stderr)

    def wait_for(self, condition: Callable[[], object], timeout_s: float = 300) -> bool:
        """Until it holds, looking every two milliseconds; False if the command ended before."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if not self.is_running:
                return bool(condition())
            if time.monotonic() > deadline:
                self.kill()
                raise TimeoutError(f"waited {timeout_s} s:\n{self.output}")
            time.sleep(0.002)
        return True


def run(cwd: Path, *argv: str, prepare: Prepare | None = None) -> Ended:
    """The command from its beginning to its end."""
    return Command(cwd, argv, prepare).wait()


def train(cwd: Path, *argv: str, prepare: Prepare | None = None) -> Ended:
    """A training in cwd/run, which must end well."""
    ended = run(cwd, *argv, "hydra.run.dir=run", prepare=prepare)
    assert ended.code == 0, ended.output
    return ended


def _new_file(kind: str) -> Path:
    descriptor, name = tempfile.mkstemp(prefix="command-", suffix=f".{kind}")
    os.close(descriptor)
    file = Path(name)
    atexit.register(file.unlink, missing_ok=True)
    return file


def _set_stream(name: str, stream: TextIO) -> None:
    """Under both of its names: the second keeps it open while the first is replaced."""
    setattr(sys, name, stream)
    setattr(sys, f"__{name}__", stream)


def _command(
    cwd: str,
    argv: list[str],
    environment: dict[str, str],
    files: Sequence[Path],
    prepare: Prepare | None,
) -> None:
    """What `python -m trainer` does in a new process: its folder, streams and environment."""
    os.setpgid(0, 0)
    multiprocessing.current_process().daemon = False  # a sweep starts processes of its own
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.path.insert(0, cwd)
    for number, file in enumerate(files, 1):
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND)
        os.dup2(descriptor, number)
        os.close(descriptor)
    _set_stream("stdout", open(1, "w", encoding="utf-8", closefd=False))  # noqa: SIM115
    _set_stream("stderr", open(2, "w", 1, "utf-8", "backslashreplace", closefd=False))  # noqa: SIM115
    sys.argv = ["trainer", *argv]
    code: object = 1
    try:
        if prepare:
            prepare()
        from trainer.__main__ import main

        main()
    except SystemExit as exit:
        code = exit.code
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)

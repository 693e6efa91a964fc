"""Jobs of a sweep on this machine: each a process of its own, forked from this one, which has
imported everything and loaded the data before.

What a fork needs of its parent: torch's pool of threads has not been started (a child with several
threads would wait for them for ever), CUDA has not been initialised, and no thread runs.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import threadpoolctl
import torch
from tqdm import tqdm

from trainer.system.distributed import end_with_parent
from trainer.system.signals import NUMBERS
from trainer.system.threads import threads_at_start
from trainer.text.printable import guarded
from trainer.training.compiling import compiled

LOG_NAME = "terminal.log"  # of a job: what it would have printed
GRACE_S = 30.0  # for a job to reach the end of its batch and save its state
ENTRY = "trainer.__main__"  # by name: it stands above, and imports this

# Imported at a training's first step or last; each job would do it again.
PRELOADED = (
    "torch.utils.tensorboard", "tensorboard.summary.writer.event_file_writer", "PIL.Image",
    "trainer.builders.resumed", "trainer.monitoring.tensorboard", "trainer.job",
)  # fmt: skip


class LocalProcesses:
    """Processes on this machine that do what `python -m trainer` does."""

    def __init__(self) -> None:
        self.running: dict[int, BaseProcess] = {}
        self.context = context()

    def start(self, key: int, words: Sequence[str], log: Path, env: Mapping[str, str]) -> None:
        """Start a command.

        Args:
            key: by which `ended` names it.
            log: file that takes what it prints.
            env: environment variables to be set for it.
        """
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # what is in a buffer would be printed twice
        parent = os.getpid() if self.context.get_start_method() == "fork" else 0
        process = self.context.Process(target=_child, args=(list(words), log, dict(env), parent))
        process.start()
        self.running[key] = process

    def going(self, folders: Mapping[int, Path]) -> list[int]:
        """None: all end with the process that started them."""
        return []

    def ended(self, timeout_s: float) -> list[tuple[int, int]]:
        """Keys and exit codes of those that have ended, -9 of one that was killed; waits for the
        first."""
        if not self.running:
            time.sleep(timeout_s)
        wait([process.sentinel for process in self.running.values()], timeout=timeout_s)
        found = []
        for key, process in list(self.running.items()):
            if process.exitcode is not None:
                process.join()
                found.append((key, process.exitcode))
                process.close()
                del self.running[key]
        return found

    def send(self, key: int, number: int) -> None:
        """Send a signal to one that has not ended."""
        if key in self.running:
            _send(self.running[key], number)

    def stop(self, number: int) -> list[tuple[int, int]]:
        """Pass a signal on to all, and kill what has not ended some time later."""
        for process in self.running.values():
            _send(process, number)
        deadline, found = time.monotonic() + GRACE_S, []
        while self.running and time.monotonic() < deadline:
            found += self.ended(0.5)
        for process in self.running.values():
            _send(process, signal.SIGKILL)
        while self.running:
            found += self.ended(0.5)
        return found


def context() -> Any:
    """Fork of this process; of a clean one that has imported the same, where this one has threads
    or the system cannot fork safely."""
    if sys.platform == "linux" and len(os.listdir("/proc/self/task")) <= 1 + threads_of_numpy():
        return multiprocessing.get_context("fork")
    if sys.platform == "win32":
        return multiprocessing.get_context("spawn")
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload([*PRELOADED, "trainer.cli.train"])
    return found


def threads_of_numpy() -> int:
    """Threads that NumPy's BLAS has started. It stops them before a fork, and starts them again."""
    pools = threadpoolctl.threadpool_info()
    return sum(pool["num_threads"] - 1 for pool in pools if pool["internal_api"] == "openblas")


def warm_up(compiles: bool = False) -> None:
    """Import what every job will, once, and leave torch's pool of threads unstarted.

    Args:
        compiles: the jobs compile their steps.
    """
    threads_at_start()  # before the number is changed
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # its own has semaphores, which ended jobs would leave behind
    for name in PRELOADED:
        importlib.import_module(name)
    if compiles:
        # The compiler makes a bar, whose thread looks after it for ever.
        tqdm.monitor_interval, interval = 0, tqdm.monitor_interval
        compiled.warm_up()
        tqdm.monitor_interval = interval


def _send(process: BaseProcess, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        if process.pid is not None:
            os.kill(process.pid, number)


def _child(words: list[str], log: Path, env: dict[str, str], parent: int) -> None:
    """In the new process: run a command and exit with its code.

    Args:
        parent: its process; 0: not known, behind a fork server.
    """
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)  # Ctrl-C reaches the sweep alone, which passes it on
    end_with_parent()
    if parent and os.getppid() != parent:  # it died before
        raise SystemExit(128 + signal.SIGTERM)
    for number in NUMBERS:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update(env)
    _print_to(log)
    sys.argv = ["trainer", *words]
    code = 0
    try:
        importlib.import_module(ENTRY).main()
    except SystemExit as exited:
        code = exited.code if isinstance(exited.code, int) else int(exited.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # the disk may be full
            stream.flush()
    raise SystemExit(code)


def _print_to(log: Path) -> None:
    """Standard output and error into a file, also what C++ and the fault handler write."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for number in (1, 2):
        os.dup2(descriptor, number)
    os.close(descriptor)
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = open(number, "w", encoding="utf-8", buffering=1, closefd=False)  # noqa: SIM115
        setattr(sys, f"__{name}__", stream)
        setattr(sys, name, guarded(stream))

"""A job's command where a scheduler has put it: a process below the scheduler's own.

Imports nothing but Python's library: it begins at once, on a node that may be slow to read.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Needs:
    """What a job is to be given.

    Attributes:
        threads: that it computes with alone, since others would change its bits.
        device: as the key says.
    """

    threads: int
    device: str

    def gpus(self, has_gpus: Callable[[], bool]) -> int:
        """Number of GPUs.

        Args:
            has_gpus: asks where the job goes to, for device=auto.
        """
        kind = self.device.partition(":")[0]
        return int(kind == "cuda" or (kind == "auto" and has_gpus()))


def begin(
    words: Sequence[str], log: str, threads: int, folder: str | None = None
) -> subprocess.Popen[bytes]:
    """Start `python -m trainer WORDS`.

    Args:
        log: file that takes what it prints.
        threads: for `num_threads=0`.
        folder: to start in; None: the current one.
    """
    env = {
        **os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
    }  # fmt: skip
    with open(log, "ab") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "trainer", *words], cwd=folder, env=env,
            stdin=subprocess.DEVNULL, stdout=out, stderr=out, preexec_fn=_end_with_parent,
        )  # fmt: skip


def run(words: Sequence[str], log: str, threads: int, folder: str) -> int:
    """The same, to its end. Returns its exit code. KeyboardInterrupt, by which Ray cancels a task,
    stops it; Ray raises it between two lines of Python, so none may wait for long."""
    process = begin(words, log, threads, folder)
    try:
        while process.poll() is None:
            time.sleep(0.2)
        return process.wait()
    except KeyboardInterrupt:
        process.terminate()
        return process.wait()


def _end_with_parent() -> None:
    """Have the kernel send SIGTERM when the parent dies, so that the state is saved."""
    with contextlib.suppress(OSError, AttributeError):  # not Linux
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

"""Starts the child process that parses a foreign file, and judges how it ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from models.weights.child import NO_ROOM
from models.weights.foreign import WeightsError, printable

SCRIPT = Path(__file__).with_name("child.py")
MEMORY_SLACK = 256 << 20  # what a parser takes besides the arrays, bytes
SECONDS_AT_LEAST = 60
BYTES_PER_SECOND = 5e6  # a parser slower than this on its input is stuck


@contextmanager
def parsed(
    path: Path, kind: Literal["mat", "torch"], num_bytes: int
) -> Iterator[tuple[dict[str, Any], Callable[[int], np.ndarray]]]:
    """Parse a file in a child process with limits on memory, CPU time and time.

    Args:
        num_bytes: what the file's content takes in memory; the limits follow from it.

    Yields:
        The child's report, and a function from the numbers in it to arrays. These are mapped
        read-only from a temporary folder that is gone after the with block.

    Raises:
        WeightsError: the child refused the file, died, or hit a limit.
    """
    with _temporary_folder(path) as folder:
        _run(path, kind, num_bytes, folder)
        report = _report(path, folder)

        def array(number: int) -> np.ndarray:
            return np.load(folder / f"{int(number)}.npy", mmap_mode="r", allow_pickle=False)

        yield report, array


@contextmanager
def _temporary_folder(path: Path) -> Iterator[Path]:
    try:
        made = tempfile.TemporaryDirectory(prefix="weights-", ignore_cleanup_errors=True)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise WeightsError(
            f"{path}: there is no temporary folder to parse it in: {where}{error.strerror}. Set "
            "TMPDIR to a folder that may be written to, on a disk with room"
        ) from error
    with made as name:
        yield Path(name)


def _run(path: Path, kind: str, num_bytes: int, folder: Path) -> None:
    cpu_s = SECONDS_AT_LEAST + int(num_bytes / BYTES_PER_SECOND)
    # Twice: a parser holds an array and its converted copy.
    memory = 2 * num_bytes + MEMORY_SLACK
    command = [sys.executable, str(SCRIPT), kind, str(path.absolute()), str(folder)]
    try:
        with (folder / "stderr").open("wb") as stderr:
            done = subprocess.run(
                [*command, str(memory), str(cpu_s)],
                cwd=folder,  # a module in the user's folder must shadow nothing
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                timeout=4 * cpu_s,  # the disk may be slow, the machine busy
                check=False,
            )
    except subprocess.TimeoutExpired as error:
        raise WeightsError(
            f"{path}: not read after {4 * cpu_s:.0f} s: damaged or hostile"
        ) from error
    if done.returncode:
        raise WeightsError(f"{path}: {_death(done.returncode, folder)}; nothing of it was used")


def _environment() -> dict[str, str]:
    """Threads of libraries only take memory here."""
    single = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    kept = {k: v for k, v in os.environ.items() if not k.startswith("TORCH_FORCE_")}
    return {**kept, **single}


def _death(code: int, folder: Path) -> str:
    if code < 0:
        name = signal.Signals(-code).name
        hints = {"SIGXCPU": " (too much CPU time)", "SIGKILL": " (out of memory?)"}
        return f"damaged or hostile: parsing it ended with {name}{hints.get(name, '')}"
    if code == NO_ROOM:
        return f"no room to unpack it in {folder.parent}; set TMPDIR to a larger folder"
    last_line = (folder / "stderr").read_text(errors="replace")[-2000:].strip().splitlines()[-1:]
    return f"the process that parses it failed: {printable(''.join(last_line)) or code}"


def _report(path: Path, folder: Path) -> dict[str, Any]:
    try:
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: the process that parses it left no report") from error
    if "error" in report:
        raise WeightsError(f"{path}: {printable(report['error'], 2000)}")
    return report

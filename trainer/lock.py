"""One process at a time in a run's folder."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from trainer.errors import UserError

try:
    import fcntl
except ImportError:  # Windows: there, nothing stops a second process
    fcntl = None  # type: ignore[assignment]

NAME = ".lock"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the folder until the end, or until the process dies, however it does.

    A POSIX lock (lockf): a child does not inherit it, so that none can keep it after its parent
    was killed. Closing any descriptor of the file would drop it, so nothing else opens it.

    Raises UserError that names the process which has it.
    """
    if fcntl is None:
        yield
        return
    try:
        descriptor = os.open(folder / NAME, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written to: {error.strerror}.") from error
    try:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 1000, 0).decode(errors="replace").strip()
            raise UserError(f"{folder}: is in use by {holder or 'another process'}.") from None
        except OSError:  # a network drive without locks
            pass
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()} since {since}\n"
                  .encode(), 0)  # fmt: skip
        yield
    finally:
        os.close(descriptor)


def is_locked(folder: Path) -> bool:
    """Whether a process is at work in the folder."""
    if fcntl is None or not (folder / NAME).is_file():
        return False
    with open(folder / NAME, "rb+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False

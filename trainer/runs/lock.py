"""One process at a time in a run's folder."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from trainer.errors import UserError, exit_code

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
    Not one of filelock, which uses flock: nobody could ask who has it without taking it.

    Raises UserError that names the process which has it.
    """
    if fcntl is None:
        yield
        return
    try:
        descriptor = os.open(folder / NAME, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        if exit_code(error) == 1:  # no fault of the folder's
            raise
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
        words = f"process {os.getpid()} on {socket.gethostname()} since {since}\n"
        with contextlib.suppress(OSError):  # a full disk; the lock holds without words
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, words.encode(), 0)
        yield
    finally:
        os.close(descriptor)


def is_locked(folder: Path) -> bool:
    """True if another process is at work in the folder. Asks without taking the lock, which would
    refuse a run that starts at this moment, and needs no more than the right to read. Not for the
    process that holds it: closing the file would drop it."""
    if fcntl is None:
        return False
    try:
        descriptor = os.open(folder / NAME, os.O_RDONLY)
    except OSError:  # no such file, or one that is not ours to read
        return False
    try:
        return _holder_asked(descriptor)
    except OSError:  # a network drive without locks
        return False
    finally:
        os.close(descriptor)


def _holder_asked(descriptor: int) -> bool:
    """F_GETLK: could a lock for writing on the whole file be had? struct flock is in another order
    on macOS; zeros are the file's beginning, its end and no process."""
    if sys.platform == "darwin":
        layout, wanted, kind = "qqihh", (0, 0, 0, fcntl.F_WRLCK, 0), 3
    else:
        layout, wanted, kind = "hhqqi", (fcntl.F_WRLCK, 0, 0, 0, 0), 0
    answer = fcntl.fcntl(descriptor, fcntl.F_GETLK, struct.pack(layout, *wanted))
    return bool(struct.unpack(layout, answer)[kind] != fcntl.F_UNLCK)

"""How a command ends when it does not end well. The dispatcher turns each into an exit code."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator

from trainer.text.printable import in_lines


class UserError(Exception):
    """The user's input is wrong (exit code 2). The message names the key or the file, the value,
    what is allowed and the way out; it is all that the user sees."""


class TrainingError(Exception):
    """The run cannot go on (exit code 1), for a reason that the message tells whole."""


class Stopped(BaseException):
    """SIGINT, SIGTERM or SIGHUP arrived and what is to be kept is saved (exit code 128 + signal
    number).

    Like KeyboardInterrupt it is no Exception: whoever catches those must not swallow it."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by signal {signal_number}")
        self.exit_code = 128 + signal_number


# EFBIG: the limit that `ulimit -f` sets. EDQUOT: the user's share of the disk.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What a path can be wrong in: the user's to mend, exit code 2. All else is the machine's.
OF_THE_PATH = {
    errno.ENOENT: "Give a path that exists.",
    errno.ENOTDIR: "A part of this path is a file; give another.",
    errno.EISDIR: "This is a folder; give a file.",
    errno.EEXIST: "Give another name, or move what is there.",
    errno.ENOTEMPTY: "Give another name, or move what is there.",
    errno.ENAMETOOLONG: "Give a shorter one.",
    errno.ELOOP: "Its links lead in a circle.",
    errno.EACCES: "Ask its owner for the right to it, or give another path.",
    errno.EPERM: "Ask its owner for the right to it, or give another path.",
    errno.EROFS: "Give a path on a disk that can be written to.",
}
OF_THE_MACHINE = {
    **dict.fromkeys(
        NO_ROOM, "Make room there (`df -h`, `quota`), or name a place on another disk."
    ),
    errno.EIO: "The disk or its connection fails: look at it before anything else is written.",
    errno.ESTALE: "The network drive has lost it; run the command again.",
    errno.EMFILE: "Raise the limit of open files (`ulimit -n`).",
    errno.ENFILE: "Close other programs: the machine has no more open files to give.",
    errno.ENOMEM: "End other programs: the machine has no more memory to give.",
}


@contextlib.contextmanager
def named(path: str | os.PathLike[str]) -> Iterator[None]:
    """Gives an OSError that names no file this one: of what fails at a write, a sync or a close,
    the system tells the reason alone."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = os.fspath(path)
        raise


def fault_in(error: BaseException | None) -> OSError | None:
    """The OSError that an error is or was raised from: logging makes a ValueError of one."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__
    return error


def in_words(error: OSError) -> str:
    """Path, reason and way out, for people."""
    where = "a file that the system does not name"
    if error.filename is not None and not isinstance(error.filename, int):
        where = os.fsdecode(error.filename)
    reason = error.strerror or str(error) or type(error).__name__
    way = {**OF_THE_PATH, **OF_THE_MACHINE}.get(error.errno or 0, "Run the command again.")
    return f"{where}: {reason}.\n{way}"


def exit_code(error: Exception) -> int:
    """2 if the user's input or path is wrong, 1 if the training or the machine failed."""
    of_user = isinstance(error, OSError) and error.errno in OF_THE_PATH
    return 2 if of_user or isinstance(error, UserError) else 1


def complain(message: object) -> None:
    """A message on stderr, if anybody is there to hear it."""
    with contextlib.suppress(OSError, ValueError):
        print(in_lines(message), file=sys.stderr, flush=True)

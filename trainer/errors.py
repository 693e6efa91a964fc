"""Exceptions that end a command, and their messages and exit codes."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator

from trainer.text.printable import in_lines


class UserError(Exception):
    """Wrong input of the user (exit code 2). The message names the key or file, its value, what is
    allowed and what to do; the user sees nothing else."""


class TrainingError(Exception):
    """Failure of a training (exit code 1). The message gives the whole reason."""


class Stopped(BaseException):
    """Stop by SIGINT, SIGTERM or SIGHUP, after the state was saved (exit code 128 + signal number).

    A BaseException, as KeyboardInterrupt is, so that `except Exception` does not catch it."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by signal {signal_number}")
        self.exit_code = 128 + signal_number


class Paused(Stopped):
    """Stop after the epoch that `stop_epoch` names, after the state was saved (exit code 0)."""

    def __init__(self, epoch: int) -> None:
        BaseException.__init__(self, f"stopped after epoch {epoch} (stop_epoch)")
        self.exit_code = 0


# EFBIG: the limit that `ulimit -f` sets. EDQUOT: the user's share of the disk.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Errors in a path that the user can correct (exit code 2). All others are the machine's.
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
        NO_ROOM, "Free disk space there (`df -h`, `quota`), or give a path on another disk."
    ),
    errno.EIO: "The disk or its connection fails: check it before anything else is written.",
    errno.ESTALE: "The network drive has lost the file; run the command again.",
    errno.EMFILE: "Raise the limit of open files (`ulimit -n`).",
    errno.ENFILE: "Close other programs: the machine's limit of open files is reached.",
    errno.ENOMEM: "Close other programs: the machine has no free memory.",
}


@contextlib.contextmanager
def named(path: str | os.PathLike[str]) -> Iterator[None]:
    """Context that sets `path` as the file name of an OSError that has none, as those of write,
    fsync and close."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = os.fspath(path)
        raise


def fault_in(error: BaseException | None) -> OSError | None:
    """First fault of a file or the machine in the chain of causes, the error itself included; None
    if there is none. An OSError without a number, such as jinja2's TemplateNotFound, is none."""
    while error is not None and not (isinstance(error, OSError) and error.errno is not None):
        error = error.__cause__
    return error


def in_words(error: OSError) -> str:
    """Message of an OSError for the user: path, reason, and what to do."""
    where = "a file that the system does not name"
    if error.filename is not None and not isinstance(error.filename, int):
        where = os.fsdecode(error.filename)
    reason = error.strerror or str(error) or type(error).__name__
    way = {**OF_THE_PATH, **OF_THE_MACHINE}.get(error.errno or 0, "Run the command again.")
    return f"{where}: {reason}.\n{way}"


def exit_code(error: Exception) -> int:
    """Code 2 if the user's input or path is wrong, 1 if the training or the machine failed."""
    of_user = isinstance(error, OSError) and error.errno in OF_THE_PATH
    return 2 if of_user or isinstance(error, UserError) else 1


def complain(message: object) -> None:
    """Print a message to stderr; a closed stderr is ignored."""
    with contextlib.suppress(OSError, ValueError):
        print(in_lines(message), file=sys.stderr, flush=True)


def first_line(error: BaseException) -> str:
    """First line of what an error says; with its class if it is not one of the foreseen ones."""
    said = str(error).strip().partition("\n")[0]
    if isinstance(error, TrainingError | UserError | Stopped):
        return said
    return f"{type(error).__name__}: {said}" if said else type(error).__name__

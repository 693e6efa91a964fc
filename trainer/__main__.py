"""The command line: a bare first word is a command, anything else is Hydra's.

Imports nothing heavy, so that `--help` and a mistyped word answer at once.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def put_project_first() -> None:
    """`python -m` puts the current folder first on sys.path, where a user's own `data.py` or
    `models/` would be imported instead of ours."""
    here = [entry for entry in sys.path if Path(entry or ".").resolve() == Path.cwd()]
    if Path.cwd() != ROOT:
        sys.path = [entry for entry in sys.path if entry not in here] + here
    if str(ROOT) in sys.path:
        sys.path.remove(str(ROOT))
    sys.path.insert(0, str(ROOT))


def open_closed() -> None:
    """Open a null device for stdin, stdout or stderr where it is closed (`>&-`, cron, daemons):
    Python makes None of it, and the next file opened would get its number and its output."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
        if getattr(sys, name) is None:
            stream = open(os.devnull, "w" if number else "r", encoding="utf-8")  # noqa: SIM115
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


def main() -> None:
    """The `trainer` console script and `python -m trainer`."""
    open_closed()
    put_project_first()
    from trainer.system import start
    from trainer.text.printable import guarded

    start.begin()
    sys.stdout, sys.stderr = guarded(sys.stdout), guarded(sys.stderr)
    # torch's C++ tells a profiled training of memory that it had before; read when it is loaded.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    try:
        from trainer.cli.dispatch import dispatch

        code = dispatch(sys.argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:  # before the command itself listens
        code = 130
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        mute()
        code = 0
    except OSError as error:  # the disk that stdout goes to is full, the terminal is gone
        from trainer.errors import complain

        mute()
        complain(f"stdout: cannot be written: {error.strerror}.")
        code = 1
    sys.exit(code)


def mute() -> None:
    """Discard what stdout still holds: at exit it would fail once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()

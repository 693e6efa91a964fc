"""SIGINT, SIGTERM and SIGHUP on their way from the kernel to an exit code."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Container, Iterator
from types import FrameType
from typing import Any

from trainer.errors import Stopped

Handler = Callable[[int, FrameType | None], Any]

HANG_UP: int | None = getattr(signal, "SIGHUP", None)  # the terminal was closed; not on Windows
NUMBERS = (signal.SIGINT, signal.SIGTERM, *([HANG_UP] if HANG_UP else []))


class StopSignals:
    """The signals that ask for an end: `raised` where a command can be left anywhere, `noted` where
    a training has to reach a place at which its state is whole.

    received: the signal that came, None as long as there was none.
    when_noted: called from the handler, so it may do no more than set what others look at.
    """

    def __init__(self) -> None:
        self.received: int | None = None

    def is_received(self) -> bool:
        return self.received is not None

    @contextlib.contextmanager
    def raised(self) -> Iterator[None]:
        """Each signal as Stopped, wherever the program is: what it has begun (a download, packing)
        is tidied up on the way out.

        A library that is interrupted while it tidies up may raise something else in its place, as
        OmegaConf does. It was the signal all the same, so that ends as Stopped, too.
        """
        # What is ignored by order of the shell (nohup, a script's background) stays ignored.
        with self._handled_by(self._raise, unless_ignored=NUMBERS):
            try:
                yield
            except Stopped:
                raise
            except BaseException as error:
                if self.received is None:
                    raise
                raise Stopped(self.received) from error
            if self.received is not None:  # and somebody swallowed it
                raise Stopped(self.received)

    @contextlib.contextmanager
    def noted(self) -> Iterator[StopSignals]:
        """The first signal is kept in `received`; the second acts as if nobody had noted them.
        SIGINT and SIGTERM also where they are ignored: a training in a script's background can be
        asked to stop; but what nohup started is to outlive its terminal."""
        with self._handled_by(self._note, unless_ignored=(HANG_UP,)):
            for handler in list(self.before.values()):
                owner = getattr(handler, "__self__", None)
                if isinstance(owner, StopSignals) and owner.received is not None:
                    self._note(owner.received, None)  # it came earlier and was swallowed
            yield self

    @contextlib.contextmanager
    def _handled_by(self, handler: Handler, unless_ignored: Container[Any]) -> Iterator[None]:
        """A handler that is not Python's, None, is left alone."""
        found = {number: signal.getsignal(number) for number in NUMBERS}
        self.before = {
            number: was
            for number, was in found.items()
            if was is not None and not (was == signal.SIG_IGN and number in unless_ignored)
        }
        try:
            for number in self.before:
                signal.signal(number, handler)
            yield
        finally:
            self._restore()

    def _raise(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        raise Stopped(number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self._restore()
        if number == HANG_UP:  # comes twice, from the kernel and from the shell
            signal.signal(number, signal.SIG_IGN)
        announce(number)

    def _restore(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)


def announce(number: int) -> None:
    """Say that the signal was heard. From a handler: no stream that the program may be writing to
    at this moment, no lock, one system call."""
    who, again = ("", "Ctrl-C again")
    if number != signal.SIGINT:
        who, again = f"{signal.Signals(number).name}: ", "a second signal"
    line = f"{who}stopping after this batch; {again} stops now\n".encode()
    with contextlib.suppress(OSError):  # the terminal may be what is gone
        erase = b"\r\x1b[K" if os.isatty(2) else b""  # the bar, and the ^C that was typed
        os.write(2, erase + line)

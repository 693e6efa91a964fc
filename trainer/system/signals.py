"""Handling of SIGINT, SIGTERM and SIGHUP."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Container, Iterator
from types import FrameType
from typing import Any

from trainer.errors import Stopped
from trainer.system.distributed import is_other

Handler = Callable[[int, FrameType | None], Any]

REPEATED_S = 1.0  # two signals in so many seconds are one that was sent twice
HANG_UP: int | None = getattr(signal, "SIGHUP", None)  # the terminal was closed; not on Windows
NUMBERS = (signal.SIGINT, signal.SIGTERM, *([HANG_UP] if HANG_UP else []))


class StopSignals:
    """Stop signals: `raised` where a command may end anywhere, `noted` where a training must first
    reach a point at which its state is consistent.

    Attributes:
        received: number of the signal that arrived; None if there was none.
        noted_number: the same, before the other processes of the training know of it.
        is_shared: True: there are such, and `received` is set once all know.
    """

    def __init__(self, is_shared: bool = False) -> None:
        self.received: int | None = None
        self.noted_number: int | None = None
        self.is_shared = is_shared

    def is_received(self) -> bool:
        return self.received is not None

    @contextlib.contextmanager
    def raised(self) -> Iterator[None]:
        """Context in which a signal raises Stopped at once; a download or packing in progress is
        cleaned up by the exception.

        An interrupted library may raise another exception instead, as OmegaConf does; after a
        signal, that is turned into Stopped as well.
        """
        # Signals that the shell has ignored (nohup, background jobs of a script) stay ignored.
        with self._handled_by(self._raise, unless_ignored=NUMBERS):
            try:
                yield
            except Stopped:
                raise
            except BaseException as error:
                if self.received is None:
                    raise
                raise Stopped(self.received) from error
            if self.received is not None:  # some code caught Stopped
                raise Stopped(self.received)

    @contextlib.contextmanager
    def noted(self) -> Iterator[StopSignals]:
        """Context in which the first signal is stored in `received`; the second has its previous
        effect, unless it follows within a second and is not SIGINT: a closed terminal, and torchrun
        under Slurm, send each twice. SIGINT and SIGTERM are handled even if they were ignored, so
        that a training in the background of a script can be stopped; an ignored SIGHUP (nohup)
        stays ignored."""
        with self._handled_by(self._note, unless_ignored=(HANG_UP,)):
            for handler in list(self.before.values()):
                owner = getattr(handler, "__self__", None)
                if isinstance(owner, StopSignals) and owner.received is not None:
                    self._note(owner.received, None)  # it arrived earlier, and Stopped was caught
                    break
            yield self

    @contextlib.contextmanager
    def _handled_by(self, handler: Handler, unless_ignored: Container[Any]) -> Iterator[None]:
        """Context with `handler` installed, except where the previous one is not Python's (None) or
        ignores a signal in `unless_ignored`."""
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
        if self.noted_number is None:
            self.noted_number, self.noted_at = number, time.monotonic()
            if not self.is_shared:
                self.received = number
            if not is_other():
                announce(number)
        elif number == signal.SIGINT or time.monotonic() - self.noted_at > REPEATED_S:
            self._restore()
            signal.raise_signal(number)

    def _restore(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)


def announce(number: int) -> None:
    """Print a line about the signal. Called from a handler, so it takes no lock, uses no stream
    that the program may be writing to, and makes one system call."""
    who, again = ("", "Ctrl-C again")
    if number != signal.SIGINT:
        who, again = f"{signal.Signals(number).name}: ", "a second signal"
    line = f"{who}stopping after this batch; {again} stops now\n".encode()
    with contextlib.suppress(OSError):  # the terminal may be closed
        erase = b"\r\x1b[K" if os.isatty(2) else b""  # the bar, and the ^C that was typed
        os.write(2, erase + line)

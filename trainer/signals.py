"""SIGINT and SIGTERM on their way from the kernel to an exit code."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from trainer.errors import Stopped

Handler = Callable[[int, FrameType | None], Any]


class StopSignals:
    """The two signals: `raised` where a command can be left anywhere, `noted` where a training has
    to reach a place at which its state is whole.

    received: the signal that came, None as long as there was none.
    """

    def __init__(self) -> None:
        self.received: int | None = None

    @contextlib.contextmanager
    def raised(self) -> Iterator[None]:
        """Each signal as Stopped, wherever the program is: what it has begun (a download, packing)
        is tidied up on the way out.

        A library that is interrupted while it tidies up may raise something else in its place, as
        OmegaConf does. It was the signal all the same, so that ends as Stopped, too.
        """
        # One that is ignored by order of the shell (nohup, a script's background) stays ignored.
        with self._handled_by(self._raise, unless=signal.SIG_IGN):
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
        """The first signal is kept in `received`; the second acts as if nobody had noted them."""
        with self._handled_by(self._note):
            for handler in list(self.before.values()):
                owner = getattr(handler, "__self__", None)
                if isinstance(owner, StopSignals) and owner.received is not None:
                    self._note(owner.received, None)  # it came earlier and was swallowed
            yield self

    @contextlib.contextmanager
    def _handled_by(self, handler: Handler, unless: Any = None) -> Iterator[None]:
        """None: a handler that is not Python's is left alone."""
        found = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        self.before = {number: was for number, was in found.items() if was not in (None, unless)}
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

    def _restore(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

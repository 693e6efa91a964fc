"""What a person at a terminal sees while it takes time: a line at once, then bars. Nobody else sees
any of it. It goes to `sys.__stderr__`: the stream over it lets nothing through that steers."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from tqdm import tqdm

DELAY_S = 0.5  # what is done sooner needs no bar


def is_watched() -> bool:
    """Whether a person looks at stderr."""
    return sys.__stderr__ is not None and sys.stderr.isatty()


def starting() -> None:
    """Said before torch is imported, which takes seconds."""
    if is_watched():
        print("starting ...", file=sys.stderr, flush=True)


class Terminal:
    """stderr for a bar, which is no reason to end anything: a terminal that was closed or a pipe
    that nobody reads takes no more of it. Not `sys.stderr`, which lets no bar through.

    Args:
        is_over: from when on it is True nothing is drawn any more: a signal said something there.
    """

    def __init__(self, is_over: Callable[[], bool] = lambda: False) -> None:
        self.is_over = is_over

    def write(self, text: str) -> None:
        if not self.is_over():
            with contextlib.suppress(OSError, ValueError):
                stderr().write(text)

    def flush(self) -> None:
        if not self.is_over():
            with contextlib.suppress(OSError, ValueError):
                stderr().flush()

    def __eq__(self, other: object) -> bool:
        """There is one terminal: tqdm asks which bars stand on it."""
        return isinstance(other, Terminal)

    def __hash__(self) -> int:
        return hash(Terminal)

    def __getattr__(self, name: str) -> Any:
        return getattr(stderr(), name)


def stderr() -> TextIO:
    return sys.__stderr__ or sys.stderr


def bar(
    total: int,
    what: str,
    unit: str = "batch",
    initial: int = 0,
    shown: bool | None = None,
    delay: float | None = None,
    is_over: Callable[[], bool] = lambda: False,
) -> tqdm[Any]:
    """A bar on a terminal, gone once it is closed; elsewhere one that shows nothing.

    Args:
        initial: how many were done before.
        shown: None = only where a person looks at it.
        delay: seconds before it is drawn; None = DELAY_S.
        is_over: see Terminal.
    """
    from tqdm import tqdm

    shown = is_watched() if shown is None else shown
    return tqdm(
        total=total, desc=what, unit=unit, initial=initial, leave=False,
        delay=DELAY_S if delay is None else delay,
        disable=not shown, file=Terminal(is_over),
    )  # fmt: skip


@contextlib.contextmanager
def above() -> Iterator[None]:
    """What is printed here stands above the bars."""
    from tqdm import tqdm

    with tqdm.external_write_mode(Terminal()):
        yield

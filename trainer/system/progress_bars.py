"""Progress bars on a terminal. They write to `sys.__stderr__`, since the stream in `sys.stderr`
escapes control characters."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TextIO

from trainer.system.distributed import is_other

if TYPE_CHECKING:
    from tqdm import tqdm

DELAY_S = 0.5  # shorter work shows no bar


def is_watched() -> bool:
    """True if stderr is a terminal that this process may draw on."""
    return sys.__stderr__ is not None and sys.stderr.isatty() and not is_other()


def starting() -> None:
    """Print a line on a terminal before torch is imported, which takes seconds."""
    if is_watched():
        print("starting ...", file=sys.stderr, flush=True)


class Terminal:
    """Stream of the bars: `sys.__stderr__` with errors ignored, such as of a closed terminal or
    pipe.

    Args:
        is_over: nothing is drawn once it returns True: a signal's message stands there.
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
        """True for any two instances, since there is one terminal; tqdm compares the streams of its
        bars."""
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
    """Progress bar on a terminal, removed once it is closed; elsewhere one that shows nothing.

    Args:
        total: number of units.
        what: label before the bar.
        initial: number of units done before.
        shown: None: only if stderr is a terminal.
        delay: seconds before it is drawn; None: DELAY_S.
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
    """Context in which printed lines appear above the bars."""
    from tqdm import tqdm

    with tqdm.external_write_mode(Terminal()):
        yield

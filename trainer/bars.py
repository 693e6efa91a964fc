"""What a person at a terminal sees while it takes time: a line at once, then bars. Nobody else sees
any of it. It goes to `sys.__stderr__`: the stream over it lets nothing through that steers."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

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


def bar(total: int, what: str, unit: str = "batch") -> tqdm[Any]:
    """A bar on a terminal, gone once it is closed; elsewhere one that shows nothing."""
    from tqdm import tqdm

    return tqdm(
        total=total, desc=what, unit=unit, leave=False, delay=DELAY_S, disable=not is_watched(),
        file=sys.__stderr__,
    )  # fmt: skip

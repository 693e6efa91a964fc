"""Python's search for cyclic garbage, put off while a command starts.

Importing torch makes a million objects, nearly all of which stay. Searching through them again and
again as they come takes a tenth of the start and finds nothing.
"""

from __future__ import annotations

import gc


def put_off() -> None:
    gc.disable()


def go_on() -> None:
    """Search again from now on, but never more among what is there already."""
    gc.freeze()
    gc.enable()

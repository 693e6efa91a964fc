"""The start of a command: what is put off until it has imported what it needs.

Importing torch makes 300,000 objects that Python's garbage collector watches, and nearly all of
them stay. To search through them again and again as they come takes a tenth of the start.
"""

from __future__ import annotations

import gc

USUAL = gc.get_threshold()
MANY_OBJECTS = 500_000  # more than a start makes; usually a search begins after 700


def begin() -> None:
    """To be called before anything is imported: searches for garbage become rare."""
    gc.set_threshold(MANY_OBJECTS)


def torch_is_imported() -> None:
    """To be called when torch is there, and before anything is computed: garbage is searched for as
    usual, but never more among what is there already."""
    from trainer.system.torch_internals import leave_compiler_unimported

    leave_compiler_unimported()
    if gc.get_threshold()[0] == MANY_OBJECTS:
        gc.freeze()
        gc.set_threshold(*USUAL)

"""Paths as the user types them."""

from __future__ import annotations

import os
import shlex
from pathlib import Path


def at_home(path: Path) -> Path:
    """The path with `~` expanded, unless a file of that name exists. A shell does not expand it in
    quotes or after a =."""
    if not str(path).startswith("~") or os.path.lexists(path):
        return path
    try:
        return path.expanduser()
    except RuntimeError:  # ~nobody
        return path


def shell_path(path: Path) -> str:
    """The path for use in a shell: relative to the working folder if it lies below it, quoted if
    need be."""
    short = os.path.relpath(path)
    return shlex.quote(str(path) if short.startswith("..") else short)

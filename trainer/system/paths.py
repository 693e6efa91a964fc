"""Paths typed by the user."""

from __future__ import annotations

import os
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

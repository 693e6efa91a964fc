"""Paths as people type them."""

from __future__ import annotations

import os
from pathlib import Path


def at_home(path: Path) -> Path:
    """`~/x`, which a shell leaves as it is in quotes and behind a =, unless there is such a
    file."""
    if not str(path).startswith("~") or os.path.lexists(path):
        return path
    try:
        return path.expanduser()
    except RuntimeError:  # ~nobody
        return path

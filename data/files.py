"""Renames that outlast a loss of power."""

from __future__ import annotations

import os
from pathlib import Path


def replace_durably(temporary: Path, target: Path) -> None:
    """Rename a file that has been synced, and sync the folder."""
    os.replace(temporary, target)
    if hasattr(os, "O_DIRECTORY"):  # Windows cannot open a folder
        descriptor = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

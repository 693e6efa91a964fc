"""Names of runs and configurations in tables, charts and sentences."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from trainer.runs.read import Row


def run_name(folder: Path, base: Path) -> str:
    """Path of a run from the folder that is reported on."""
    return os.path.relpath(folder, base)


def changed(row: Row, shared: set[str]) -> str:
    """Overrides of a run that not all of the others share."""
    return without(row.overrides, shared)


def without(words: Iterable[str], shared: set[str]) -> str:
    return " ".join(word for word in words if word not in shared)


def configuration_name(overrides: tuple[str, ...], shared: set[str]) -> str:
    """Overrides by which a configuration differs from the others."""
    return without(overrides, shared) or ("all runs" if overrides else "no overrides")


def override_values(overrides: Iterable[str]) -> dict[str, str]:
    """Value of each key of some overrides, as typed."""
    return dict(word.lstrip("+").partition("=")[::2] for word in overrides)

"""Durable files: written completely or not at all."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from data.files import replace_durably


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write a file durably: to a temporary file, which is synced, then renamed; then the folder is
    synced. Raises OSError that names `path`."""
    temporary = path.with_name(f".{path.name}.tmp.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        replace_durably(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):  # report the first error
            temporary.unlink()
        if isinstance(error, OSError):
            error.filename, error.filename2 = str(path), None  # not the temporary file's
        raise


# Files of a run's folder that are written to a temporary file first, see `write_bytes`.
OWN_FILES = (
    r"(step_\d+|last|best)\.pth|(summary|findings|evaluation|leaks|images)\.json|metrics\.jsonl(\.damaged)?"
    r"|(config|hydra)\.yaml|report\.html|predictions\.csv"
)


def remove_half_written(folder: Path) -> None:
    """Remove the temporary files that `write_bytes` of killed processes left in a run's folder. The
    caller must hold the run's lock."""
    for temporary in folder.glob(".*.tmp.*"):
        if re.fullmatch(rf"\.({OWN_FILES})\.tmp\.\d+", temporary.name) and temporary.is_file():
            temporary.unlink()

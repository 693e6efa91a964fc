"""leaks.json in a run's folder: the equal images of its dataset."""

from __future__ import annotations

import json
from pathlib import Path

from data.duplicates.leaks import plain
from data.types import Dataset
from trainer.system.files import write_bytes

NAME = "leaks.json"


def write(folder: Path, dataset: Dataset) -> None:
    """Only where there is something to tell. Raises OSError."""
    leaks = dataset.leaks
    if leaks.copies or leaks.known:
        content = json.dumps(plain(leaks, dataset.classes), indent=1)
        write_bytes(folder / NAME, f"{content}\n".encode())

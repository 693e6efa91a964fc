"""For tests: words of a small training, and what it leaves in its folder."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

SMALL = (
    "data=synthetic", "data.num_train=301", "data.num_test=80", "data.num_classes=4",
    "data.shape=[1,8,8]", "model=mlp", "epochs=2", "tensorboard=false",
)  # fmt: skip


def summary(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return found


def predictions(folder: Path) -> list[dict[str, str]]:
    with open(folder / "predictions.csv", newline="") as file:
        return list(csv.DictReader(file))


def job_of(sweep: Path, number: int) -> Path:
    """Folder of a job of a sweep; its name begins with the job's number."""
    (found,) = [path for path in sweep.iterdir() if path.name.partition("_")[0] == str(number)]
    return found

"""Held-out digits as image files, and what `predict --json` says of such."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.helpers.commands import ROOT, Finished

NUM_DIGITS = 100


def write_digits(folder: Path) -> Path:
    """The first test digits, <number>_<label>.png, the second half of them in a subfolder."""
    (folder / "more").mkdir()
    with np.load(ROOT / "data" / "mnist_5k.npz") as file:
        images, labels = file["test_images"], file["test_labels"]
    for i in range(NUM_DIGITS):
        where = folder / ("more" if i >= NUM_DIGITS // 2 else "")
        Image.fromarray(images[i]).save(where / f"{i:03}_{labels[i]}.png")
    return folder


def rows_of(done: Finished) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]

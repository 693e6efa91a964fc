"""For tests: MNIST loaded from the files in a folder; a file packed, or damaged."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import data.mnist
from data.mnist import load_mnist
from tests.helpers import dataset_files

COMMON: dict[str, Any] = {
    "shape": [1, 28, 28],
    "num_classes": 10,
    "mean": [0.13],
    "std": [0.31],
    "hflip": False,
    "val_size": 0.5,
    "split_seed": 0,
}
TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = data.mnist.FILES
PACKED = TRAIN_IMAGES + ".gz"
SUMS = {name: dataset_files.md5(b"") for name in data.mnist.FILES}  # not those of any file here


def load(root: Path, **changes: Any) -> Any:
    keys = {"root": str(root), "download": False, "mirrors": [], "file_md5": SUMS, **COMMON}
    return load_mnist(**{**keys, **changes})


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def flip_bit(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 16]) + content[middle + 1 :]


def packed(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)

"""For tests: CIFAR-10 loaded from the files or the archive in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data.cifar.load import CIFAR10, load_cifar10
from data.types import Dataset
from tests.helpers import dataset_files

Files = dict[str, bytes]
COMMON: dict[str, Any] = {
    "mean": [0.49, 0.48, 0.45],
    "std": [0.25, 0.24, 0.26],
    "hflip": True,
    "split_seed": 0,
    "shape": [3, 32, 32],
}


def sums(files: Files) -> dict[str, str]:
    return {name: dataset_files.md5(content) for name, content in files.items()}


def load(root: Path, files: Files, archive: bytes = b"", **changes: Any) -> Dataset:
    """CIFAR-10 from `root`, with the checksums of these files and this archive."""
    keys = {
        "root": str(root),
        "download": False,
        "mirrors": ["http://127.0.0.1:1/"],
        "archive_md5": dataset_files.md5(archive),
        "file_md5": sums(files),
        "num_classes": 10,
        "val_size": 0.1,
        **COMMON,
    }
    return load_cifar10(**{**keys, **changes})


def write_archive(root: Path, files: Files, folder: str = CIFAR10.folder) -> bytes:
    archive = dataset_files.tar_gz(folder, files)
    root.mkdir(parents=True, exist_ok=True)
    (root / CIFAR10.archive).write_bytes(archive)
    return archive

"""For tests: a folder of images, its pack, and the pack checked against the images."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import data.image_folder.pack
import data.image_folder.packing
from data.image_folder.pack import packed
from data.image_folder.packing import File, Pack, Reading, file_at
from data.images.decode import read_image
from tests.helpers.image_files import write_image

SHAPE = (3, 8, 10)


def file_of(root: Path, name: str, label: int = 0) -> File:
    return file_at(root / name, name, label)


def files_of(root: Path) -> list[File]:
    """All, the label being the number of the folder."""
    folders = sorted(path for path in root.iterdir() if path.name[0] != ".")
    return [
        file_of(root, f"{folder.name}/{path.name}", label)
        for label, folder in enumerate(folders)
        for path in sorted(folder.iterdir())
    ]


def write_root(root: Path) -> Path:
    """Six images in two folders."""
    for i in range(6):
        write_image(root / "ab"[i % 2] / f"{i}.png", seed=i)
    return root


def counting_reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each file is read from now on, by its name."""
    counted: Counter[str] = Counter()

    def read(path: Path, *args: Any, **options: Any) -> np.ndarray:
        counted[path.name] += 1
        return read_image(path, *args, **options)

    monkeypatch.setattr(data.image_folder.packing, "read_image", read)
    return counted


def pack_of(root: Path, shape: tuple[int, int, int] = SHAPE, folder: str = ".packed") -> Pack:
    return packed(root, files_of(root), Reading(shape), root / folder)


def check(pack: Pack, root: Path, shape: tuple[int, int, int] = SHAPE) -> None:
    """It has what reading each file now gives."""
    files = files_of(root)
    expected = [read_image(root / file.name, shape, resize=min(shape[1:])) for file in files]
    assert pack.images.dtype == torch.uint8
    np.testing.assert_array_equal(pack.images.numpy(), np.stack(expected))
    assert pack.files == files
    assert pack.bad == []


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())

"""For tests: folders of small images, one folder per class, and what is loaded from them."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from PIL import Image

from data.image_folder import pack
from data.images.decode import read_image
from data.types import DataError, Dataset, Split
from tests.helpers.commands import ROOT

SHAPE = (3, 12, 16)
PARTS = ("train", "val", "test")


def as_written(path: Path) -> tuple[int, int, int, int]:
    """What a later writing of `path` would change; the time of the last reading is not among it."""
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def write_image(path: Path, seed: int = 0, size: tuple[int, int] = (20, 26)) -> Path:
    """Random colours, (H, W) = size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def write_classes(
    folder: Path, classes: Sequence[str] = ("cat", "dog", "owl"), per_class: int = 10
) -> Path:
    """`folder/<class>/<number>.png`, images of several sizes, all different."""
    for label, name in enumerate(classes):
        for i in range(per_class):
            seed = 1000 * label + i
            write_image(folder / name / f"{i:02}.png", seed, (16 + i % 3, 16 + label))
    return folder


@contextmanager
def as_nobody(folder: Path) -> Iterator[None]:
    """As a user who may read `folder`, at any depth, and write only where all may: root may write
    anywhere."""
    for path in (folder, *folder.parents):
        if path.stat().st_uid == os.geteuid() == 0:
            path.chmod(path.stat().st_mode | 0o055)
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@functools.cache
def composed() -> DictConfig:
    with hydra.initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        return hydra.compose("config", ["data=image_folder"]).data


def load(root: Path | None, **changes: Any) -> Dataset:
    keys = {"root": root and str(root), "shape": list(SHAPE), **changes}
    try:
        return hydra.utils.instantiate(composed(), **keys)
    except hydra.errors.InstantiationException as error:
        raise (error.__cause__ or error) from None


def notes_of(made: Dataset) -> tuple[str, ...]:
    """Without the line, which most folders get, on how to keep the test split."""
    return tuple(note for note in made.notes if "--fix-test" not in note)


def refused(root: Path | None, **changes: Any) -> str:
    with pytest.raises(DataError) as caught:
        load(root, **changes)
    return str(caught.value)


def pack_folder(root: Path) -> Path:
    """Where the pack of this folder lies by default."""
    return pack.pack_folder(root, None)[0]


def read(path: Path) -> torch.Tensor:
    return torch.from_numpy(read_image(path, SHAPE, resize=min(SHAPE[1:])))


def images_of(split: Split) -> torch.Tensor:
    """(N, C, H, W) uint8, the split's own, in its order."""
    return split.images_at(torch.arange(len(split)))


def paths_of(split: Split, files: list[Path]) -> list[Path]:
    """Which of the files a split has, told by their pixels."""
    known = {read(path).numpy().tobytes(): path for path in files}
    assert len(known) == len(files)
    return [known[image.numpy().tobytes()] for image in images_of(split)]


def splits_of(made: Dataset) -> dict[str, Split]:
    return {part: getattr(made, part) for part in PARTS}


def write_parts(root: Path, *parts: str, per_class: int = 10) -> Path:
    for number, part in enumerate(parts):
        write_classes(root / part, per_class=per_class)
        for i, path in enumerate(sorted((root / part).rglob("*.png"))):
            write_image(path, seed=10_000 * (number + 1) + i)
    return root

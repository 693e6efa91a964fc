"""Made-up images of any shape that can be learned: for trials and benchmarks without files.

Each class has one smooth random pattern per channel. An image is the pattern of its class, moved
by up to half of each side (what leaves at one edge comes back at the other) and mixed with noise.
Because of the moves a linear model falls short where convolutions do well.

Everything is integers from PCG64's raw output, so the images are the same everywhere (NEP 19).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from data.memory import check_memory
from data.preparation import Preparation
from data.types import DataError, Dataset, Fit, Split

_PATTERNS, _TRAIN, _TEST = range(3)  # independent random streams of one seed
_BLOCK = 256  # images per stream; part of the definition of each image
_WAVES = 4  # cosines in a pattern
_MAX_CYCLES = 2  # of a cosine, over a side


def load_synthetic(
    *,
    num_train: int,
    num_test: int,
    noise: float,
    seed: int,
    shape: Sequence[int],
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    hflip: bool,
    val_size: float,
    split_seed: int,
    fit: Fit = "squash",
    resize: int | None = None,
    folds: int = 0,
    fold: int = 0,
    on_leak: str = "warn",
    fraction: float = 1.0,
) -> Dataset:
    """`num_train` (validation included) and `num_test` images; image i is of class i mod K.

    An image depends on `seed`, `shape`, `noise`, its class and its index alone, not on how many
    there are.

    Args:
        num_train, num_test: at least 2 and 1 of each class.
        noise: share of noise in a pixel, from 0 (none) to 1 (nothing else).
        seed: of patterns, moves and noise, 0 or more.
        The others: `Preparation`; `shape` may have any number of channels.

    Raises:
        DataError: a value is out of its range.
    """
    preparation = Preparation(
        shape, num_classes, mean, std, hflip, val_size, split_seed, fit, resize, folds, fold,
        on_leak, fraction,
    )  # fmt: skip
    _check_sizes(num_train, num_test, num_classes)
    check_memory(num_train + num_test + num_classes, shape)
    if not 0 <= noise <= 1:
        raise DataError(f"data.noise={noise}: must lie between 0 (none) and 1 (nothing else).")
    if seed < 0:
        raise DataError(f"data.seed={seed}: must be 0 or more.")
    # Both shares are rounded down, so that their sum stays within a byte.
    patterns = ((1 - noise) * make_patterns(seed, num_classes, shape)).astype(np.uint8)
    levels = (noise * np.arange(256)).astype(np.uint8)
    return preparation.dataset(
        _make_split(seed, _TRAIN, num_train, patterns, levels),
        _make_split(seed, _TEST, num_test, patterns, levels),
        [f"class {label}" for label in range(num_classes)],
    )


def _check_sizes(num_train: int, num_test: int, num_classes: int) -> None:
    """Raises DataError."""
    if num_classes < 2:
        raise DataError(f"data.num_classes={num_classes}: must be 2 or more.")
    sizes = {"num_train": (num_train, 2 * num_classes), "num_test": (num_test, num_classes)}
    for key, (value, least) in sizes.items():
        if value < least:
            raise DataError(
                f"data.{key}={value}: must be {least} or more for {num_classes} classes."
            )


def make_patterns(seed: int, num_classes: int, shape: Sequence[int]) -> np.ndarray:
    """One pattern per class and channel: (K, C, H, W) uint8, from 0 to 255, or 0 all over.

    A sum of cosines with whole numbers of cycles over the image, so that the edges fit together.
    """
    channels, height, width = shape
    y, x = np.arange(height)[:, None] / height, np.arange(width) / width
    random = _random_bytes([seed, _PATTERNS], num_classes * channels * _WAVES * 3)
    patterns = np.empty((num_classes, channels, height, width), dtype=np.uint8)
    random = random.reshape(num_classes, 3, channels, _WAVES, 1, 1)
    for pattern, drawn in zip(patterns, random, strict=True):
        cycles_y, cycles_x = drawn[:2].astype(int) % (2 * _MAX_CYCLES + 1) - _MAX_CYCLES
        waves = np.cos(2 * np.pi * (cycles_y * y + cycles_x * x + drawn[2] / 256)).sum(axis=1)
        waves -= waves.min((1, 2), keepdims=True)
        pattern[:] = np.rint(255 * waves / np.maximum(waves.max((1, 2), keepdims=True), 1e-6))
    return patterns


def _make_split(
    seed: int, stream: int, count: int, patterns: np.ndarray, levels: np.ndarray
) -> Split:
    """`count` images; `patterns` and `levels` are the two addends of a pixel, already scaled."""
    num_classes, _, height, width = patterns.shape
    reach_y, reach_x = height // 4, width // 4
    padded = np.pad(patterns, ((0, 0), (0, 0), (0, 2 * reach_y), (0, 2 * reach_x)), mode="wrap")
    labels = np.arange(count) % num_classes
    images = np.empty((count, *patterns.shape[1:]), dtype=np.uint8)
    for block, start in enumerate(range(0, count, _BLOCK)):
        part = images[start : start + _BLOCK]
        # The moves come first, for a whole block: a shorter last one then has the same images.
        random = _random_bytes([seed, stream, block], 2 * _BLOCK + part.size)
        moves = random[: 2 * _BLOCK].reshape(_BLOCK, 2) * [2 * reach_y + 1, 2 * reach_x + 1] // 256
        for image, label, (y, x) in zip(part, labels[start:], moves, strict=False):
            image[:] = padded[label, :, y : y + height, x : x + width]
        part += levels[random[2 * _BLOCK :]].reshape(part.shape)
    return Split(torch.from_numpy(images), torch.from_numpy(labels))


def _random_bytes(seed: list[int], count: int) -> np.ndarray:
    """(count,) uint8, the first of the stream of `seed`."""
    raw = np.random.PCG64(seed).random_raw(-(-count // 8))
    return raw.astype("<u8").view(np.uint8)[:count]

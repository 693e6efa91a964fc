"""Validation split: carved out of the training split by a seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from data.types import DataError, Split


def carve(
    train: Split, val_size: float, split_seed: int, classes: Sequence[str]
) -> tuple[Split, Split]:
    """Splits `train` into train and validation, each class in proportion, order kept. Both know
    where their images stood in `train`."""
    in_val = torch.from_numpy(
        choose_validation(train.labels.numpy(), val_size, split_seed, classes)
    )
    return train.subset(~in_val), train.subset(in_val)


def choose_validation(
    labels: np.ndarray, val_size: float, split_seed: int, classes: Sequence[str]
) -> np.ndarray:
    """Mask of the images for validation: (N,) bool. The arguments are those of `validation_counts`.

    Each image gets a random 64-bit key, and those of a class with the smallest keys are taken.
    The keys are the raw output of PCG64, which NumPy keeps the same on every machine and in every
    version (NEP 19), so the split is as well; the run's seed and torch have no part in it.
    """
    counts = np.bincount(labels, minlength=len(classes))
    keys = np.empty(len(labels), dtype=np.uint64)
    for label, count in enumerate(counts):
        keys[labels == label] = np.random.PCG64([split_seed, label]).random_raw(count)
    return smallest_keys(keys, labels, validation_counts(counts, val_size, classes))


def smallest_keys(keys: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mask of the `counts[label]` images with the smallest keys of each class: (N,) bool."""
    chosen = np.zeros(len(labels), dtype=bool)
    for label, count in enumerate(counts):
        members = np.flatnonzero(labels == label)
        chosen[members[np.argsort(keys[members], kind="stable")[:count]]] = True
    return chosen


def validation_counts(
    counts: np.ndarray,
    val_size: float,
    classes: Sequence[str],
    key: str = "data.val_size",
    num_left: int = 1,
) -> np.ndarray:
    """Number of images of each class that go to validation.

    In all round(val_size * N); a class gets its share rounded down or up, by largest remainder, but
    at least one, and `num_left` stay.

    Args:
        counts: images of each class, N in all.
        key: of `val_size`, for the message.
        num_left: of each class in train; 2 if another split is to be carved out of it.

    Raises:
        DataError: a class has too few images, or the total leaves some class with too few.
    """
    for name, count in zip(classes, counts, strict=True):
        if count <= num_left:
            raise DataError(
                f"Class {name!r} has too few training images, {count}; it needs {num_left + 1} "
                "or more, to have one in each split."
            )
    total, shares = round(val_size * counts.sum()), val_size * counts
    least, most = len(counts), counts.sum() - num_left * len(counts)
    if not least <= total <= most:
        digits = len(str(counts.sum())) + 1  # so many that the rounded fraction means that number
        fractions = [f"{bound / counts.sum():.{digits}g}" for bound in (least, most)]
        raise DataError(
            f"{key}={val_size}: {total} of {counts.sum()} images are held out; each of the "
            f"{least} classes needs at least one there and {num_left} in what is left. Take a "
            f"fraction from {' to '.join(fractions)}."
        )
    taken = np.clip(np.floor(shares).astype(int), 1, counts - num_left)
    while (missing := total - taken.sum()) != 0:
        step = np.sign(missing)
        free = taken < counts - num_left if step > 0 else taken > 1
        taken[np.argmax(np.where(free, step * (shares - taken), -np.inf))] += step
    return taken

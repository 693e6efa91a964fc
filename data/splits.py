"""Splits that are carved out of a dataset's images by a seed: validation, and folds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from data.types import DataError, Split


def carve(
    train: Split,
    val_size: float,
    split_seed: int,
    classes: Sequence[str],
    folds: int = 0,
    fold: int = 0,
) -> tuple[Split, Split, Split | None]:
    """Splits `train` into train, validation and, with folds, the one that is held out; each class
    in proportion, order kept. All know where their images stood in `train`.

    Validation comes from what the fold leaves. Arguments: `Preparation`.
    """
    labels = train.labels.numpy()
    keys = random_keys(labels, len(classes), split_seed)
    held_out = np.zeros(len(labels), dtype=bool)
    if folds:
        check_counts(np.bincount(labels, minlength=len(classes)), folds, classes)
        held_out = fold_of(keys, labels, folds) == fold
    rest = np.flatnonzero(~held_out)
    counts = np.bincount(labels[rest], minlength=len(classes))
    in_val = np.zeros(len(labels), dtype=bool)
    in_val[rest] = smallest_keys(
        keys[rest], labels[rest], validation_counts(counts, val_size, classes)
    )
    parts = (~held_out & ~in_val, in_val, held_out)
    left, val, held = (train.subset(torch.from_numpy(part)) for part in parts)
    return left, val, held if folds else None


_FRACTION = 1  # purpose of keys other than those of the splits


def random_keys(labels: np.ndarray, num_classes: int, split_seed: int, *purpose: int) -> np.ndarray:
    """A random key for each image: (N,) uint64.

    The keys are the raw output of PCG64, which NumPy keeps the same on every machine and in every
    version (NEP 19), so the splits are as well; the run's seed and torch have no part in it.
    """
    keys = np.empty(len(labels), dtype=np.uint64)
    for label, count in enumerate(np.bincount(labels, minlength=num_classes)):
        keys[labels == label] = np.random.PCG64([split_seed, label, *purpose]).random_raw(count)
    return keys


def smallest_keys(keys: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mask of the `counts[label]` images with the smallest keys of each class: (N,) bool."""
    chosen = np.zeros(len(labels), dtype=bool)
    for label, count in enumerate(counts):
        members = np.flatnonzero(labels == label)
        chosen[members[np.argsort(keys[members], kind="stable")[:count]]] = True
    return chosen


def in_fraction(
    labels: np.ndarray, fraction: float, split_seed: int, classes: Sequence[str]
) -> np.ndarray:
    """Mask of a share of the images, the same of each class, rounded: (N,) bool. A smaller share
    lies in a larger one of the same seed.

    Args:
        labels: (N,) of the train split.
        fraction: above 0, at most 1.

    Raises:
        DataError: no image of a class would be left.
    """
    if fraction == 1:
        return np.ones(len(labels), dtype=bool)
    counts = np.bincount(labels, minlength=len(classes))
    kept = np.floor(fraction * counts + 0.5).astype(int)
    for name, number, left in zip(classes, counts, kept, strict=True):
        if number and not left:
            least = 0.5 / counts[counts > 0].min()
            raise DataError(
                f"data.fraction={fraction}: of class {name!r}, with {number} images to train on, "
                f"none would be left. Take {np.ceil(least * 1e4) / 1e4:g} or more."
            )
    return smallest_keys(random_keys(labels, len(classes), split_seed, _FRACTION), labels, kept)


# --- folds ---------------------------------------------------------------------------------------


def check_fold(folds: int, fold: int) -> None:
    """Raises DataError unless `fold` is the number of one of `folds`, or both are 0."""
    if folds < 0 or folds == 1:
        raise DataError(f"data.folds={folds}: must be 2 or more, or 0 for none.")
    if not 0 <= fold < max(folds, 1):
        allowed = f"0 to {folds - 1} with data.folds={folds}" if folds else "0 without data.folds"
        raise DataError(f"data.fold={fold}: must be {allowed}.")


def images_for(folds: int) -> int:
    """Images of a class from which each fold gets one, and leaves one each for train and val."""
    return max(folds, 4 if folds == 2 else 0)


def check_counts(counts: np.ndarray, folds: int, classes: Sequence[str]) -> None:
    """Raises DataError for a class that is too small to be in every fold."""
    for name, count in zip(classes, counts, strict=True):
        if count < images_for(folds):
            raise DataError(
                f"data.folds={folds}: class {name!r} has too few images to train on, {count}; it "
                f"needs {images_for(folds)} or more, to have one in each fold, and in train and "
                "val beside it."
                + (f" folds={least} is the most that works." if (least := counts.min()) > 2 else "")
            )


def fold_of(keys: np.ndarray, labels: np.ndarray, folds: int) -> np.ndarray:
    """Number of the fold that each image is in: (N,) int64, 0..folds-1.

    In each class, fold 0 has the smallest keys, fold 1 the next, and so on. The sizes differ by one
    at most, and it is other folds in each class that have one more. So an image more or less moves
    at most one image of its class from a fold to its neighbour, and none of another class.
    """
    found = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        places = (np.arange(folds) - label) % folds
        sizes = (len(members) + folds - 1 - places) // folds
        found[members[np.argsort(keys[members], kind="stable")]] = np.repeat(
            np.arange(folds), sizes
        )
    return found


# --- number of images ----------------------------------------------------------------------------


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
    total = round(val_size * counts.sum())
    least, most = len(counts), counts.sum() - num_left * len(counts)
    if not least <= total <= most:
        digits = len(str(counts.sum())) + 1  # so many that the rounded fraction means that number
        fractions = [f"{bound / counts.sum():.{digits}g}" for bound in (least, most)]
        raise DataError(
            f"{key}={val_size}: {total} of {counts.sum()} images are held out; each of the "
            f"{least} classes needs at least one there and {num_left} in what is left. Take a "
            f"fraction from {' to '.join(fractions)}."
        )
    return rounded(val_size * counts, total, np.ones_like(counts), counts - num_left)


def rounded(shares: np.ndarray, total: int, least: np.ndarray, most: np.ndarray) -> np.ndarray:
    """Shares rounded down or up to whole numbers that add up to `total`, by largest remainder,
    within their limits; these must allow it."""
    taken = np.clip(np.floor(shares).astype(int), least, most)
    while (missing := total - taken.sum()) != 0:
        step = np.sign(missing)
        free = taken < most if step > 0 else taken > least
        taken[np.argmax(np.where(free, step * (shares - taken), -np.inf))] += step
    return taken

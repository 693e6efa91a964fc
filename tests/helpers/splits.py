"""Validation split of labels alone, as `data.splits.carve` draws it without folds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data.splits import random_keys, smallest_keys, validation_counts


def choose_validation(
    labels: np.ndarray, val_size: float, split_seed: int, classes: Sequence[str]
) -> np.ndarray:
    """Mask of the images for validation: (N,) bool; those of a class with the smallest keys. The
    arguments are those of `validation_counts`."""
    counts = np.bincount(labels, minlength=len(classes))
    keys = random_keys(labels, len(classes), split_seed)
    return smallest_keys(keys, labels, validation_counts(counts, val_size, classes))

"""Equal images, against comparing each with each."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from data.duplicates.exact import equal_images
from data.types import Split


def split(images: np.ndarray, rows: list[int] | None = None) -> Split:
    count = len(images) if rows is None else len(rows)
    return Split(
        torch.from_numpy(images), torch.zeros(count, dtype=torch.int64),
        None if rows is None else torch.tensor(rows),
    )  # fmt: skip


def by_comparing_each_with_each(images: np.ndarray) -> list[list[int]]:
    groups: list[list[int]] = []
    for number, image in enumerate(images):
        for group in groups:
            if np.array_equal(images[group[0]], image):
                group.append(number)
                break
        else:
            groups.append([number])
    return [group for group in groups if len(group) > 1]


@pytest.mark.parametrize("seed", range(20))
def test_all_that_are_equal_and_no_others(seed: int) -> None:
    """Of so few pixels and values that many are equal by chance."""
    rng = np.random.default_rng(seed)
    shape = [(1, 1, 1), (1, 2, 2), (3, 1, 2), (1, 3, 3)][seed % 4]
    images = rng.integers(0, 2, (60, *shape), dtype=np.uint8)
    parts = [split(images[:25]), split(images[25:40]), split(images[40:])]
    expected = by_comparing_each_with_each(images)
    assert equal_images(parts) == expected
    order = rng.permutation(60)
    shared = [split(images, order[:30].tolist()), split(images, order[30:].tolist())]
    assert equal_images(shared) == by_comparing_each_with_each(images[order])
    assert expected


@pytest.mark.parametrize("place", [0, 5000, 9000, 3 * 64 * 64 - 1])
def test_one_other_byte_makes_another_image(place: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 64, 64), dtype=np.uint8)
    images[1:] = images[0]
    images[2].reshape(-1)[place] ^= 1
    assert equal_images([split(images[:1]), split(images[1:])]) == [[0, 1]]


def test_an_empty_split_has_none() -> None:
    images = np.zeros((2, 1, 4, 4), np.uint8)
    assert equal_images([split(images[:0]), split(images)]) == [[0, 1]]

"""Nearly equal images: planted ones are found, all of them, and no others."""

from __future__ import annotations

import hydra
import numpy as np
import pytest
import torch

from data.duplicates.near import near_copies
from data.types import Split
from tests.helpers.textures import NEAR, texture
from trainer.config import choices


def split(images: list[np.ndarray]) -> Split:
    pixels = torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2).copy())
    return Split(pixels, torch.zeros(len(images), dtype=torch.int64))


@pytest.fixture(scope="module")
def originals() -> list[np.ndarray]:
    return [np.asarray(texture(seed)) for seed in range(200)]


@pytest.mark.parametrize("name", NEAR)
def test_every_planted_copy_is_found_and_nothing_else(
    name: str, originals: list[np.ndarray]
) -> None:
    copies = [np.asarray(NEAR[name](texture(seed))) for seed in range(40)]
    found = near_copies([split(originals), split(copies)])
    assert found == [[number, 200 + number] for number in range(40)]


@pytest.mark.parametrize("side", [16, 28, 32, 48])
def test_in_every_size(side: int) -> None:
    images = [np.asarray(texture(seed, side)) for seed in range(60)]
    copies = [np.asarray(NEAR["darker"](texture(seed, side))) for seed in range(10)]
    found = near_copies([split(images), split(copies)])
    assert found == [[number, 60 + number] for number in range(10)]


def test_of_grey_images(originals: list[np.ndarray]) -> None:
    grey = torch.from_numpy(np.stack(originals[:50])).float().mean(3).byte()[:, None]
    labels = torch.zeros(51, dtype=torch.int64)
    assert near_copies([Split(torch.cat([grey, grey[:1] // 2]), labels)]) == [[0, 50]]


def test_distinct_images_are_none(originals: list[np.ndarray]) -> None:
    assert near_copies([split(originals)]) == []
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (300, 32, 32, 3), dtype=np.uint8)
    assert near_copies([split(list(noise))]) == []


def test_images_of_one_colour_are_not_compared(originals: list[np.ndarray]) -> None:
    plain = [np.full((64, 64, 3), level, np.uint8) for level in (0, 9, 200)]
    assert near_copies([split([*originals[:5], *plain])]) == []


def test_other_colours_make_another_image(originals: list[np.ndarray]) -> None:
    image = originals[0]
    mixed = np.stack((image[..., 0], 255 - image[..., 1], image[..., 2]), -1)
    assert near_copies([split([image, mixed])]) == []


def test_images_to_be_skipped_are(originals: list[np.ndarray]) -> None:
    twice = [*originals[:5], originals[0]]
    assert near_copies([split(twice)]) == [[0, 5]]
    assert near_copies([split(twice)], skipped=[5]) == []


def test_made_up_images_and_digits_have_none() -> None:
    """Images of a class are much alike there; what is so for many is no copy."""
    for name, changes in (
        ("synthetic", {"shape": [1, 32, 32], "num_train": 1000}),
        ("mnist_5k", {}),
    ):
        made = hydra.utils.instantiate({**choices.options("data", name), **changes})
        assert near_copies([made.train, made.val, made.test]) == []


def test_groups_are_linked_through_others() -> None:
    """Frames of a film, each moved by a pixel against the one before."""
    wide = np.asarray(texture(1, 128))
    frames = [wide[30:94, 30 + i : 94 + i] for i in range(8)]
    others = [np.asarray(texture(seed)) for seed in range(100, 130)]
    assert near_copies([split([*frames, *others])]) == [list(range(8))]

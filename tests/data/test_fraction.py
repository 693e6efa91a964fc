"""data.fraction: a share of the train split, the same of each class; a smaller one lies in a larger
one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from data.splits import in_fraction
from data.types import DataError
from trainer.builders.datasets import load_data
from trainer.config import choices

NAMES = ("a", "b", "c")
LABELS = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [203, 61, 20]))


@pytest.mark.parametrize("seed", range(20))
def test_a_smaller_share_lies_in_a_larger_one(seed: int) -> None:
    masks = [in_fraction(LABELS, share / 100, seed, NAMES) for share in range(3, 101)]
    for small, large in itertools.pairwise(masks):
        assert not (small & ~large).any()
    assert masks[-1].all()


@pytest.mark.parametrize("share", [0.03, 0.1, 0.25, 0.5, 0.9])
def test_each_class_keeps_its_share(share: float) -> None:
    kept = in_fraction(LABELS, share, 0, NAMES)
    for label, count in enumerate([203, 61, 20]):
        assert abs(kept[label == LABELS].sum() - share * count) <= 0.5
    assert (kept != in_fraction(LABELS, share, 1, NAMES)).any()


def test_no_class_is_left_without_images() -> None:
    assert in_fraction(LABELS, 0.025, 0, NAMES)[LABELS == 2].sum() == 1
    with pytest.raises(DataError, match=r"'c', with 20 images .* Take 0.025 or more"):
        in_fraction(LABELS, 0.0249, 0, NAMES)


def test_validation_and_test_stay() -> None:
    options = choices.options("data", "mnist_5k")
    whole = load_data(options)
    part = load_data({**options, "fraction": 0.2})
    assert (len(whole.train), len(part.train)) == (3600, 720)
    assert part.train.labels.bincount().tolist() == [72] * 10
    for split in ("val", "test"):
        a, b = getattr(whole, split), getattr(part, split)
        assert torch.equal(a.own_images(), b.own_images())
        assert torch.equal(a.labels, b.labels)
    assert part.test_set_id == whole.test_set_id
    assert part.train.indices is not None
    assert whole.train.indices is not None
    assert set(part.train.indices.tolist()) < set(whole.train.indices.tolist())
    assert any("720 images" in note for note in part.notes)

"""Labels that are probably wrong: planted ones are found; against the definition in full."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from trainer.evaluation.label_errors import suspects


def from_shares(labels: NDArray[np.int64], shares: NDArray[np.float64], k: int):
    top = np.argsort(-shares, axis=1, kind="stable")[:, :k]
    of_label = shares[np.arange(len(labels)), labels]
    return suspects(labels, of_label, top, np.take_along_axis(shares, top, axis=1))


def by_definition(labels: NDArray[np.int64], shares: NDArray[np.float64]) -> dict[int, int]:
    """Off-diagonal entries of the confident joint, eq. 2 of the paper, image by image."""
    num = shares.shape[1]
    thresholds = [shares[labels == j, j].mean() if (labels == j).any() else np.inf
                  for j in range(num)]  # fmt: skip
    found = {}
    for i, (label, row) in enumerate(zip(labels.tolist(), shares, strict=True)):
        reached = [j for j in range(num) if row[j] >= thresholds[j]]
        if reached and (best := max(reached, key=lambda j: row[j])) != label:
            found[i] = best
    return found


def drawn(seed: int, n: int = 400, num: int = 7) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num - 1, n)  # of the last class there are no images
    logits = rng.normal(size=(n, num)) + 1.8 * np.eye(num)[labels]
    shares = np.exp(logits)
    return labels, shares / shares.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("seed", range(5))
def test_suspects_are_those_of_the_definition(seed: int) -> None:
    labels, shares = drawn(seed)
    found = from_shares(labels, shares, shares.shape[1])
    expected = by_definition(labels, shares)
    assert dict(zip(found.rows.tolist(), found.suggested.tolist(), strict=True)) == expected
    margins = found.of_label - found.of_suggested
    assert (np.diff(margins) >= 0).all()
    assert len(expected) > 10


def test_the_five_most_probable_classes_suffice() -> None:
    labels, shares = drawn(9)
    assert (
        from_shares(labels, shares, 5).rows.tolist() == from_shares(labels, shares, 7).rows.tolist()
    )


def test_planted_errors_come_first() -> None:
    rng = np.random.default_rng(1)
    labels, shares = drawn(1, n=1000)
    shares = np.where(np.eye(7)[labels] > 0, 0.94, 0.01)  # a sure and honest model
    wrong = rng.choice(1000, 30, replace=False)
    given = labels.copy()
    given[wrong] = (labels[wrong] + 1) % 6
    found = from_shares(given, shares, 5)
    assert sorted(found.rows.tolist()) == sorted(wrong.tolist())
    assert (found.suggested == labels[found.rows]).all()
    assert len(from_shares(labels, shares, 5).rows) == 0  # its twin


def test_no_images() -> None:
    nothing = np.zeros((0, 5))
    found = suspects(np.zeros(0, int), np.zeros(0), nothing.astype(int), nothing)
    assert len(found.rows) == 0

"""Balanced draws: each class equally often, as a function of seed and epoch alone."""

from __future__ import annotations

import pytest
import torch

from data.loading.batches import Batches
from data.loading.part import Part
from data.loading.preprocess import Preprocess
from data.types import Split

CPU = torch.device("cpu")
SIZES = (600, 300, 0, 99, 1)


def batches(seed: int = 0, balanced: bool = True, part: Part | None = None) -> Batches:
    labels = torch.cat([torch.full((n,), k) for k, n in enumerate(SIZES)])
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(3))]
    images = (torch.arange(len(labels)) % 251).to(torch.uint8).view(-1, 1, 1, 1)
    preprocess = Preprocess((0.0,), (1.0,), 1, CPU, torch.float32, torch.contiguous_format)
    return Batches(
        Split(images, labels), 64, preprocess, CPU, shuffle=True, seed=seed, part=part,
        balanced=balanced,
    )  # fmt: skip


def test_each_class_comes_equally_often() -> None:
    source = batches()
    drawn = torch.cat([source.order(epoch) for epoch in range(40)])
    counts = source.labels[drawn].bincount(minlength=5).tolist()
    assert counts[2] == 0
    for count in (counts[k] for k in (0, 1, 3, 4)):  # binomial: 10,000 of 40,000, std 87
        assert count == pytest.approx(10_000, abs=5 * 87)
    of_a_class = drawn[source.labels[drawn] == 3].bincount(minlength=1000)
    of_a_class = of_a_class[source.labels == 3]
    assert len(of_a_class) == 99
    assert of_a_class.min() > 101 - 5 * 10.1  # each of its images is drawn, about 101 times
    assert of_a_class.max() < 101 + 5 * 10.1


def test_an_epoch_is_as_long_and_the_same_again() -> None:
    source, plain = batches(), batches(balanced=False)
    assert len(source) == len(plain)
    assert [len(t) for _, t in source.epoch(1)] == [len(t) for _, t in plain.epoch(1)]
    assert source.order(1).equal(batches().order(1))
    assert not source.order(1).equal(source.order(2))
    assert not source.order(1).equal(batches(seed=1).order(1))
    assert plain.order(1).sort().values.equal(torch.arange(1000))


def test_started_within_an_epoch_and_divided_among_processes() -> None:
    whole = [images for images, _ in batches().epoch(2)]
    later = [images for images, _ in batches().epoch(2, start=3)]
    assert all(a.equal(b) for a, b in zip(whole[3:], later, strict=True))
    parts = [[images for images, _ in batches(part=Part(r, 2)).epoch(2)] for r in range(2)]
    for one, *both in zip(whole, *parts, strict=True):
        assert torch.cat(both).equal(one)

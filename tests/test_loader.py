"""Batches: complete, ordered by (seed, epoch) alone, and normalised as torchvision does."""

from __future__ import annotations

import pytest
import torch
from torchvision.transforms import v2

from data.loader import Batches, Preprocess, enlarged
from data.seeds import derive_seed
from data.types import Split

CPU = torch.device("cpu")


def split(number: int = 23, side: int = 6, channels: int = 1) -> Split:
    generator = torch.Generator().manual_seed(0)
    shape = (number, channels, side, side)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return Split(images, torch.arange(number))


def plain(channels: int = 1, min_size: int = 1) -> Preprocess:
    return Preprocess((0.0,) * channels, (1.0,) * channels, min_size, CPU)


def labels_of(batches: Batches, epoch: int, start: int = 0) -> list[int]:
    return torch.cat([labels for _, labels in batches.epoch(epoch, start)]).tolist()


def test_every_picture_once_with_its_label() -> None:
    data = split()
    batches = Batches(data, 5, plain(), CPU, shuffle=True)
    images, labels = (torch.cat(parts) for parts in zip(*batches.epoch(0), strict=True))
    assert sorted(labels.tolist()) == list(range(23))
    torch.testing.assert_close(images, data.images[labels].float() / 255)
    assert len(batches) == len(list(batches.epoch(0))) == 5


def test_order_is_a_function_of_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return labels_of(Batches(split(), 5, plain(), CPU, shuffle=True, seed=seed), epoch)

    first = order(0, 0)
    torch.manual_seed(1)
    torch.rand(3)
    assert order(0, 0) == first
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9
    unshuffled = Batches(split(), 5, plain(), CPU)
    assert labels_of(unshuffled, 0) == labels_of(unshuffled, 1) == list(range(23))


def test_an_epoch_goes_on_from_its_middle() -> None:
    batches = Batches(split(), 5, plain(), CPU, shuffle=True)
    assert labels_of(batches, 3, start=2) == labels_of(batches, 3)[10:]


@pytest.mark.parametrize(("number", "batch_size", "kept"), [(21, 5, 20), (22, 5, 22), (1, 5, 1)])
def test_a_last_batch_of_one_is_left_out_of_training(
    number: int, batch_size: int, kept: int
) -> None:
    data = split(number)
    assert len(labels_of(Batches(data, batch_size, plain(), CPU, shuffle=True), 0)) == kept
    assert len(labels_of(Batches(data, batch_size, plain(), CPU), 0)) == number


def test_limit() -> None:
    batches = Batches(split(), 5, plain(), CPU, shuffle=True, limit=2)
    assert [len(labels) for _, labels in batches.epoch(0)] == [5, 5]
    assert (len(batches), batches.num_images) == (2, 10)


def test_normalisation_is_torchvisions() -> None:
    data, mean, std = split(channels=3), (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    theirs = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])
    ours = Preprocess(mean, std, 1, CPU)
    torch.testing.assert_close(ours(data.images), theirs(data.images), rtol=1e-5, atol=1e-6)
    double = Preprocess(mean, std, 1, CPU, torch.float64)(data.images)
    assert double.dtype == torch.float64
    expected = (data.images.double() / 255 - torch.tensor(mean).double().view(3, 1, 1)) / (
        torch.tensor(std).double().view(3, 1, 1)
    )
    torch.testing.assert_close(double, expected, rtol=1e-6, atol=1e-7)


def test_small_pictures_are_enlarged() -> None:
    digits = split(2, side=28)
    padded = plain(min_size=32)(digits.images)
    assert padded.shape == (2, 1, 32, 32)
    torch.testing.assert_close(padded[:, :, 2:30, 2:30], digits.images.float() / 255)
    assert padded.sum() == pytest.approx((digits.images.float() / 255).sum().item(), rel=1e-5)
    assert plain(min_size=63)(digits.images).shape == (2, 1, 63, 63)
    assert plain(min_size=28)(digits.images).shape == (2, 1, 28, 28)
    assert enlarged((20, 50), 32) == (32, 50)


def test_channels_last_reaches_the_net() -> None:
    preprocess = Preprocess(
        (0.0,) * 3, (1.0,) * 3, 1, CPU, memory_format=torch.channels_last
    )  # fmt: skip
    out = preprocess(split(channels=3).images)
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_seeds_differ_by_purpose_and_place() -> None:
    places = [(s, p, e, b) for s in range(4) for p in ("order", "step") for e in range(9)
              for b in range(9)]  # fmt: skip
    seeds = {derive_seed(seed, purpose, epoch, batch) for seed, purpose, epoch, batch in places}
    assert len(seeds) == len(places)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(0, "order", 1) != derive_seed(1, "order", 0)
    assert derive_seed(0, "order", 0) == 6087065507001435998  # the same on every machine, for good

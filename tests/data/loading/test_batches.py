"""Batches: complete, functions of (seed, epoch, batch) alone, normalised as torchvision does."""

from __future__ import annotations

import os

import pytest
import torch
from scipy import stats
from torch import Tensor
from torchvision.transforms import v2

from data.augment.policy import Augment
from data.loading import batches as loader
from data.loading.batches import Batches
from data.loading.preprocess import Preprocess, enlarged
from data.seeds import derive_seed
from data.types import Split
from tests.helpers.batches_parts import CPU, STRONG, plain, same, split


def labels_of(batches: Batches, epoch: int, start: int = 0) -> list[int]:
    return torch.cat([labels for _, labels in batches.epoch(epoch, start)]).tolist()


def test_every_image_once_with_its_label() -> None:
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


def test_small_images_are_enlarged() -> None:
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


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("min_size", [1, 32, 40])
def test_the_layout_changes_no_bit(channels: int, min_size: int) -> None:
    data = split(3, side=28, channels=channels)
    last = Preprocess((0.4,) * channels, (0.3,) * channels, min_size, CPU,
                      memory_format=torch.channels_last)(data.images)  # fmt: skip
    first = Preprocess((0.4,) * channels, (0.3,) * channels, min_size, CPU)(data.images)
    assert torch.equal(first, last)
    assert first.is_contiguous()
    assert last.stride()[1] == 1  # also of one channel, where torch calls any strides contiguous


def test_evaluation_reads_slices_of_the_split_itself() -> None:
    data, seen = split(), []

    class Spy(Preprocess):
        def __call__(self, images: Tensor) -> Tensor:
            seen.append(images.data_ptr() - data.images.data_ptr())
            return super().__call__(images)

    spy = Spy((0.0,), (1.0,), 1, CPU)
    assert len(list(Batches(data, 5, spy, CPU).epoch())) == 5
    assert seen == [36 * first for first in (0, 5, 10, 15, 20)]
    seen.clear()
    list(Batches(data, 5, spy, CPU, shuffle=True).epoch())
    assert seen != [36 * first for first in (0, 5, 10, 15, 20)]


# Augmentation


def test_augmented_batches_are_functions_of_seed_epoch_and_batch() -> None:
    def batches(seed: int = 0, number: int = 22) -> Batches:
        data = Split(split(1).images.expand(number, -1, -1, -1), torch.zeros(number).long())
        return Batches(data, 5, plain(), CPU, shuffle=True, seed=seed, augment=STRONG)

    assert same(batches().epoch(1), batches().epoch(1))
    # Every image is the same, so all that differs comes from the augmentation.
    first = [images for images, _ in batches().epoch(1)]
    assert not torch.equal(first[0], first[1])
    for other in (batches().epoch(2), batches(seed=1).epoch(1)):
        assert not torch.equal(first[0], next(other)[0])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_augmented_epoch_goes_on_from_its_middle(num_workers: int) -> None:
    batches = Batches(split(), 5, plain(), CPU, shuffle=True, augment=STRONG,
                      resident=num_workers == 0, num_workers=num_workers)  # fmt: skip
    whole = list(batches.epoch(3))
    assert same(iter(whole[2:]), batches.epoch(3, start=2))
    assert not same(iter(whole[2:]), batches.epoch(4, start=2))


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_alternating_images_are_mirrored_in_every_other_epoch(share: float) -> None:
    data, changes = split(399), Augment(399, hflip=True, flip=share, alternate=True)
    batches = Batches(data, 7, plain(), CPU, shuffle=True, augment=changes)

    def mirrored(epoch: int, start: int = 0) -> dict[int, bool]:
        seen = {}
        for images, labels in batches.epoch(epoch, start):
            for image, label in zip(images, labels.tolist(), strict=True):
                was = data.images[label].float() / 255
                assert torch.allclose(image, was) != torch.allclose(image, was.flip(-1))
                seen[label] = torch.allclose(image, was.flip(-1))
        return seen

    first, second = mirrored(0), mirrored(1)
    assert all(first[label] != second[label] for label in first)
    assert first == mirrored(2)
    assert second == mirrored(3)
    assert mirrored(1, start=50).items() <= second.items()
    assert stats.binomtest(sum(first.values()), len(first), share).pvalue > 0.001
    assert (
        Batches(data, 7, plain(), CPU, augment=Augment(9, False, flip=1, alternate=True)).augment
        is None
    )


def test_augmentation_that_does_nothing_is_none() -> None:
    data, nothing = split(), Augment(23, hflip=True)
    none = Batches(data, 5, plain(), CPU, shuffle=True, augment=nothing)
    assert none.augment is None
    assert same(none.epoch(1), Batches(data, 5, plain(), CPU, shuffle=True).epoch(1))
    augmented = Batches(data, 5, plain(), CPU, shuffle=True, augment=STRONG)
    for (images, targets), (_, labels) in zip(augmented.epoch(1), none.epoch(1), strict=True):
        assert images.shape == (len(labels), 1, 6, 6)
        heaviest = targets.gather(1, labels.unsqueeze(1)) + targets.gather(
            1, labels.roll(1).unsqueeze(1)
        )
        torch.testing.assert_close(heaviest, torch.ones(len(labels), 1))


# Seeds, and what is resident


def test_a_set_fits_that_leaves_half_of_the_memory_free(monkeypatch: pytest.MonkeyPatch) -> None:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < loader.free_bytes(CPU) <= total
    assert loader.fits(CPU, 1)
    assert not loader.fits(CPU, total)
    monkeypatch.setattr(loader, "free_bytes", lambda device: 1000)
    assert loader.fits(CPU, 500)
    assert not loader.fits(CPU, 501)


def test_seeds_differ_by_purpose_and_place() -> None:
    places = [(s, p, e, b) for s in range(4) for p in ("order", "step") for e in range(9)
              for b in range(9)]  # fmt: skip
    seeds = {derive_seed(seed, purpose, epoch, batch) for seed, purpose, epoch, batch in places}
    assert len(seeds) == len(places)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(0, "order", 1) != derive_seed(1, "order", 0)
    assert derive_seed(0, "order", 0) == 6087065507001435998  # the same on every machine, for good

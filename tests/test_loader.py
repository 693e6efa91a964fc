"""Batches: complete, functions of (seed, epoch, batch) alone, normalised as torchvision does; and
the same bits from a file, read ahead by threads, as from tensors that are resident."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from data import loader
from data.augment import Augment
from data.loader import Batches, Preprocess, enlarged, read_ahead
from data.seeds import derive_seed
from data.types import Split
from trainer.state import WatchedBatches

CPU = torch.device("cpu")
STRONG = Augment(
    23, hflip=True, flip=0.5, rotation=10, crop_padding=0.2, brightness=0.2, contrast=0.2,
    saturation=0.2, hue=0.05, cutout=0.3, mixup=0.4, cutmix=1.0,
)  # fmt: skip


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


def same(ours: Iterator[tuple[Tensor, Tensor]], theirs: Iterator[tuple[Tensor, Tensor]]) -> bool:
    """As many batches, bit for bit."""
    pairs = list(zip(ours, theirs, strict=True))
    assert pairs
    return all(torch.equal(a, b) for mine, other in pairs for a, b in zip(mine, other, strict=True))


def test_augmented_batches_are_functions_of_seed_epoch_and_batch() -> None:
    def batches(seed: int = 0, number: int = 22) -> Batches:
        data = Split(split(1).images.expand(number, -1, -1, -1), torch.zeros(number).long())
        return Batches(data, 5, plain(), CPU, shuffle=True, seed=seed, augment=STRONG)

    assert same(batches().epoch(1), batches().epoch(1))
    # Every picture is the same, so all that differs comes from the augmentation.
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


# Sets that are not resident


@pytest.fixture
def mapped(tmp_path: Path) -> Split:
    """The pictures of `split(channels=3)` in a file that is mapped into memory."""
    data = split(channels=3)
    np.save(tmp_path / "images.npy", data.images.numpy())
    images = np.load(tmp_path / "images.npy", mmap_mode="r+")
    assert isinstance(images, np.memmap)
    return Split(torch.from_numpy(images), data.labels)


@pytest.mark.parametrize("num_workers", [0, 1, 2])
@pytest.mark.parametrize("augment", [None, STRONG], ids=["plain", "strong"])
@pytest.mark.parametrize("shuffle", [True, False])
def test_a_mapped_file_gives_the_bits_of_a_resident_set(
    mapped: Split, num_workers: int, augment: Augment | None, shuffle: bool
) -> None:
    common = {"shuffle": shuffle, "seed": 5, "augment": augment}
    resident = Batches(split(channels=3), 4, plain(3), CPU, **common)  # type: ignore[arg-type]
    brought = Batches(
        mapped, 4, plain(3), CPU, resident=False, num_workers=num_workers,
        **common,  # type: ignore[arg-type]
    )  # fmt: skip
    assert same(resident.epoch(1), brought.epoch(1))
    assert same(resident.epoch(1, start=3), brought.epoch(1, start=3))
    assert no_threads()


def no_threads() -> bool:
    return not [t for t in threading.enumerate() if t.name.startswith("batches")]


def test_threads_end_with_the_epoch_however_it_ends(mapped: Split) -> None:
    batches = Batches(mapped, 2, plain(3), CPU, resident=False, num_workers=2)
    for _ in batches.epoch():
        assert not no_threads()
        break
    assert no_threads()

    def failing() -> None:
        for _ in batches.epoch():
            raise KeyError("the consumer's own")

    with pytest.raises(KeyError, match="the consumer's own") as caught:
        failing()
    del caught  # its traceback holds the loop, and with it the epoch
    assert no_threads()
    list(batches.epoch())
    assert no_threads()


def test_threads_end_while_an_error_of_the_epoch_is_looked_at(mapped: Split) -> None:
    """Its traceback holds on to the epoch's frames."""

    class Broken(Preprocess):
        def __call__(self, images: Tensor) -> Tensor:
            raise RuntimeError("no such kernel")

    broken = Broken((0.0,) * 3, (1.0,) * 3, 1, CPU)
    with pytest.raises(RuntimeError, match="no such kernel") as caught:
        next(Batches(mapped, 2, broken, CPU, resident=False, num_workers=2).epoch())
    assert no_threads()
    assert caught.tb is not None


def test_threads_end_when_watched_batches_are_ended_by_an_error(mapped: Split) -> None:
    def ends() -> bool:
        raise RuntimeError("stopped")

    batches = Batches(mapped, 2, Preprocess((0.0,) * 3, (1.0,) * 3, 1, CPU), CPU,
                      resident=False, num_workers=2)  # fmt: skip
    with pytest.raises(RuntimeError, match="stopped") as caught:
        list(WatchedBatches(batches, ends).epoch())
    assert no_threads()
    assert caught.tb is not None
    assert len(list(WatchedBatches(batches, lambda: False).epoch())) == len(batches)
    assert len(list(WatchedBatches(batches, lambda: True).epoch())) == 1


def test_what_nobody_waits_for_is_not_begun() -> None:
    """One thread, two calls ahead: the first is under way when the consumer stops."""
    begun: list[int] = []
    stopping = threading.Event()

    def call(value: int) -> Tensor:
        begun.append(value)
        if value == 1:
            stopping.wait(20)
            time.sleep(0.3)  # enough for the second to be taken back
        return torch.tensor(value)

    ahead = read_ahead([partial(call, value) for value in range(5)], 1)
    assert next(ahead) == 0
    stopping.set()
    ahead.close()
    assert set(begun) <= {0, 1}


def test_an_error_in_a_thread_is_raised_where_its_batch_would_come(
    mapped: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    gather = loader.gather

    def broken(images: Tensor, index: Tensor, pinned: bool) -> Tensor:
        if 9 in index:
            raise OSError("the disk is gone")
        return gather(images, index, pinned)

    monkeypatch.setattr(loader, "gather", broken)
    batches = Batches(mapped, 4, plain(3), CPU, resident=False, num_workers=2)
    epoch = batches.epoch()
    assert [next(epoch)[1].tolist() for _ in range(2)] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    with pytest.raises(OSError, match="the disk is gone"):
        next(epoch)
    assert no_threads()


def number(value: int, seconds: float = 0.0) -> Tensor:
    time.sleep(seconds)
    return torch.tensor(value)


@pytest.mark.parametrize("num_workers", [0, 1, 2, 3])
def test_reading_ahead_keeps_the_order_and_its_bound(num_workers: int) -> None:
    begun = 0

    def calls() -> Iterator[Callable[[], Tensor]]:
        nonlocal begun
        for value in range(20):
            begun += 1
            yield partial(number, value, 0.003 * (value % 3 == 0))  # some come late

    with_bound = read_ahead(calls(), num_workers)
    assert begun == 0
    for taken, value in enumerate(with_bound, start=1):
        assert value == taken - 1
        assert begun == min(20, taken + 2 * num_workers)
    assert taken == 20


def test_threads_work_at_the_same_time() -> None:
    """Each call waits for the other to have begun."""
    meeting = threading.Barrier(2, timeout=20)

    def meet(value: int) -> Tensor:
        meeting.wait()
        return torch.tensor(value)

    calls = [partial(meet, value) for value in range(4)]
    assert [int(value) for value in read_ahead(calls, 2)] == [0, 1, 2, 3]


def test_a_set_fits_that_leaves_half_of_the_memory_free(monkeypatch: pytest.MonkeyPatch) -> None:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < loader.free_bytes(CPU) <= total
    assert loader.fits(CPU, 1)
    assert not loader.fits(CPU, total)
    monkeypatch.setattr(loader, "free_bytes", lambda device: 1000)
    assert loader.fits(CPU, 500)
    assert not loader.fits(CPU, 501)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("augment", [None, STRONG], ids=["plain", "strong"])
def test_a_gpu_gets_the_same_pictures(mapped: Split, augment: Augment | None) -> None:
    """Through pinned memory and a stream of its own as when resident, while kernels are queued."""
    gpu = torch.device("cuda")
    preprocess = Preprocess((0.4,) * 3, (0.3,) * 3, 1, gpu)
    common = {"shuffle": True, "augment": augment}
    resident = Batches(mapped, 4, preprocess, gpu, **common)  # type: ignore[arg-type]
    brought = Batches(
        mapped, 4, preprocess, gpu, resident=False, num_workers=2,
        **common,  # type: ignore[arg-type]
    )  # fmt: skip
    assert same(resident.epoch(1), brought.epoch(1))
    ours = [labels.cpu() for _, labels in resident.epoch(1)]
    cpu = Batches(split(channels=3), 4, plain(3), CPU, **common)  # type: ignore[arg-type]
    for labels, (_, expected) in zip(ours, cpu.epoch(1), strict=True):
        torch.testing.assert_close(labels, expected)


def test_seeds_differ_by_purpose_and_place() -> None:
    places = [(s, p, e, b) for s in range(4) for p in ("order", "step") for e in range(9)
              for b in range(9)]  # fmt: skip
    seeds = {derive_seed(seed, purpose, epoch, batch) for seed, purpose, epoch, batch in places}
    assert len(seeds) == len(places)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(0, "order", 1) != derive_seed(1, "order", 0)
    assert derive_seed(0, "order", 0) == 6087065507001435998  # the same on every machine, for good

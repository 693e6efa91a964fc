"""Batches of a file, read ahead by threads: the same bits as of a resident set, and no thread
stays behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from data.augment.policy import Augment
from data.loading import batches as loader
from data.loading.batches import Batches
from data.loading.prefetch import read_ahead
from data.loading.preprocess import Preprocess
from data.types import Split
from tests.helpers.batches_parts import CPU, STRONG, plain, same, split
from trainer.training.batches import StoppableBatches


@pytest.fixture
def mapped(tmp_path: Path) -> Split:
    """The images of `split(channels=3)` in a file that is mapped into memory."""
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
        list(StoppableBatches(batches, ends).epoch())
    assert no_threads()
    assert caught.tb is not None
    assert len(list(StoppableBatches(batches, lambda: False).epoch())) == len(batches)
    assert len(list(StoppableBatches(batches, lambda: True).epoch())) == 1


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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("augment", [None, STRONG], ids=["plain", "strong"])
def test_a_gpu_gets_the_same_images(mapped: Split, augment: Augment | None) -> None:
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

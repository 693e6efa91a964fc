"""What goes to the device: the order once an epoch, and all images by one stream."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from data.loading import batches as loader
from data.loading.batches import Batches
from data.loading.preprocess import Preprocess
from tests.helpers.batches_parts import CPU, plain, same, split


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of the int64 tensors that are brought to a device."""
    shapes: list[tuple[int, ...]] = []
    to = Tensor.to

    def spy(tensor: Tensor, *args: object, **options: object) -> Tensor:
        if tensor.dtype == torch.int64 and (args or "device" in options):
            shapes.append(tuple(tensor.shape))
        return to(tensor, *args, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(Tensor, "to", spy)
    return shapes


@pytest.mark.parametrize("resident", [True, False])
def test_the_order_is_sent_once_an_epoch(sent: list[tuple[int, ...]], resident: bool) -> None:
    batches = Batches(split(), 5, plain(), CPU, shuffle=True, resident=resident)
    assert sent == [(23,)]  # the labels, once
    for epoch in range(2):
        sent.clear()
        assert len(list(batches.epoch(epoch))) == 5
        assert sent == [(23,)]
    sent.clear()
    list(Batches(split(), 5, plain(), CPU, resident=resident).epoch())
    assert sent == [(23,)]  # the labels of the new batches; no order


def test_there_is_one_stream_for_all_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a device that stands in for a GPU: the CPU, but for its type."""
    made: list[object] = []

    def to_cuda(device: torch.device) -> Callable[[Tensor], Tensor]:
        made.append(device)
        return lambda images: images

    gpu = SimpleNamespace(type="cuda")
    labels = SimpleNamespace(to=lambda device: torch.arange(23))
    monkeypatch.setattr(loader, "to_cuda", to_cuda)
    monkeypatch.setattr(loader, "gather", lambda images, index, pinned: images[index])

    class Split(SimpleNamespace):
        def __len__(self) -> int:
            return 23

    stood_in = Split(images=split().images, labels=labels, rows=None)
    batches = Batches(stood_in, 5, plain(), gpu, resident=False)  # type: ignore[arg-type]
    expected = Batches(split(), 5, plain(), CPU)
    for epoch in range(3):
        assert same(batches.epoch(epoch), expected.epoch(epoch))
    assert made == [gpu]
    Batches(split(), 5, plain(), CPU, resident=False)
    assert made == [gpu]  # none where there is no GPU


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_epochs_on_a_gpu_keep_no_more_memory() -> None:
    """The allocator keeps blocks for each stream: a new one an epoch would reserve them anew."""
    gpu = torch.device("cuda")
    data = split(64, side=256, channels=3)
    preprocess = Preprocess((0.0,) * 3, (1.0,) * 3, 1, gpu)
    batches = Batches(data, 16, preprocess, gpu, shuffle=True, resident=False, num_workers=2)
    for epoch in range(2):
        list(batches.epoch(epoch))
    reserved = torch.cuda.memory_reserved()
    for epoch in range(2, 8):
        list(batches.epoch(epoch))
    assert torch.cuda.memory_reserved() <= 2 * reserved  # six new streams would have taken more

"""Batches on the device, where pictures are indexed, augmented, cast and normalised.

A set that fits stays there; another is gathered on the CPU, ahead of time by threads.
"""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from data.augment import Augment
from data.memory import free_bytes
from data.seeds import derive_seed
from data.types import Split

Result = TypeVar("Result")

_CHUNK = 1024  # pictures that go to the device at a time


class Preprocess:
    """uint8 pictures -> what a model sees: (x / 255 - mean) / std, sides brought to `min_size`.

    Pictures of 28 px for a net that needs 32 get a black border of 2 px, as LeNet-5's digits had;
    any others that are too small are resized.

    Args:
        mean, std: per channel, in units of pixel / 255.
        min_size: the smallest side in pixels that the net works with.
        device, dtype, memory_format: of the result.
    """

    def __init__(
        self,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        min_size: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> None:
        self.dtype, self.memory_format, self.min_size = dtype, memory_format, min_size
        # Several channels are reordered last: bytes take twice as long to reorder, and arithmetic
        # along channels of three ten times as long.
        self.first_format = memory_format if len(mean) == 1 else torch.contiguous_format
        # One multiplication and one addition per pixel: x * scale - offset.
        scale = 1 / (255 * torch.tensor(std, dtype=torch.float64))
        offset = torch.tensor(mean, dtype=torch.float64) / torch.tensor(std, dtype=torch.float64)
        self.scale = scale.to(device, dtype).view(-1, 1, 1)
        self.offset = offset.to(device, dtype).view(-1, 1, 1)

    def __call__(self, images: Tensor) -> Tensor:
        """(N, C, H, W) uint8 -> (N, C, max(H, min_size), max(W, min_size)) float."""
        return self.lay_out(self.normalize(images))

    def lay_out(self, x: Tensor) -> Tensor:
        """The same in the memory format that the net takes."""
        return x.to(memory_format=self.memory_format)

    def normalize(self, images: Tensor) -> Tensor:
        """All of it but the memory format."""
        size = images.shape[-2:]
        too_small = min(size) < self.min_size
        if too_small and pads(size, self.min_size):
            images, too_small = F.pad(images, (2, 2, 2, 2)), False
        x = images.to(self.dtype, memory_format=self.first_format)
        x = x.mul_(self.scale).sub_(self.offset)
        if too_small:
            x = F.interpolate(x, enlarged(size, self.min_size), mode="bilinear", antialias=True)
        return x


def enlarged(size: tuple[int, ...], min_size: int) -> tuple[int, int]:
    """(H, W) as a net with this min_size sees it."""
    height, width = size
    return max(height, min_size), max(width, min_size)


def pads(size: tuple[int, ...], min_size: int) -> bool:
    """Whether pictures of this (H, W) get a border instead of being resized."""
    return tuple(size) == (28, 28) and min_size == 32


class Batches:
    """One split as batches of (images float (N, C, H, W), targets) on the device.

    Targets are labels, int64 (N,), or probabilities (N, K) where an augmentation mixes pictures.
    The order of an epoch is a function of (seed, epoch) alone, the augmentation of a batch of
    (seed, epoch, batch); neither knows of devices, threads or where an epoch was started. Every
    picture comes once an epoch; a last batch of a single picture is left out when shuffling, since
    batch norm cannot train on it.

    Args:
        split: images on the CPU; they may be a view of a file, which is then read as it is.
        limit: at most so many batches an epoch; 0 = all.
        shuffle: the order given by (seed, epoch); False: the split's own order.
        augment: random changes; None = none.
        resident: keep all pictures on the device; False: bring them there batch by batch.
        num_workers: threads that gather the batches of a set that is not resident, two batches
            ahead each; 0 = none, each is gathered when its turn comes.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        preprocess: Preprocess,
        device: torch.device,
        shuffle: bool = False,
        seed: int = 0,
        limit: int = 0,
        augment: Augment | None = None,
        resident: bool = True,
        num_workers: int = 0,
    ) -> None:
        self.images, self.rows = split.images, split.rows
        if resident and device.type != "cpu":
            self.images, self.rows = own_pictures(split, device), None
        self.labels = split.labels.to(device)
        self.batch_size, self.preprocess, self.device = batch_size, preprocess, device
        self.shuffle, self.seed = shuffle, seed
        self.augment = None if augment is None or augment.does_nothing else augment
        self.resident, self.num_workers = resident, num_workers
        self.bring: Callable[[Tensor], Tensor] = partial(torch.Tensor.to, device=device)
        if device.type == "cuda" and not resident:
            self.bring = to_cuda(device)
        self.num_images = len(split)
        if shuffle and self.num_images % batch_size == 1 and self.num_images > 1:
            self.num_images -= 1
        if limit:
            self.num_images = min(self.num_images, limit * batch_size)

    def __len__(self) -> int:
        """Batches per epoch."""
        return math.ceil(self.num_images / self.batch_size)

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of that epoch, from batch `start` on."""
        order = self.order(epoch) if self.shuffle else None
        labels, there = self.labels, order
        if order is not None:
            there = order.to(self.device)  # once: a copy that the CPU waits for
            labels = labels.index_select(0, there)
        pictures = self._kept(there, start) if self.resident else self._brought(order, start)
        with contextlib.closing(pictures):
            batches = zip(pictures, self._split(labels, start), strict=True)
            if self.augment is None:
                for images, targets in batches:
                    yield self.preprocess(images), targets
                return
            for batch, (images, targets) in enumerate(batches, start):
                yield self._augmented(self.augment, images, targets, epoch, batch)

    def order(self, epoch: int) -> Tensor:
        """(number of pictures in the split,) int64: indices in the shuffled order of that epoch.

        Drawn on the CPU, so that a GPU trains on the same batches.
        """
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "order", epoch))
        return torch.randperm(len(self.labels), generator=generator)

    def _augmented(
        self, augment: Augment, images: Tensor, labels: Tensor, epoch: int, batch: int
    ) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "augment", epoch, batch))
        inputs = self.preprocess.normalize(augment.change_bytes(images, generator))
        inputs, targets = augment.change_inputs(inputs, labels, generator)
        return self.preprocess.lay_out(inputs), targets

    def _split(self, rows: Tensor, start: int) -> tuple[Tensor, ...]:
        """Views of so many rows as belong to each batch."""
        return rows[: self.num_images].split(self.batch_size)[start:]

    def _rows(self, order: Tensor | None) -> Tensor | None:
        """Where the pictures of that order lie in `images`; None: one after the other."""
        if order is None:
            return self.rows
        return order if self.rows is None else self.rows.index_select(0, order)

    def _kept(self, order: Tensor | None, start: int) -> Generator[Tensor, None, None]:
        """(n, C, H, W) uint8 on the device, batch by batch, of a resident set; not to be written
        to. `order` lies on the device."""
        rows = self._rows(order)
        if rows is None:
            yield from self._split(self.images, start)
            return
        for index in self._split(rows, start):
            yield self.images.index_select(0, index)

    def _brought(self, order: Tensor | None, start: int) -> Generator[Tensor, None, None]:
        """The same of pictures that are not on the device. `order` lies on the CPU."""
        rows = self._rows(order)
        rows = torch.arange(len(self.images)) if rows is None else rows
        on_cuda = self.device.type == "cuda"
        calls = (partial(gather, self.images, index, on_cuda) for index in self._split(rows, start))
        with contextlib.closing(read_ahead(calls, self.num_workers)) as gathered:
            for images in gathered:
                yield self.bring(images)


def own_pictures(split: Split, device: torch.device) -> Tensor:
    """The split's own pictures on the device, (N, C, H, W) uint8, and no other's. A chunk at a
    time: in one piece they would be copied on the CPU first, whose memory they may exceed."""
    if split.rows is None:
        return split.images.to(device)
    shape = (len(split), *split.images.shape[1:])
    images = torch.empty(shape, dtype=split.images.dtype, device=device)
    for target, rows in zip(images.split(_CHUNK), split.rows.split(_CHUNK), strict=True):
        target.copy_(split.images.index_select(0, rows))
    return images


def gather(images: Tensor, index: Tensor, pinned: bool) -> Tensor:
    """images[index], in page-locked memory if a GPU is to fetch it from there."""
    shape = (len(index), *images.shape[1:])
    rows = torch.empty(shape, dtype=images.dtype, pin_memory=pinned)
    return torch.index_select(images, 0, index, out=rows)


def read_ahead(
    calls: Iterable[Callable[[], Result]], num_workers: int
) -> Generator[Result, None, None]:
    """What the calls return, in their order, each called in one of `num_workers` threads while
    the consumer is busy, with at most two per thread waiting or under way; 0 = called here.

    A call's error is raised where its result would have come. The threads have ended when the
    generator is exhausted, closed or has raised.
    """
    if num_workers == 0:
        for call in calls:
            yield call()
        return
    ahead: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(num_workers, thread_name_prefix="batches") as pool:
        try:
            for call in calls:
                ahead.append(pool.submit(call))
                if len(ahead) > 2 * num_workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def to_cuda(device: torch.device) -> Callable[[Tensor], Tensor]:
    """A copy from page-locked memory that runs beside the kernels of the training, for which the
    CPU does not wait. torch keeps such memory from being used again until the copy is done."""
    copies = torch.cuda.Stream(device)

    def bring(images: Tensor) -> Tensor:
        with torch.cuda.stream(copies):
            there = images.to(device, non_blocking=True)
        training = torch.cuda.current_stream(device)
        training.wait_stream(copies)
        there.record_stream(training)  # its memory belongs to the stream of the copies
        return there

    return bring


def fits(device: torch.device, num_bytes: int) -> bool:
    """Whether so many bytes of pictures may stay on the device: if they take at most half of what
    is free, which leaves as much for the net."""
    return 2 * num_bytes <= free_bytes(device)

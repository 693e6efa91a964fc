"""Batches on the device, where images are indexed, augmented, cast and normalised.

A dataset that fits stays there; another is gathered on the CPU, ahead of time by threads.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from data.augment.policy import Augment
from data.loading.part import Part
from data.loading.prefetch import read_ahead
from data.loading.preprocess import Preprocess
from data.memory import free_bytes
from data.seeds import derive_seed
from data.types import Split

_CHUNK = 1024  # images that go to the device at a time


class Batches:
    """One split as batches of (images float (N, C, H, W), targets) on the device.

    Targets are labels, int64 (N,), or probabilities (N, K) where an augmentation mixes images.
    The order of an epoch is a function of (seed, epoch) alone, the augmentation of a batch of
    (seed, epoch, batch); neither knows of devices, threads or where an epoch was started. Every
    image comes once an epoch, unless `balanced`; a last batch of a single image is left
    out when shuffling, since batch norm cannot train on it.

    Args:
        split: images on the CPU; they may be a view of a file, which is then read as it is.
        limit: at most so many batches an epoch; 0 = all.
        shuffle: the order given by (seed, epoch); False: the split's own order.
        balanced: with shuffle, each place of the order is drawn: a class, each as likely, then one
            of its images; so an image may come several times an epoch, or not at all.
        augment: random changes; None = none.
        resident: keep all images on the device; False: bring them there batch by batch.
        num_workers: threads that gather the batches of a dataset that is not resident, two batches
            ahead each; 0 = none, each is gathered when its turn comes.
        part: what this process takes of the batches; None: it is the only one. When shuffling it
            divides each batch, else it takes whole batches, so that a model in evaluation mode sees
            the same ones.
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
        part: Part | None = None,
        balanced: bool = False,
    ) -> None:
        self.part = part
        self.images, self.rows = split.images, split.rows
        if resident and device.type != "cpu":
            self.images, self.rows = own_pictures(split, device), None
        self.labels = split.labels.to(device)
        self.batch_size, self.preprocess, self.device = batch_size, preprocess, device
        self.shuffle, self.seed = shuffle, seed
        self.by_class = images_by_class(split.labels) if balanced else None
        self.augment = None if augment is None or augment.is_identity else augment
        self.resident, self.num_workers = resident, num_workers
        self.to_device: Callable[[Tensor], Tensor] = partial(torch.Tensor.to, device=device)
        if device.type == "cuda" and not resident:
            self.to_device = to_cuda(device)
        self.num_images = images_per_epoch(len(split), batch_size, shuffle, limit)

        # With cutmix or mixup, each process needs the row before its own, too.
        self.with_previous = bool(getattr(self.augment, "mixes_images", False))

    def __len__(self) -> int:
        """Batches per epoch that this process has something of."""
        number = math.ceil(self.num_images / self.batch_size)
        if self.part is None or self.shuffle:
            return number
        return len(range(self.part.rank, number, self.part.size))

    @property
    def num_rounds(self) -> int:
        """The same of the process that has the most."""
        number = math.ceil(self.num_images / self.batch_size)
        return number if self.part is None or self.shuffle else math.ceil(number / self.part.size)

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of that epoch, from batch `start` on."""
        order = self.order(epoch) if self.shuffle else None
        labels, order_on_device = self.labels, order
        if order is not None:
            order_on_device = order.to(self.device)  # once: a copy that the CPU waits for
            labels = labels.index_select(0, order_on_device)
        pictures = (
            self._resident_batches(order_on_device, start)
            if self.resident
            else self._streamed_batches(order, start)
        )
        marks = self._marks(epoch, order, start)
        with contextlib.closing(pictures):
            batches = zip(pictures, self._split(labels, start), marks, strict=True)
            for batch, (images, targets, mirrored) in enumerate(batches, start):
                if self.part is not None and self.shuffle:
                    self.part.begin(self._size(batch))
                if self.augment is None:
                    yield self.preprocess(images), targets
                else:
                    changed = self._augmented(self.augment, images, targets, epoch, batch, mirrored)
                    yield changed

    def order(self, epoch: int) -> Tensor:
        """(number of images in the split,) int64: indices in the shuffled order of that epoch.

        Drawn on the CPU, so that a GPU trains on the same batches.
        """
        if self.by_class is None:
            return shuffled(len(self.labels), self.seed, epoch)
        return drawn_by_class(self.by_class, len(self.labels), order_generator(self.seed, epoch))

    def _augmented(
        self,
        augment: Augment,
        images: Tensor,
        labels: Tensor,
        epoch: int,
        batch: int,
        mirrored: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        generator = torch.Generator()
        if self.part is not None:
            generator = self.part.generator(self._size(batch), self.with_previous)
        generator.manual_seed(derive_seed(self.seed, "augment", epoch, batch))
        inputs = self.preprocess.normalize(augment.apply_uint8(images, generator, mirrored))
        inputs, targets = augment.apply_float(inputs, labels, generator)
        if self.part is not None and self.with_previous:
            inputs, targets = inputs[1:], targets[1:]
        return self.preprocess.lay_out(inputs), targets

    def _marks(self, epoch: int, order: Tensor | None, start: int) -> Sequence[Tensor | None]:
        """Of each batch which of its images are mirrored, (n,) bool on the CPU; None: that is not
        a matter of the epoch."""
        if self.augment is None or not self.augment.alternates:
            return [None] * (len(self) - start)
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "mirrored"))
        mirrored = self.augment.mirrored(len(self.labels), epoch, generator)
        return self._split(mirrored if order is None else mirrored[order], start)

    def _size(self, batch: int) -> int:
        """Images in a batch, those of all processes together."""
        return min(self.batch_size, self.num_images - batch * self.batch_size)

    def _split(self, rows: Tensor, start: int) -> tuple[Tensor, ...]:
        """So many rows as belong to each batch, and of those the part of this process."""
        batches = rows[: self.num_images].split(self.batch_size)[start:]
        if self.part is None:
            return batches
        if not self.shuffle:
            return batches[self.part.rank :: self.part.size]
        return tuple(batch[self.part.rows(len(batch), self.with_previous)] for batch in batches)

    def _rows(self, order: Tensor | None) -> Tensor | None:
        """Places where the images of that order lie in `images`; None: one after the other."""
        if order is None:
            return self.rows
        return order if self.rows is None else self.rows.index_select(0, order)

    def _resident_batches(self, order: Tensor | None, start: int) -> Generator[Tensor, None, None]:
        """(n, C, H, W) uint8 on the device, batch by batch, of a resident dataset; not to be
        written to. `order` lies on the device."""
        rows = self._rows(order)
        if rows is None:
            yield from self._split(self.images, start)
            return
        for index in self._split(rows, start):
            yield self.images.index_select(0, index)

    def _streamed_batches(self, order: Tensor | None, start: int) -> Generator[Tensor, None, None]:
        """The same of images that are not on the device. `order` lies on the CPU."""
        rows = self._rows(order)
        rows = torch.arange(len(self.images)) if rows is None else rows
        on_cuda = self.device.type == "cuda"
        calls = (partial(gather, self.images, index, on_cuda) for index in self._split(rows, start))
        with contextlib.closing(read_ahead(calls, self.num_workers)) as gathered:
            for images in gathered:
                yield self.to_device(images)


def images_per_epoch(number: int, batch_size: int, shuffle: bool, limit: int) -> int:
    """Images that an epoch has of `number`, see `Batches`."""
    if shuffle and number % batch_size == 1 and number > 1:
        number -= 1
    return min(number, limit * batch_size) if limit else number


def order_generator(seed: int, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(seed, "order", epoch))


def shuffled(number: int, seed: int, epoch: int) -> Tensor:
    """(number,) int64: indices in the shuffled order of an epoch."""
    return torch.randperm(number, generator=order_generator(seed, epoch))


def images_by_class(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Positions of the images sorted by class, (N,) int64, and the number of images of each class
    that has any, (K,) int64."""
    counts = labels.bincount()
    return labels.argsort(stable=True), counts[counts > 0]


def drawn_by_class(
    by_class: tuple[Tensor, Tensor], number: int, generator: torch.Generator
) -> Tensor:
    """(number,) int64: positions of images, each of a class drawn with equal chances, and of its
    images drawn alike, both with replacement."""
    positions, counts = by_class
    classes = torch.randint(len(counts), (number,), generator=generator)
    share = torch.rand(number, generator=generator, dtype=torch.float64)
    sizes, first = counts[classes], (counts.cumsum(0) - counts)[classes]
    return positions[first + (share * sizes).long().minimum(sizes - 1)]


def own_pictures(split: Split, device: torch.device) -> Tensor:
    """The split's own images on the device, (N, C, H, W) uint8, and no other's. A chunk at a
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


def to_cuda(device: torch.device) -> Callable[[Tensor], Tensor]:
    """A copy from page-locked memory that runs beside the kernels of the training, for which the
    CPU does not wait. torch keeps such memory from being used again until the copy is done."""
    copies = torch.cuda.Stream(device)

    def to_device(images: Tensor) -> Tensor:
        with torch.cuda.stream(copies):
            copied = images.to(device, non_blocking=True)
        training = torch.cuda.current_stream(device)
        training.wait_stream(copies)
        copied.record_stream(training)  # its memory belongs to the stream of the copies
        return copied

    return to_device


def fits(device: torch.device, num_bytes: int) -> bool:
    """True if so many bytes of images may stay on the device: if they take at most half of what
    is free, which leaves as much for the network."""
    return 2 * num_bytes <= free_bytes(device)

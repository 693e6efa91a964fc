"""Random changes of the training images, in their order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Generator, Tensor

from data.augment import ops
from data.augment.resized_crop import random_resized_crop
from data.augment.trivial import trivial_augment


@dataclass
class Augment:
    """Random changes to the batches of a training: to the images as bytes, then to what the
    model would see of them.

    No label loses its meaning: images are mirrored only where the dataset allows it, and mixed
    images get mixed labels. The order is the one in which the options stand here.

    Attributes:
        num_classes: K of the probabilities that mixed images have as labels.
        hflip: a mirrored image keeps its label; False turns `flip` off.
        flip: probability that an image is mirrored left to right.
        alternate: instead of by chance, an image is mirrored in every other epoch; `flip` is then
            the share of those that are mirrored in the first one (Jordan 2024, arXiv 2404.00498,
            section 3.6).
        rotation: largest angle in degrees, to either side.
        crop_padding: width of a black border, as a share of each side, out of which together with
            the image its old size is cut.
        random_resized_crop: smallest area of a part that is brought to the old size, as a share of
            the image; 1 turns it off, too.
        trivial: probability of one of TrivialAugment's operations on an image.
        brightness, contrast, saturation: largest change of a factor that is 1 for no change.
        hue: largest turn, as a share of the colour circle.
        cutout: side of a blank square, as a share of the shorter side.
        mixup, cutmix: alpha of the Beta distribution that gives the share of either image. With
            both on, a batch gets the one or the other.
        mix_probability: that a batch is mixed at all.
        strength: factor of rotation, crop_padding, the colours, cutout, TrivialAugment's magnitudes
            and of what random_resized_crop may leave out.

    0 turns each of them off; none is negative.
    """

    num_classes: int
    hflip: bool
    flip: float = 0.0
    alternate: bool = False
    rotation: float = 0.0
    crop_padding: float = 0.0
    random_resized_crop: float = 0.0
    trivial: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    cutout: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_probability: float = 1.0
    strength: float = 1.0

    on_bytes: list[Callable[[Tensor, Generator], Tensor]] = field(init=False)
    on_inputs: list[Callable[[Tensor, Generator], Tensor]] = field(init=False)
    mixes: list[Callable[[Tensor, Tensor, Generator], tuple[Tensor, Tensor]]] = field(init=False)

    def __post_init__(self) -> None:
        strength = self.strength
        colors = {
            name: getattr(self, name) * strength
            for name in ("brightness", "contrast", "saturation", "hue")
        }
        smallest = 1 - (1 - self.random_resized_crop) * strength
        self.on_bytes, self.on_inputs, self.mixes = [], [], []
        if self.flip and self.hflip and not self.alternate:
            self.on_bytes.append(partial(ops.flip, probability=self.flip))
        if rotation := self.rotation * strength:
            self.on_bytes.append(partial(ops.rotate, degrees=rotation))
        if crop_padding := self.crop_padding * strength:
            self.on_bytes.append(partial(ops.crop, padding=crop_padding))
        if self.random_resized_crop and smallest < 1:
            self.on_bytes.append(partial(random_resized_crop, smallest=smallest))
        if self.trivial and strength:
            changes = partial(trivial_augment, probability=self.trivial, strength=strength)
            self.on_bytes.append(changes)
        if any(colors.values()):
            self.on_bytes.append(partial(ops.jitter_colors, **colors))
        if cutout := self.cutout * strength:
            self.on_inputs.append(partial(ops.cutout, size=cutout))
        if self.mixup and self.mix_probability:
            self.mixes.append(partial(ops.mixup, alpha=self.mixup))
        if self.cutmix and self.mix_probability:
            self.mixes.append(partial(ops.cutmix, alpha=self.cutmix))

    @property
    def mixes_images(self) -> bool:
        """True if an image may be mixed with the one before it in its batch."""
        return bool(self.mixes)

    @property
    def is_identity(self) -> bool:
        return not (self.on_bytes or self.on_inputs or self.mixes or self.alternates)

    @property
    def alternates(self) -> bool:
        """True if `apply_uint8` is to be told which images are mirrored, see `mirrored`."""
        return bool(self.flip) and self.hflip and self.alternate

    def mirrored(self, number: int, epoch: int, generator: Generator) -> Tensor:
        """(number,) bool: which images of a split are mirrored in this epoch, counted from 0.

        Args:
            generator: seeded alike in every epoch.
        """
        first = torch.rand(number, generator=generator) < self.flip
        return first ^ bool(epoch % 2)

    def apply_uint8(
        self, images: Tensor, generator: Generator, mirrored: Tensor | None = None
    ) -> Tensor:
        """(N, C, H, W) uint8 -> the same, before they are normalised.

        Args:
            mirrored: (N,) bool: these are mirrored; None: the choice is `flip`'s.
        """
        if mirrored is not None:
            images = ops.flip_those(images, mirrored)
        for operation in self.on_bytes:
            images = operation(images, generator)
        return images

    def apply_float(
        self, images: Tensor, labels: Tensor, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) float, normalised, and (N,) int64 -> images of the same kind, and labels:
        as they were or, if there is mixing, (N, K) probabilities of the images' dtype in every
        batch, mixed or not, so that a compiled step sees one shape."""
        for operation in self.on_inputs:
            images = operation(images, generator)
        if not self.mixes:
            return images, labels
        targets = images.new_zeros(len(labels), self.num_classes)
        targets.scatter_(1, labels.unsqueeze(1), 1.0)
        # On the CPU, so reading it waits for nothing.
        if torch.rand((), generator=generator).item() >= self.mix_probability:
            return images, targets
        which = int(torch.randint(len(self.mixes), (), generator=generator))
        return self.mixes[which](images, targets, generator)

"""From a dataset's own images to the `Dataset` that was asked for: shape, channels, validation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from data.duplicates.leaks import check_on_leak, notes_on_copies, without_leaks
from data.inspection import notes_on_counts
from data.memory import check_memory
from data.resizing import LUMA, check_channels, to_shape
from data.splits import carve, check_fold, in_fraction
from data.types import DataError, Dataset, Fit, Split


@dataclass(frozen=True)
class Preparation:
    """The keys that every dataset has; refused here, before a file is read or fetched.

    Attributes:
        shape: (C, H, W) as the model sees the images.
        num_classes: number of labels; must be the files' own.
        mean, std: per channel, in units of pixel / 255; see `fit_channels` for their number.
        hflip: a mirrored image keeps its label.
        val_size: fraction of train that becomes validation, 0 < val_size < 1.
        split_seed: which images those are, >= 0.
        fit: how images of another size come to `shape`: "squash" (both sides resized) or "crop"
            (the shorter side resized, the centre taken).
        resize: pixels of the shorter side before the crop; None: those of `shape`.
        folds: number of parts into which all images but the test split are divided, 2 or more;
            0: not at all.
        fold: which of them is held out and takes the place of the test split, 0..folds-1.
        on_leak: where an image is in two splits, "warn", raise an "error", or "drop" it from train
            (and from val where it is in test).
        fraction: share of train that is kept, see `splits.in_fraction`; 1: all of it.
    """

    shape: Sequence[int]
    num_classes: int
    mean: Sequence[float]
    std: Sequence[float]
    hflip: bool
    val_size: float
    split_seed: int
    fit: Fit = "squash"
    resize: int | None = None
    folds: int = 0
    fold: int = 0
    on_leak: str = "warn"
    fraction: float = 1.0

    def __post_init__(self) -> None:
        check_shape(self.shape)
        check_on_leak(self.on_leak)
        check_fit(self.fit, self.resize)
        if not 0 < self.val_size < 1:
            raise DataError(
                f"data.val_size={self.val_size}: must lie between 0 and 1, both excluded: the "
                "fraction of train that is held out for validation, 0.1 for a tenth."
            )
        if self.split_seed < 0:
            raise DataError(f"data.split_seed={self.split_seed}: must be 0 or more.")
        if min(self.std, default=0) <= 0:
            raise DataError(f"data.std={list(self.std)}: must be above 0, one for each channel.")
        check_fold(self.folds, self.fold)
        if not 0 < self.fraction <= 1:
            raise DataError(f"data.fraction={self.fraction}: must be above 0 and at most 1.")

    def check_num_classes(self, own: int) -> None:
        if self.num_classes != own:
            raise DataError(
                f"data.num_classes={self.num_classes}: this dataset has {own} classes. Leave the "
                "key out."
            )

    def dataset(self, train: Split, test: Split, classes: Sequence[str]) -> Dataset:
        """Carves validation out of `train`, or a fold, which then takes the place of `test`, and
        validation; brings all images to `shape`.

        Raises:
            DataError: the keys contradict the images.
        """
        self.check_num_classes(len(classes))
        own_channels, channels = train.images.shape[1], self.shape[0]
        mean = fit_channels("data.mean", self.mean, own_channels, channels)
        std = fit_channels("data.std", self.std, own_channels, channels)
        rest, val, held_out = carve(
            train, self.val_size, self.split_seed, classes, self.folds, self.fold
        )
        test = replace(test, indices=torch.arange(len(test))) if held_out is None else held_out
        leaks, (rest, val, test) = without_leaks(
            {"train": rest, "val": val, "test": test}, self.on_leak, classes
        )
        kept = in_fraction(rest.labels.numpy(), self.fraction, self.split_seed, classes)
        rest = rest if kept.all() else rest.subset(torch.from_numpy(kept))
        notes = (
            *notes_on_fraction(self.fraction, len(rest)),
            *notes_on_fold(self.folds, self.fold, len(test)),
            *notes_on_counts(rest.labels, classes), *notes_on_copies(leaks, classes),
        )  # fmt: skip
        rest, val, test = (
            replace(split, images=self.fitted(split.images)) for split in (rest, val, test)
        )
        return Dataset(
            rest, val, test, tuple(classes), mean, std, self.hflip, notes,
            fit=self.fit, resize=self.resize, held_out=held_out_name(self.folds, self.fold),
            leaks=leaks,
        )  # fmt: skip

    def fitted(self, images: Tensor) -> Tensor:
        """Images, (N, C, H, W) uint8, brought to `shape`: (N, *shape) uint8. Raises DataError."""
        if self.fit == "squash":
            return to_shape(images, self.shape)
        return cropped(images, self.shape, self.resize or min(self.shape[1:]))


def held_out_name(folds: int, fold: int) -> str:
    """Name of what is measured at the end, for reports."""
    return f"fold {fold} of {folds}" if folds else "test"


def notes_on_fold(folds: int, fold: int, num_images: int) -> Iterator[str]:
    if folds:
        yield (
            f"data.folds={folds}: fold {fold} (of 0 to {folds - 1}), {num_images:,} images, is "
            "held out in place of the test split, which plays no part"
        )


def notes_on_fraction(fraction: float, num_images: int) -> Iterator[str]:
    if fraction < 1:
        yield f"data.fraction={fraction}: {num_images:,} images are trained on"


def check_shape(shape: Sequence[int]) -> None:
    if len(shape) != 3 or any(not isinstance(n, int) or n < 1 for n in shape):
        raise DataError(
            f"data.shape={list(shape)}: must be three whole numbers from 1 on: channels, height, "
            "width, for example [1,28,28]."
        )


def check_fit(fit: str, resize: int | None) -> None:
    if fit not in ("crop", "squash"):
        raise DataError(f"data.fit={fit}: must be crop or squash.")
    if resize is not None and fit == "squash":
        raise DataError(
            f"data.resize={resize}: is for data.fit=crop; data.fit=squash resizes both sides to "
            "data.shape. Leave data.resize out."
        )
    if resize is not None and resize < 1:
        raise DataError(f"data.resize={resize}: must be a whole number of pixels from 1 on.")


def fit_channels(
    key: str, values: Sequence[float], own_channels: int, channels: int
) -> tuple[float, ...]:
    """Mean or standard deviation for images that went from `own_channels` to `channels`.

    One value for each channel that the model sees is taken as it is. Else a single value is
    repeated, and three for colour images that become grey are averaged with the weights of grey:
    exact for a mean, and for a standard deviation as far as the colours vary together.
    """
    if len(values) == channels:
        return tuple(values)
    if len(values) == 1:
        return (values[0],) * channels
    if len(values) == own_channels == 3 and channels == 1:
        return (sum(weight * value for weight, value in zip(LUMA, values, strict=True)),)
    raise DataError(
        f"{key}={list(values)} has {len(values)} values; data.shape has {channels} channels. "
        f"Give {channels}, or one for all."
    )


def cropped(images: Tensor, shape: Sequence[int], resize: int) -> Tensor:
    """As `to_shape`, but the shorter side is resized to `resize` and the centre taken, and to the
    last bit as of files, see `images.read_image`."""
    from PIL import Image

    from data.images.fitting import converted, fitted

    check_channels(images.shape[1], shape)
    if tuple(images.shape[1:]) == tuple(shape):
        return images
    check_memory(len(images), shape)
    channels, *size = shape
    done = np.empty((len(images), *size, channels), np.uint8)
    for source, target in zip(images.permute(0, 2, 3, 1).numpy(), done, strict=True):
        picture = Image.fromarray(source.squeeze(2) if source.shape[2] == 1 else source)
        picture = fitted(converted(picture, channels), (size[0], size[1]), resize, "crop")
        target[:] = np.asarray(picture).reshape(target.shape)
    return torch.from_numpy(np.ascontiguousarray(done.transpose(0, 3, 1, 2)))

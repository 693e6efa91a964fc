"""TrivialAugment: one random operation of random strength on each image.

Mueller & Hutter 2021, "TrivialAugment: tuning-free yet state-of-the-art data augmentation" (arXiv
2103.10158), the wide space of its table 7, as torchvision's TrivialAugmentWide has it. Results are
rounded, where torchvision cuts off, so that a value may be one higher.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from data.augment.ops import blend, drawn, grey, integers, send, to_bytes

LEVELS = 31  # from nothing to the full magnitude
# Images (n, C, H, W) uint8 of one operation, and for each its level times strength and sign, -1..1,
# (n,) float -> images. Operations without a sign take the absolute value.
Operation = Callable[[Tensor, Tensor], Tensor]


def trivial_augment(
    images: Tensor, generator: Generator, probability: float, strength: float = 1.0
) -> Tensor:
    """One of OPERATIONS on each image, all equally often, at one of 31 equally spaced levels of
    either sign; with 1 - probability an image stays as it is. (N, C, H, W) uint8 -> the same.

    Args:
        strength: factor of all magnitudes, 0..1.
    """
    number = len(images)
    which = integers(len(OPERATIONS), number, generator)
    level = integers(LEVELS, number, generator) / (LEVELS - 1)
    sign = 2 * integers(2, number, generator) - 1
    chosen = drawn(lambda n: torch.rand(n, generator=generator), number, generator) < probability
    changed, amounts = images.clone(), level * sign * strength
    for place, operation in enumerate(OPERATIONS.values()):
        rows = ((which == place) & chosen).nonzero().flatten()  # on the CPU: no wait for a device
        if len(rows):
            on_device = send(rows, images.device)
            amount = send(amounts[rows], images.device)
            result = operation(images.index_select(0, on_device), amount)
            changed.index_copy_(0, on_device, result)
    return changed


def moved(images: Tensor, to_x: Tensor, to_y: Tensor) -> Tensor:
    """Each pixel from where two rows of a matrix (n, 3) send its centre (x, y, 1), in pixels from
    the upper left corner; the nearest one, black where nothing was."""
    height, width = images.shape[-2:]
    x = torch.arange(width, device=images.device) + 0.5
    y = torch.arange(height, device=images.device) + 0.5

    def coordinate(row: Tensor, side: int) -> Tensor:
        of_x, of_y, shift = row.view(-1, 3, 1, 1).unbind(1)
        return (of_x * x + of_y * y.unsqueeze(1) + shift) * (2 / side) - 1

    grid = torch.stack((coordinate(to_x, width), coordinate(to_y, height)), dim=-1)
    return to_bytes(F.grid_sample(images.float(), grid, mode="nearest", align_corners=False))


def row(of_x: Tensor, of_y: Tensor, shift: Tensor) -> Tensor:
    return torch.stack((of_x, of_y, shift), dim=1)


def identity(images: Tensor, amount: Tensor) -> Tensor:
    return images


def shear_x(images: Tensor, amount: Tensor) -> Tensor:
    one, zero = torch.ones_like(amount), torch.zeros_like(amount)
    return moved(images, row(one, 0.99 * amount, zero), row(zero, one, zero))


def shear_y(images: Tensor, amount: Tensor) -> Tensor:
    one, zero = torch.ones_like(amount), torch.zeros_like(amount)
    return moved(images, row(one, zero, zero), row(0.99 * amount, one, zero))


def translate_x(images: Tensor, amount: Tensor) -> Tensor:
    one, zero = torch.ones_like(amount), torch.zeros_like(amount)
    return moved(images, row(one, zero, -(32 * amount).trunc()), row(zero, one, zero))


def translate_y(images: Tensor, amount: Tensor) -> Tensor:
    one, zero = torch.ones_like(amount), torch.zeros_like(amount)
    return moved(images, row(one, zero, zero), row(zero, one, -(32 * amount).trunc()))


def rotate(images: Tensor, amount: Tensor) -> Tensor:
    """Counter-clockwise by 135 degrees times the amount, about the centre."""
    angle = (135 * amount).deg2rad()
    cos, sin = angle.cos(), angle.sin()
    y, x = (side / 2 for side in images.shape[-2:])
    return moved(
        images, row(cos, -sin, x - cos * x + sin * y), row(sin, cos, y - sin * x - cos * y)
    )


def factor(amount: Tensor) -> Tensor:
    return (1 + 0.99 * amount).view(-1, 1, 1, 1)


def brightness(images: Tensor, amount: Tensor) -> Tensor:
    return to_bytes((images.float() * factor(amount)).clamp_(0, 255))


def colour(images: Tensor, amount: Tensor) -> Tensor:
    """Saturation; images of other than three channels stay."""
    if images.shape[1] != 3:
        return images
    pixels = images.float()
    blend(grey(pixels), pixels, factor(amount))
    return to_bytes(pixels)


def contrast(images: Tensor, amount: Tensor) -> Tensor:
    pixels = images.float()
    blend(grey(pixels).mean(dim=(2, 3), keepdim=True), pixels, factor(amount))
    return to_bytes(pixels)


def sharpness(images: Tensor, amount: Tensor) -> Tensor:
    """Blend with a blurred image, whose border is its own."""
    pixels = images.float()
    if min(images.shape[-2:]) <= 2:
        return images
    channels = images.shape[1]
    kernel = torch.ones(channels, 1, 3, 3, device=images.device)
    kernel[:, :, 1, 1] = 5.0
    blurred = pixels.clone()
    blurred[..., 1:-1, 1:-1] = F.conv2d(pixels, kernel / 13, groups=channels)
    blend(blurred, pixels, factor(amount))
    return to_bytes(pixels)


def posterize(images: Tensor, amount: Tensor) -> Tensor:
    """8 bits down to 2."""
    dropped = (6 * amount.abs()).round().to(torch.uint8).view(-1, 1, 1, 1)
    return images.bitwise_right_shift(dropped).bitwise_left_shift(dropped)


def solarize(images: Tensor, amount: Tensor) -> Tensor:
    """Values from a threshold on inverted, which falls from 255 to 0."""
    threshold = (255 * (1 - amount.abs())).view(-1, 1, 1, 1)
    return torch.where(images.float() >= threshold, 255 - images, images)


def autocontrast(images: Tensor, amount: Tensor) -> Tensor:
    """Each channel stretched to 0..255; one of a single value stays."""
    pixels = images.float()
    low, high = pixels.amin((2, 3), keepdim=True), pixels.amax((2, 3), keepdim=True)
    stretched = (pixels - low) * (255 / (high - low).clamp_min(1))
    return to_bytes(torch.where(high > low, stretched, pixels).clamp_(0, 255))


def equalize(images: Tensor, amount: Tensor) -> Tensor:
    """Each channel by its cumulative histogram, in whole numbers as Pillow does."""
    values = images.flatten(2).long()
    counts = values.new_zeros(*values.shape[:2], 256)
    counts.scatter_add_(2, values, torch.ones_like(values))
    highest = values.amax(2, keepdim=True)
    step = (counts.sum(2, keepdim=True) - counts.gather(2, highest)) // 255
    below = counts.cumsum(2) - counts
    table = ((below + step // 2) // step.clamp_min(1)).clamp_(0, 255)
    equal = table.gather(2, values)
    return torch.where(step > 0, equal, values).to(torch.uint8).view_as(images)


OPERATIONS: dict[str, Operation] = {
    "Identity": identity, "ShearX": shear_x, "ShearY": shear_y, "TranslateX": translate_x,
    "TranslateY": translate_y, "Rotate": rotate, "Brightness": brightness, "Color": colour,
    "Contrast": contrast, "Sharpness": sharpness, "Posterize": posterize, "Solarize": solarize,
    "AutoContrast": autocontrast, "Equalize": equalize,
}  # fmt: skip

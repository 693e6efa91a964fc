"""Each operation: as torchvision's on single images, algebra of mixed labels, distributions,
purity."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as theirs

from data.augment import ops
from tests.helpers.augment_images import constant, random_images, seeded

BYTE_OPS: dict[str, Callable[..., Tensor]] = {
    "flip": partial(ops.flip, probability=0.5),
    "rotate": partial(ops.rotate, degrees=20),
    "crop": partial(ops.crop, padding=0.25),
    "jitter_colors": partial(
        ops.jitter_colors, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.2
    ),
}
MIXES: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "mixup": partial(ops.mixup, alpha=0.8),
    "cutmix": partial(ops.cutmix, alpha=0.8),
}


# Geometry and colours against torchvision


@pytest.mark.parametrize("angle", [-170.0, -30.0, 0.0, 7.5, 60.0])
@pytest.mark.parametrize("size", [(28, 28), (20, 33)])
@pytest.mark.parametrize("channels", [1, 3])
def test_rotation_is_torchvisions(angle: float, size: tuple[int, int], channels: int) -> None:
    images = random_images(2, channels, *size)
    ours = ops.rotated(images, torch.full((2,), angle))
    expected = theirs.rotate(images, angle, InterpolationMode.BILINEAR)
    assert (ours.int() - expected.int()).abs().max() <= 1  # a half may be rounded either way
    assert (ours != expected).float().mean() < 0.01


def test_each_image_is_rotated_by_an_angle_of_its_own() -> None:
    """The angle is read off a bright spot to the right of the centre."""
    images = torch.zeros(400, 1, 65, 65, dtype=torch.uint8)
    images[:, :, 31:34, 56:59] = 255
    turned = ops.rotate(images, seeded(), degrees=20)[:, 0].double()
    y = torch.arange(65).view(-1, 1) - 32
    x = torch.arange(65) - 32
    mass = turned.sum(dim=(1, 2))
    up, right = -(turned * y).sum(dim=(1, 2)) / mass, (turned * x).sum(dim=(1, 2)) / mass
    angles = torch.atan2(up, right).rad2deg().numpy()
    assert stats.kstest(angles, stats.uniform(-20, 40).cdf).pvalue > 0.01


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 16)])
def test_crop_is_one_of_torchvisions_after_its_padding(shape: tuple[int, int, int]) -> None:
    channels, height, width = shape
    border_y, border_x = height // 4, width // 4
    images = random_images(500, channels, height, width)
    cropped = ops.crop(images, seeded(), padding=0.25)
    padded = theirs.pad(images, [border_x, border_y])
    places = [(top, left) for top in range(2 * border_y + 1) for left in range(2 * border_x + 1)]
    found = torch.stack([
        (theirs.crop(padded, top, left, height, width) == cropped).flatten(1).all(dim=1)
        for top, left in places
    ])  # fmt: skip
    assert (found.sum(dim=0) == 1).all()
    assert stats.chisquare(found.sum(dim=1).numpy()).pvalue > 0.01


@pytest.mark.parametrize(("side", "border"), [(28, 4), (32, 4), (64, 8), (224, 28)])
def test_the_border_of_basic_fits_the_image(side: int, border: int) -> None:
    """White images: black lines at one edge tell how far each was moved."""
    images = torch.full((300, 1, side, side), 255, dtype=torch.uint8)
    cropped = ops.crop(images, seeded(), padding=0.125)
    black = (cropped == 0).all(dim=3).squeeze(1)
    assert black.sum(dim=1).max() == border
    assert black[:, 0].any()
    assert black[:, -1].any()


def test_flip_mirrors_its_share_of_the_images() -> None:
    images = random_images(2000)
    flipped = ops.flip(images, seeded(), probability=0.3)
    was = (flipped == theirs.hflip(images)).flatten(1).all(dim=1)
    assert ((flipped == images).flatten(1).all(dim=1) ^ was).all()
    assert stats.binomtest(int(was.sum()), 2000, 0.3).pvalue > 0.01
    torch.testing.assert_close(ops.flip(images, seeded(), 1.0), theirs.hflip(images))
    torch.testing.assert_close(ops.flip(images, seeded(), 0.0), images)


COLORS: list[tuple[str, Callable[[Tensor, float], Tensor]]] = [
    ("brightness", theirs.adjust_brightness),
    ("contrast", theirs.adjust_contrast),
    ("saturation", theirs.adjust_saturation),
    ("hue", theirs.adjust_hue),
]


@pytest.mark.parametrize("on", [[name] for name, _ in COLORS] + [[name for name, _ in COLORS]])
@pytest.mark.parametrize("channels", [1, 3])
def test_colours_are_torchvisions(on: list[str], channels: int) -> None:
    """Theirs in floats, one image at a time, with the numbers that the generator gives."""
    images, strength = (
        random_images(40, channels),
        {name: 0.45 * (name in on) for name, _ in COLORS},
    )
    ours = ops.jitter_colors(images, seeded(), **strength)
    drawing, expected = seeded(), images / 255
    for name, adjust in COLORS:
        if name not in on or (channels == 1 and name in ("saturation", "hue")):
            continue
        low = -0.45 if name == "hue" else 0.55
        factors = low + 0.9 * torch.rand(40, generator=drawing)
        expected = torch.stack(
            [adjust(x, f.item()) for x, f in zip(expected, factors, strict=True)]
        )
    error = (ours - 255 * expected).abs().max()
    assert error < 0.55  # rounding, and their weights of grey, which add up to 0.9999
    assert (not torch.equal(ours, images)) == (channels == 3 or set(on) > {"hue", "saturation"}
                                               or on[0] in ("brightness", "contrast"))  # fmt: skip


def test_colours_stay_in_range_and_take_any_number_of_channels() -> None:
    images = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 4, 4)
    changed = ops.jitter_colors(images, seeded(), 1.0, 1.0, 1.0, 0.5)
    assert (changed[0] == 0).all()  # brightness cannot wrap round
    assert (changed[1] == changed[1, 0, 0, 0]).all()
    assert ops.jitter_colors(random_images(channels=5), seeded(), 0.5, 0.5, 0.5, 0.5).shape[1] == 5


# Cutout, mixup, cutmix


def extent(mask: Tensor) -> tuple[Tensor, Tensor]:
    """(N, H, W) bool -> heights and widths (N,) of what is set, which must be rectangles."""
    rows, columns = mask.any(dim=2), mask.any(dim=1)
    assert torch.equal(mask, rows.unsqueeze(2) & columns.unsqueeze(1))
    return rows.sum(dim=1), columns.sum(dim=1)


@pytest.mark.parametrize("size", [0.25, 0.35])
def test_cutout_blanks_a_square_anywhere(size: float) -> None:
    images = torch.ones(3000, 2, 16, 20)
    cut = ops.cutout(images, seeded(), size)
    assert torch.equal(cut[:, 0], cut[:, 1])
    heights, widths = extent(cut[:, 0] == 0)
    side = round(size * 16)
    assert heights.max() == widths.max() == side
    assert heights.min() < side  # at the border it is cut off
    centres = np.arange(16)
    rows = np.minimum(centres - side // 2 + side, 16) - np.maximum(centres - side // 2, 0)
    assert stats.ttest_1samp(heights.numpy(), rows.mean()).pvalue > 0.01
    hidden = (cut[:, 0] == 0).float().mean(dim=0)
    assert hidden.min() > 0  # every pixel has its turn


def test_mixup_gives_labels_the_shares_of_the_images() -> None:
    """Images whose value is their class: the expected class is the value after mixing, too."""
    number, alpha = 3000, 0.4
    mixed, targets = ops.mixup(constant(number, 2), torch.eye(number), seeded(), alpha)
    expected = targets @ torch.arange(number, dtype=torch.float32)
    torch.testing.assert_close(mixed[:, 0, 0, 0], expected, rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(number))
    share = targets.diagonal()
    torch.testing.assert_close(targets[torch.arange(number), torch.arange(number) - 1], 1 - share)
    assert stats.kstest(share.double().numpy(), stats.beta(alpha, alpha).cdf).pvalue > 0.01


def test_cutmix_gives_labels_the_shares_of_the_pixels() -> None:
    number = 1500
    images = constant(number, 64, 96)
    mixed, targets = ops.cutmix(images, torch.eye(number), seeded(), alpha=1.0)
    other = mixed != images
    torch.testing.assert_close(mixed, torch.where(other, images.roll(1, 0), images))
    extent(other[:, 0])
    share = other.float().mean(dim=(1, 2, 3))
    torch.testing.assert_close(targets.diagonal(), 1 - share)
    torch.testing.assert_close(targets[torch.arange(number), torch.arange(number) - 1], share)
    # The paper's rectangle (appendix A), of real numbers: share 1 - b, centred anywhere.
    random = np.random.default_rng(0)
    part = np.sqrt(1 - random.beta(1, 1, 20_000))
    y, x = random.random((2, 20_000))
    area = 1.0
    for centre in (y, x):
        area = area * (np.minimum(centre + part / 2, 1) - np.maximum(centre - part / 2, 0))
    assert share.mean().item() == pytest.approx(area.mean(), abs=0.02)
    assert share.std().item() == pytest.approx(area.std(), abs=0.02)


@pytest.mark.parametrize("side", [1, 2, 5, 8])
def test_cutout_covers_each_row_as_often_as_its_centres_say(side: int) -> None:
    """Of the `height` rows that the centre may lie in, each covers `side` rows around it."""
    number, height = 40_000, 8
    cut = ops.cutout(torch.ones(number, 1, height, 40), seeded(), side / height)
    rows = (cut[:, 0] == 0).any(dim=2).double().mean(dim=0)
    expected = torch.zeros(height, dtype=torch.float64)
    for centre in range(height):
        first = centre - side // 2
        expected[max(0, first) : first + side] += 1 / height
    assert (rows - expected).abs().max() < 0.01
    assert expected.max() - expected.min() > 0.05 or side == 1  # the twin: another centre shows


@pytest.mark.parametrize("length", [1, 4, 5])
def test_a_span_is_centred_on_any_pixel(length: int) -> None:
    number, side = 40_000, 8
    first, last = ops.span(side, torch.full((number,), (length + 0.9) / side), seeded())
    assert (last - first).max() == length  # not rounded up
    covered = torch.zeros(side, dtype=torch.float64)
    for pixel in range(side):
        covered[pixel] = ((first <= pixel) & (pixel < last)).double().mean()
    expected = torch.zeros(side, dtype=torch.float64)
    for centre in range(side):
        expected[max(0, centre - length // 2) : centre - length // 2 + length] += 1 / side
    assert (covered - expected).abs().max() < 0.01


@pytest.mark.parametrize("alpha", [1e-4, 0.01, 1.0, 100.0])
def test_shares_are_finite_for_any_alpha(alpha: float) -> None:
    share = ops.beta(2000, alpha, seeded())
    assert ((share >= 0) & (share <= 1)).all()
    assert share.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


@pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES)
def test_mixing_keeps_layout_and_dtype(mix: Callable[..., tuple[Tensor, Tensor]]) -> None:
    images = random_images().double().to(memory_format=torch.channels_last)
    mixed, targets = mix(images, torch.eye(8, dtype=torch.float64), seeded())
    assert mixed.is_contiguous(memory_format=torch.channels_last)
    assert mixed.dtype == targets.dtype == torch.float64
    cut = ops.cutout(images, seeded(), 0.5)
    assert cut.is_contiguous(memory_format=torch.channels_last)


# Pure functions of (batch, generator)


@pytest.mark.parametrize("operation", BYTE_OPS.values(), ids=BYTE_OPS)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_byte_operation_is_pure(operation: Callable[..., Tensor], channels: int) -> None:
    images = random_images(64, channels)
    before, state = images.clone(), torch.get_rng_state()
    first = operation(images, seeded())
    assert (first.shape, first.dtype) == (images.shape, torch.uint8)
    assert torch.equal(first, operation(images, seeded()))
    assert not torch.equal(first, operation(images, seeded(1)))
    assert torch.equal(images, before)
    assert torch.equal(torch.get_rng_state(), state)


def test_cutout_is_pure() -> None:
    images = torch.ones(64, 1, 12, 12)
    first, second, other = (ops.cutout(images, seeded(seed), 0.5) for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert (images == 1).all()


def test_one_image_often_gives_many() -> None:
    """Numbers are drawn for each image, not for the batch."""
    images = random_images(1).expand(64, -1, -1, -1)
    for name, operation in BYTE_OPS.items():
        distinct = len(torch.unique(operation(images, seeded()).flatten(1), dim=0))
        assert distinct == 2 if name == "flip" else distinct > 20, name


@pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES)
def test_a_mix_is_pure(mix: Callable[..., tuple[Tensor, Tensor]]) -> None:
    images, targets = random_images().float(), torch.eye(8)
    before, state = images.clone(), torch.get_rng_state()
    first, second, other = (mix(images, targets, seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[1], other[1])
    assert torch.equal(images, before)
    assert torch.equal(targets, torch.eye(8))
    assert torch.equal(torch.get_rng_state(), state)

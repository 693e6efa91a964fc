"""Random changes to a batch of images, one function each.

Each is a pure function of the batch and the generator: it draws its numbers, one set per image,
from a generator on the CPU, so that a GPU sees the same images as a CPU, and computes on the
batch's device without waiting for it. Sizes are shares of a side, so that they fit 28 and 224 px
alike.

Of a batch that several processes divide, each draws the numbers of all images and takes those of
its own (`PartGenerator`), so that an image is changed alike however many processes there are.

Where a formula chooses or blends, it is written in sums and products: on a CPU, `torch.where`, and
`torch.lerp` by one number per image, are not vectorised and take ten times as long.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from data.resizing import LUMA
from data.torch_internals import standard_gamma


class PartGenerator(Generator):
    """Generator for some rows of a batch.

    Attributes:
        number: of rows in the whole batch.
        rows: index of those at hand, int64 (n,) or a slice.
    """

    number: int
    rows: Tensor | slice


def drawn(draw: Callable[[int], Tensor], number: int, generator: Generator) -> Tensor:
    """draw(number), or of a PartGenerator the rows at hand of what is drawn for the whole batch."""
    if isinstance(generator, PartGenerator):
        return draw(generator.number)[generator.rows]
    return draw(number)


def integers(high: int, number: int, generator: Generator) -> Tensor:
    """(number,) int64 on the CPU, 0..high-1."""
    return drawn(lambda n: torch.randint(high, (n,), generator=generator), number, generator)


def crop(images: Tensor, generator: Generator, padding: float) -> Tensor:
    """Black borders of round(padding * side) on all four edges, then a cut of the old size at a
    random place (He et al. 2016, section 4.2: 4 pixels at 32). (N, C, H, W) uint8 -> the same."""
    number, _, height, width = images.shape
    border_y, border_x = round(padding * height), round(padding * width)
    places = torch.stack((
        torch.arange(number),
        integers(2 * border_y + 1, number, generator),
        integers(2 * border_x + 1, number, generator),
    ))  # fmt: skip
    padded = F.pad(images, (border_x, border_x, border_y, border_y))
    # All cuts as a view (N, C, 2 border_y + 1, 2 border_x + 1, H, W), one of which is copied.
    cuts = padded.unfold(2, height, 1).unfold(3, width, 1)
    number_of, top, left = send(places, images.device)
    return cuts[number_of, :, top, left]


def flip(images: Tensor, generator: Generator, probability: float) -> Tensor:
    """Each image mirrored left to right with this probability. (N, C, H, W) -> the same."""
    draws = drawn(lambda n: torch.rand(n, generator=generator), len(images), generator)
    return flip_those(images, draws < probability)


def flip_those(images: Tensor, mirrored: Tensor) -> Tensor:
    """The images of which `mirrored`, (N,) bool on the CPU, is true, mirrored left to right."""
    number = len(images)
    choice = send(torch.arange(number) + number * mirrored, images.device)
    return torch.cat((images, images.flip(-1))).index_select(0, choice)


def rotate(images: Tensor, generator: Generator, degrees: float) -> Tensor:
    """Each image turned about its centre by an angle from -degrees to degrees, bilinear, black
    where nothing was. (N, C, H, W) uint8 -> the same."""
    angles = uniform(len(images), -degrees, degrees, generator)
    return rotated(images, send(angles, images.device))


def rotated(images: Tensor, angles: Tensor) -> Tensor:
    """The images turned counter-clockwise by `angles` (N,), in degrees."""
    height, width = images.shape[-2:]
    cos, sin, zero = torch.cos(angles.deg2rad()), torch.sin(angles.deg2rad()), 0 * angles
    # Where each pixel comes from, in coordinates that run from -1 to 1 over either side.
    to_x = torch.stack((cos, -sin * height / width, zero), dim=1)
    to_y = torch.stack((sin * width / height, cos, zero), dim=1)
    grid = F.affine_grid(torch.stack((to_x, to_y), dim=1), list(images.shape), align_corners=False)
    pixels = F.grid_sample(images.float(), grid, align_corners=False)
    return to_bytes(pixels)


def jitter_colors(
    images: Tensor,
    generator: Generator,
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float,
) -> Tensor:
    """Brightness, contrast, saturation, hue, in this order, rounded once at the end.

    The first three are factors from max(0, 1 - x) to 1 + x, the last a turn of the colour circle
    from -hue to hue; 0 leaves out each. Saturation and hue are left out unless there are three
    channels. (N, C, H, W) uint8 -> the same.
    """
    number, channels = images.shape[:2]
    pixels = images.float()

    def per_image(low: float, high: float) -> Tensor:
        return send(uniform(number, low, high, generator), images.device).view(-1, 1, 1, 1)

    def factors(strength: float) -> Tensor:
        return per_image(max(0.0, 1 - strength), 1 + strength)

    if brightness:
        pixels.mul_(factors(brightness)).clamp_(0, 255)
    if contrast:
        blend(grey(pixels).mean(dim=(2, 3), keepdim=True), pixels, factors(contrast))
    if saturation and channels == 3:
        blend(grey(pixels), pixels, factors(saturation))
    if hue and channels == 3:
        pixels = hue_turned(pixels, per_image(-hue, hue))
    return to_bytes(pixels)


def blend(from_zero: Tensor, pixels: Tensor, factor: Tensor) -> None:
    """Makes of `pixels`, in place, `from_zero` at factor 0, themselves at 1, and what lies beyond
    from there on. In place, since on a CPU fresh memory takes longer than the arithmetic."""
    pixels.sub_(from_zero).mul_(factor).add_(from_zero).clamp_(0, 255)


def grey(pixels: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, 1, H, W): ITU-R BT.601 for three channels, else their mean."""
    if pixels.shape[1] != 3:
        return pixels.mean(dim=1, keepdim=True)
    red, green, blue = pixels.split(1, dim=1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


def hue_turned(pixels: Tensor, turn: Tensor) -> Tensor:
    """The colour of each pixel moved round the circle of hues by `turn` (N, 1, 1, 1), 1 being all
    the way round; its largest and smallest channel stay what they are. (N, 3, H, W) float."""
    red, green, blue = pixels.split(1, dim=1)
    largest = torch.maximum(torch.maximum(red, green), blue)
    chroma = largest - torch.minimum(torch.minimum(red, green), blue)
    divisor = chroma.clamp_min(1e-6)  # a grey pixel has no hue, and stays as it is with any
    # In sixths of the circle, red at 0. Blue's formula, unless green is the largest, or red is.
    hue = 4 + (red - green) / divisor
    hue.lerp_(2 + (blue - red) / divisor, (largest == green).to(hue.dtype))
    hue.lerp_((green - blue) / divisor, (largest == red).to(hue.dtype))
    # A channel is at the largest value within one sixth of its own hue, at the smallest beyond two
    # sixths, and falls in a line between.
    own_hue = torch.arange(0, 6, 2, device=pixels.device).view(1, 3, 1, 1)
    apart = (hue + 6 * turn) - own_hue
    apart.sub_((apart / 6).round_(), alpha=6).abs_()  # either way round, whichever is shorter
    return apart.sub_(1).clamp_(0, 1).mul_(-chroma).add_(largest)


def cutout(images: Tensor, generator: Generator, size: float) -> Tensor:
    """A square of 0 in each image, its centre anywhere in it, its side round(size * the shorter
    side), what lies beyond the border cut off (DeVries & Taylor 2017). On normalised images, as
    there, 0 is the mean colour. The border is covered less often than the middle; an even side
    reaches a pixel further up and left of its centre, as in the authors' code.

    (N, C, H, W) float -> the same.
    """
    number, _, height, width = images.shape
    side = round(size * min(height, width))
    top = integers(height, number, generator) - side // 2
    left = integers(width, number, generator) - side // 2
    bounds = torch.stack((top, top + side, left, left + side))
    return images * outside(images, bounds)


def mixup(
    images: Tensor, targets: Tensor, generator: Generator, alpha: float
) -> tuple[Tensor, Tensor]:
    """x = b x_i + (1 - b) x_j, t = b t_i + (1 - b) t_j with b ~ Beta(alpha, alpha) for each image
    (Zhang et al. 2018, section 2); j is the one before i, for the batch is in random order.

    images (N, C, H, W) float, targets (N, K) probabilities -> the same.
    """
    share = send(beta(len(images), alpha, generator).to(images.dtype), images.device)
    return blended(images, share.view(-1, 1, 1, 1)), blended(targets, share.view(-1, 1))


def cutmix(
    images: Tensor, targets: Tensor, generator: Generator, alpha: float
) -> tuple[Tensor, Tensor]:
    """A rectangle of each image replaced by the same of the one before it, and of the target the
    share of the pixels that came from there (Yun et al. 2019, section 3.1 and appendix A).

    It is centred anywhere, sqrt(1 - b) of each side long with b ~ Beta(alpha, alpha), and cut off
    at the border. images (N, C, H, W) float, targets (N, K) probabilities -> the same.
    """
    height, width = images.shape[-2:]
    part = (1 - beta(len(images), alpha, generator)).sqrt()
    top, bottom = span(height, part, generator)
    left, right = span(width, part, generator)
    share = 1 - (bottom - top) * (right - left) / (height * width)
    share = send(share.to(images.dtype), images.device)
    own = outside(images, torch.stack((top, bottom, left, right)))
    return blended(images, own), blended(targets, share.view(-1, 1))


def span(side: int, part: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """First and last pixel (excluded) of a stretch of `part` of a side, centred on any pixel of it,
    within it. (N,) -> (N,), (N,) int64."""
    length = (part * side).long()
    first = integers(side, len(part), generator) - length // 2
    return first.clamp(0, side), (first + length).clamp(0, side)


def outside(images: Tensor, bounds: Tensor) -> Tensor:
    """(N, 1, H, W) of the images' dtype: 0 where top <= y < bottom and left <= x < right, else 1.
    bounds (4, N) int64 on the CPU: top, bottom, left, right."""
    top, bottom, left, right = send(bounds, images.device).view(4, -1, 1)
    y = torch.arange(images.shape[-2], device=images.device)
    x = torch.arange(images.shape[-1], device=images.device)
    rows, columns = (top <= y) & (y < bottom), (left <= x) & (x < right)
    return (~(rows.unsqueeze(2) & columns.unsqueeze(1))).unsqueeze(1).to(images.dtype)


def blended(batch: Tensor, share: Tensor) -> Tensor:
    """`share` of each entry and the rest of the one before it, of the first's the last."""
    before = torch.cat((batch[-1:], batch[:-1]))  # unlike torch.roll it keeps the memory format
    return (batch * share).add_(before.mul_(1 - share))


def beta(number: int, alpha: float, generator: Generator) -> Tensor:
    """(number,) float64 of Beta(alpha, alpha): X / (X + Y), both of Gamma(alpha).

    In logarithms, where Gamma(a) is Gamma(a + 1) * U ** (1 / a) (Marsaglia & Tsang 2000, section
    6): of a small alpha both would be 0 in floating point, and the share one half.
    """

    def draw(number: int) -> Tensor:
        ones = torch.ones(2, number, dtype=torch.float64)
        gamma = standard_gamma((alpha + 1) * ones, generator)
        uniform = 1 - torch.rand(2, number, dtype=torch.float64, generator=generator)  # above 0
        logs = gamma.log() + uniform.log() / alpha
        return (logs[0] - logs[1]).sigmoid()

    return drawn(draw, number, generator)


def uniform(number: int, low: float, high: float, generator: Generator) -> Tensor:
    """(number,) float32 on the CPU."""
    return drawn(
        lambda n: torch.empty(n).uniform_(low, high, generator=generator), number, generator
    )


def send(drawn: Tensor, device: torch.device) -> Tensor:
    """Numbers drawn on the CPU, on the device, without waiting for it. A few of them the driver
    takes along from any memory; of more than 64 KB it may wait, unless they are page-locked."""
    if device.type == "cuda" and drawn.nbytes > 2**16:
        drawn = drawn.pin_memory()
    return drawn.to(device, non_blocking=True)


def to_bytes(pixels: Tensor) -> Tensor:
    """float 0..255 -> uint8, rounded."""
    return pixels.round_().to(torch.uint8)

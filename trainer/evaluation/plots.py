"""Plots of results: a confusion matrix, a grid of images, an image with its classes below it.

All are Pillow images in RGB, with text in the font that Pillow brings.
"""

from __future__ import annotations

import base64
import bisect
import functools
import io
import math
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from trainer.evaluation.confusion import most_common_confusions

if TYPE_CHECKING:
    from torch import Tensor

WHITE, INK, FAINT, HUE = (255, 255, 255), (34, 34, 34), (190, 190, 190), (8, 69, 148)
# In pixels.
TEXT, SMALLEST_TEXT = 15, 9
GAP = 8
LARGEST_CELL, MATRIX_SIDE, LARGEST_MATRIX = 96, 640, 1200
NUM_CONFUSIONS = 25  # in place of a matrix with more classes than pixels
LONGEST_NAME = 150
THUMBNAIL = 128  # the longer side of an image on a page
TILE = 128  # an image's longer side in a grid, about
ANNOTATED_WIDTH, ANNOTATED_SIDE = 360, 1024  # the least width, the greatest side


def confusion(cells: Tensor, classes: Sequence[str]) -> Image.Image:
    """A matrix; of more classes than it could have pixels, their most common confusions.

    Args:
        cells: (M, 3) whole numbers, on the CPU: true class, predicted one, count. classes: the K
            names.
    """
    draw = confusion_matrix if len(classes) <= LARGEST_MATRIX else confusion_list
    return draw(cells, classes)


def confusion_list(cells: Tensor, classes: Sequence[str]) -> Image.Image:
    """A line for each: how many images of which class were predicted as which. See `confusion`."""
    shown = most_common_confusions(cells.tolist(), NUM_CONFUSIONS)
    lines = [f"The most common confusions of {len(classes):,} classes" if shown
             else f"No misclassifications among {len(classes):,} classes"]  # fmt: skip
    for true, predicted, count in shown:
        names = [
            _cut(drawable(classes[k], k), TEXT, MATRIX_SIDE // 3) for k in (true, predicted)
        ]  # fmt: skip
        lines.append(f"{count:,}:  {names[0]}  predicted as  {names[1]}")
    step = TEXT + GAP
    image = Image.new("RGB", (MATRIX_SIDE, step * len(lines) + GAP), WHITE)
    draw = ImageDraw.Draw(image)
    for row, line in enumerate(lines):
        _write(draw, (GAP, GAP + row * step), line, TEXT, "lt")
    return image


def confusion_matrix(cells: Tensor, classes: Sequence[str]) -> Image.Image:
    """Rows the true class, columns the predicted one, from white (none of the row) to full colour
    (all of it). The shade goes by the square root of the share, so that what is rare shows. Counts
    stand in the cells if they fit; of more than a hundred classes some are not named. See
    `confusion`.
    """
    num = len(classes)
    counts = np.zeros((num, num), dtype=np.int64)
    true, predicted, values = np.asarray(cells).T
    counts[true, predicted] = values
    cell = min(LARGEST_CELL, max(MATRIX_SIDE // num, min(SMALLEST_TEXT + 2, LARGEST_MATRIX // num)))
    cell, side = max(1, cell), max(1, cell) * num
    size = min(TEXT, max(SMALLEST_TEXT, cell - 2))
    names = [_cut(drawable(name, i), size, LONGEST_NAME) for i, name in enumerate(classes)]
    widest = max(_width(name, size) for name in names)
    below = size if widest <= cell - 4 else widest
    left, top, scale_side = 2 * TEXT + 2 * GAP + widest, GAP, max(side, 8 * TEXT)
    height = top + max(side + below + TEXT + 3 * GAP, scale_side + GAP)
    image = Image.new("RGB", (left + side + 7 * TEXT, height), WHITE)
    draw = ImageDraw.Draw(image)

    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    image.paste(_shaded(shares).resize((side, side), Image.Resampling.NEAREST), (left, top))
    draw.rectangle((left - 1, top - 1, left + side, top + side), outline=FAINT)
    _write_counts(draw, counts, shares > 0.25, cell, left, top)
    for k in range(0, num, math.ceil((SMALLEST_TEXT + 2) / cell)):
        middle = k * cell + cell // 2
        _write(draw, (left - GAP, top + middle), names[k], size, "rm")
        if below == size:
            _write(draw, (left + middle, top + side + GAP), names[k], size, "mt")
        else:
            _write_upward(image, (left + middle, top + side + GAP), names[k], size)
    _write(draw, (left + side // 2, top + side + below + 2 * GAP), "predicted", TEXT, "mt")
    _write_upward(image, (TEXT, top + (side - _width("true", TEXT)) // 2), "true", TEXT)
    _draw_scale(image, left + side + TEXT, top, scale_side)
    return image


def picture_grid(pictures: Tensor, captions: Sequence[str]) -> Image.Image:
    """Images in rows, about as many as columns, each over its caption.

    Args:
        images: (N, C, H, W) uint8, on the CPU; of other than 3 channels the first is shown.
        captions: of one or more lines each; lines that are too long are cut.
    """
    tiles = [_tile(pixels) for pixels in np.asarray(pictures)]
    width = max([tile.width for tile in tiles], default=TILE)
    height = max([tile.height for tile in tiles], default=TILE)
    line_height = TEXT + 4
    text_height = line_height * max([caption.count("\n") + 1 for caption in captions], default=1)
    step_x, step_y = max(width, TILE) + GAP, height + text_height + 2 * GAP
    columns = max(1, math.ceil(math.sqrt(len(tiles))))
    rows = max(1, math.ceil(len(tiles) / columns))
    image = Image.new("RGB", (columns * step_x + GAP, rows * step_y + GAP), WHITE)
    draw = ImageDraw.Draw(image)
    for i, (tile, caption) in enumerate(zip(tiles, captions, strict=True)):
        x, y = GAP + i % columns * step_x, GAP + i // columns * step_y
        image.paste(tile, (x, y))
        for k, line in enumerate(caption.split("\n")):
            line = _cut(line, TEXT, step_x - GAP)
            _write(draw, (x, y + tile.height + 4 + k * line_height), line, TEXT, "lt")
    return image


def data_uri(pixels: Tensor) -> str:
    """(C, H, W) uint8 as a PNG in a data: URI; of other than 3 channels the first is shown."""
    shown = pixels.permute(1, 2, 0) if len(pixels) == 3 else pixels[0]
    image = Image.fromarray(np.ascontiguousarray(shown.numpy()))
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def annotated(picture: Image.Image, top: Sequence[tuple[str, float]]) -> Image.Image:
    """An image, enlarged until text fits below it, over a bar for each (class, probability)."""
    scale = min(ANNOTATED_SIDE / max(picture.size), max(1, ANNOTATED_WIDTH / picture.width))
    picture = _scaled(picture.convert("RGB"), scale)
    width = max(ANNOTATED_WIDTH, picture.width)
    size = max(TEXT, width // 32)
    step = 2 * size
    image = Image.new("RGB", (width, picture.height + GAP + step * len(top)), WHITE)
    image.paste(picture, ((width - picture.width) // 2, 0))
    draw = ImageDraw.Draw(image)
    for k, (name, probability) in enumerate(top):
        y = picture.height + GAP + k * step
        percent = f"{100 * probability:.1f} %"
        room = width - 3 * GAP - _width("100.0 %", size)
        _write(draw, (GAP, y), _cut(name, size, room), size, "lt")
        _write(draw, (width - GAP, y), percent, size, "rt")
        bar = (GAP, y + size + 3, width - GAP, y + size + 3 + size // 4)
        draw.rectangle(bar, fill=(235, 235, 235))
        if probability * (width - 2 * GAP) >= 1:
            draw.rectangle((*bar[:2], GAP + probability * (width - 2 * GAP), bar[3]), fill=HUE)
    return image


def drawable(name: str, number: int) -> str:
    """A class's name in characters that the font has: accents are left out; where that is not
    enough, its number."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
    return plain if all(c.isprintable() and _has(c) for c in plain) else str(number)


@functools.cache
def _has(character: str) -> bool:
    missing = bytes(_font(TEXT).getmask("\uffff"))
    return bytes(_font(TEXT).getmask(character)) != missing


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _width(text: str, size: int) -> int:
    return math.ceil(_font(size).getlength(text))


def _cut(text: str, size: int, width: int) -> str:
    """The text, or as much of it as fits, with an ellipsis."""
    shown = text[: max(1, width)]  # no character is narrower than a pixel
    if shown == text and _width(text, size) <= width:
        return text
    length = bisect.bisect_right(
        range(len(shown)), width, key=lambda n: _width(shown[: n + 1] + "...", size)
    )
    return shown[:length] + "..."


def _write(
    draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, size: int, anchor: str,
    colour: tuple[int, int, int] = INK,
) -> None:  # fmt: skip
    draw.text(at, text, colour, _font(size), anchor=anchor)


def _write_upward(image: Image.Image, at: tuple[int, int], text: str, size: int) -> None:
    """Text that reads from below to above, its end at the top, `at` being the middle of that."""
    line = Image.new("L", (max(1, _width(text, size)), size + 4))
    ImageDraw.Draw(line).text((0, line.height // 2), text, 255, _font(size), anchor="lm")
    mask = line.transpose(Image.Transpose.ROTATE_90)
    image.paste(INK, (at[0] - mask.width // 2, at[1]), mask)


def _write_counts(
    draw: ImageDraw.ImageDraw, counts: NDArray[np.integer], dark: NDArray[np.bool_],
    cell: int, left: int, top: int,
) -> None:  # fmt: skip
    """In every cell but the empty ones, if the greatest fits: a matrix is no place for some."""
    longest = f"{counts.max()}"
    size = next(
        (s for s in range(TEXT, SMALLEST_TEXT - 1, -1) if _width(longest, s) <= cell - 4), 0
    )
    if not size or size > cell - 2:
        return
    for row, column in zip(*counts.nonzero(), strict=True):
        at = left + column * cell + cell // 2, top + row * cell + cell // 2
        colour = WHITE if dark[row, column] else INK
        _write(draw, at, f"{counts[row, column]}", size, "mm", colour)


def _shaded(shares: NDArray[np.floating]) -> Image.Image:
    """(H, W) shares, 0..1, as an image of that size."""
    white, hue = np.array(WHITE), np.array(HUE)
    mixed = white + np.sqrt(shares)[..., None] * (hue - white)
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


def _draw_scale(image: Image.Image, left: int, top: int, side: int) -> None:
    """Scale of the shades, beside the matrix. Its length grows as the shade does."""
    column = np.square(np.linspace(1, 0, side))[:, None].repeat(TEXT, axis=1)
    image.paste(_shaded(column), (left, top))
    draw = ImageDraw.Draw(image)
    draw.rectangle((left - 1, top - 1, left + TEXT, top + side), outline=FAINT)
    for percent in (100, 50, 25, 10, 1, 0):
        y = top + round((1 - math.sqrt(percent / 100)) * side)
        _write(draw, (left + TEXT + 6, y), f"{percent} %", 12, "lm")


def _tile(pixels: NDArray[np.uint8]) -> Image.Image:
    """(C, H, W) as an image of about TILE pixels; small ones keep their pixels as squares."""
    shown = pixels.transpose(1, 2, 0) if len(pixels) == 3 else pixels[0]
    return _scaled(
        Image.fromarray(np.ascontiguousarray(shown)).convert("RGB"), TILE / max(pixels.shape[1:])
    )


def _scaled(picture: Image.Image, scale: float) -> Image.Image:
    """Enlarged by a whole factor, pixel by pixel; or made smaller."""
    if scale >= 1:
        scale, how = round(scale), Image.Resampling.NEAREST
    else:
        how = Image.Resampling.LANCZOS
    width, height = (max(1, round(n * scale)) for n in picture.size)
    return picture if scale == 1 else picture.resize((width, height), how)

"""Nearly equal images: candidates by a small descriptor, judged by `data.duplicates.alignment`.

The descriptor of an image is the low frequencies of its grey thumbnail (cosine transform, each
times its frequency, for photographs have less of what is fine; unit length), which light and
contrast do not change. All pairs are compared, by matrix products, under shifts of up to a pixel;
the most similar few of each image are candidates. One thread for each core works at it; torch's own
should be one (`torch.set_num_threads`), or they wait for each other.

After Barz and Denzler, "Do we train on test data? Purging CIFAR of near-duplicates", J. Imaging 6
(2020), with fixed features in place of a trained network's, and a judgment by pixels in place of
theirs by eye.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor
from torch.nn import functional as F

from data.digests import num_cores
from data.duplicates.alignment import errors_of
from data.resizing import LUMA
from data.types import Split

LEAST_SIDE = 16  # pixels: in smaller images nothing tells copies from others
MOST_IMAGES = 200_000  # their pairs take a quarter of an hour on two cores
_SIDE = 32  # of thumbnails, at most
_FREQUENCIES = 10  # per axis, the mean included
_FLOOR = 0.8  # similarity of candidates
_PER_IMAGE = 2  # candidates after it, at most: groups are linked through others
_FLAT = 3.0  # levels of grey, standard deviation: nearly one colour, and like any other such
_ROWS, _COLUMNS = 256, 2048  # of a block of similarities, which stays in the cache
_LARGEST_ERROR, _SMALLEST_BOUND = 0.11, 1e-3
_CROWD, _CLEAR, _FEW = 0.2, 1.4, 10  # see _bound
_SHIFTS = [(y, x) for y in (0, 1, -1) for x in (0, 1, -1)]

Pairs = tuple[Tensor, Tensor]  # numbers of images


def near_copies(
    splits: Sequence[Split], skipped: Sequence[int] = (), step: Callable[[int], object] = id
) -> list[list[int]]:
    """Groups of two or more nearly equal images, as ascending numbers that count on from split to
    split. All images have one shape, of at least LEAST_SIDE pixels.

    Args:
        skipped: images that are not looked at, such as all but one of equal ones.
        step: called with the number of images that are done.
    """
    thumbnails = torch.cat([_thumbnails(images) for s in splits for images in s.chunks()])
    grey = torch.cat([_grey(part) for part in thumbnails.split(4096)])
    looked_at = grey.flatten(1).std(1) >= _FLAT
    looked_at[torch.tensor(skipped, dtype=torch.int64)] = False
    numbers = looked_at.nonzero()[:, 0]
    if len(numbers) < 2:
        return []
    first, second = _candidates(grey[numbers], step)
    first, second = numbers[first], numbers[second]
    errors = errors_of(thumbnails, first, second)
    found = errors < _bound(errors, len(numbers))
    return _joined(first[found].tolist(), second[found].tolist())


def _thumbnails(images: Tensor) -> Tensor:
    """(n, C, S, S) uint8 of (n, C, H, W)."""
    height, width = images.shape[2:]
    side = min(_SIDE, max(height, width))
    if (height, width) == (side, side):
        return images
    small = F.interpolate(images.float(), (side, side), mode="bilinear", antialias=True)
    return small.round().clamp(0, 255).byte()


def _grey(images: Tensor) -> Tensor:
    """(n, S, S) float32."""
    if images.shape[1] != 3:
        return images.float().mean(1)
    return torch.einsum("nchw,c->nhw", images.float(), torch.tensor(LUMA))


def descriptors(grey: Tensor) -> Tensor:
    """(n, D) of unit length, of (n, S, S)."""
    side = grey.shape[-1]
    k = torch.arange(_FREQUENCIES)
    waves = torch.cos(math.pi * (torch.arange(side) + 0.5) * k[:, None] / side)
    frequency = torch.hypot(k[:, None].float(), k.float())
    kept = (frequency > 0) & (frequency < _FREQUENCIES)
    found = (waves @ grey @ waves.T * frequency)[:, kept]
    return F.normalize(found)


def _shifted(grey: Tensor) -> Tensor:
    """Descriptors of the images moved by each of _SHIFTS: (9, n, D); edges are repeated."""
    side = grey.shape[-1]
    padded = F.pad(grey[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    return torch.stack([
        descriptors(padded[:, 1 + y : 1 + y + side, 1 + x : 1 + x + side]) for y, x in _SHIFTS
    ])  # fmt: skip


def _candidates(grey: Tensor, step: Callable[[int], object]) -> Pairs:
    """Each image with the most similar of those after it, if similar enough."""
    turned = torch.cat([descriptors(part) for part in grey.split(4096)]).T.contiguous()

    def of_rows(start: int) -> Pairs:
        moved = _shifted(grey[start : start + _ROWS])
        rows = moved.shape[1]
        best = [
            _similar(moved.flatten(0, 1) @ turned[:, first : first + _COLUMNS], rows, start, first)
            for first in range(start, len(grey), _COLUMNS)
        ]
        step(rows)
        return _few(*(torch.cat(parts) for parts in zip(*best, strict=True)))

    with ThreadPoolExecutor(num_cores()) as pool:
        found = list(pool.map(of_rows, range(0, len(grey), _ROWS)))
    first, second = (torch.cat(parts) for parts in zip(*found, strict=True))
    return first, second


def _similar(products: Tensor, rows: int, start: int, first: int) -> tuple[Tensor, Tensor, Tensor]:
    """Row, column and similarity of the pairs of a block that are similar enough."""
    similarity = products.view(len(_SHIFTS), rows, -1).amax(0)
    if first < start + rows:  # each pair once, and no image with itself
        similarity = similarity.triu(start - first + 1)
    if (similarity > _FLOOR).sum() > 4 * rows * _PER_IMAGE:  # crowded
        best, columns = similarity.topk(min(_PER_IMAGE, similarity.shape[1]), dim=1)
        row, place = (best > _FLOOR).nonzero(as_tuple=True)
        return row + start, columns[row, place] + first, best[row, place]
    row, column = (similarity > _FLOOR).nonzero(as_tuple=True)
    return row + start, column + first, similarity[row, column]


def _few(row: Tensor, column: Tensor, similarity: Tensor) -> Pairs:
    """The most similar _PER_IMAGE of each row."""
    order = similarity.argsort(descending=True, stable=True)
    order = order[row[order].argsort(stable=True)]
    row, column = row[order], column[order]
    kept = torch.arange(len(row)) - torch.searchsorted(row, row) < _PER_IMAGE
    return row[kept], column[kept]


def _bound(errors: Tensor, num_images: int) -> float:
    """Error below which pairs are copies: _LARGEST_ERROR, and less where many images are alike.

    Among images that are no copies, the number of pairs with an error below t grows at least as
    t ** 3, as it does in any space of three dimensions or more: seven times as many lie between t
    and 2 t as below t. Copies are what lies below t beyond that. So where more than _CROWD of the
    images have one that is alike (trousers among trousers), the bound is halved until there are
    _CLEAR times as many pairs below it as right above, or too few to tell.
    """
    bound = _LARGEST_ERROR
    if int((errors < 2 * bound).sum()) < _CROWD * num_images:
        return bound
    while bound > _SMALLEST_BOUND:
        below = int((errors < bound).sum())
        above = int((errors < 2 * bound).sum()) - below
        if above < _FEW or below >= _CLEAR * above:
            return bound
        bound /= 2
    return 0.0


def _joined(first: Sequence[int], second: Sequence[int]) -> list[list[int]]:
    """Groups that pairs link."""
    parent: dict[int, int] = {}

    def root(number: int) -> int:
        while parent.setdefault(number, number) != number:
            parent[number] = number = parent[parent[number]]
        return number

    for a, b in zip(first, second, strict=True):
        parent[root(b)] = root(a)
    groups: dict[int, list[int]] = {}
    for number in sorted(parent):
        groups.setdefault(root(number), []).append(number)
    return list(groups.values())

"""Alignment of pairs of images, and what then differs between them.

One image is moved and scaled until it lies best on the other: Lucas and Kanade's method, inverse
compositional (Baker and Matthews, Int. J. Computer Vision 56, 2004), up to brightness and contrast.
Two photographs of one thing then agree coarsely; copies of one photograph agree in what is fine,
too, and in every colour.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor
from torch.nn import functional as F

from data.digests import num_cores

_PAIRS = 512  # aligned at a time
_STEPS, _FIRST_STEPS = 6, 2
_HOPELESS = 0.5  # agreement after the first steps
_COLOUR = 1.6  # weight of what correlation a colour lacks against what the fine lacks
_LEAST_OVERLAP = 0.6


def errors_of(images: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Error of each pair, (P,): what correlation two aligned images lack, in what is fine or, with
    a weight, in a colour; 2 if they overlap too little.

    Args:
        images: (N, C, S, S) uint8.
        first, second: (P,) int64, numbers of images.
    """

    def of_some(a: Tensor, b: Tensor) -> Tensor:
        return _errors(images[a].float(), images[b].float())

    with ThreadPoolExecutor(num_cores()) as pool:
        return torch.cat(list(pool.map(of_some, first.split(_PAIRS), second.split(_PAIRS))))


def _errors(fixed: Tensor, moved: Tensor) -> Tensor:
    errors = torch.full((len(fixed),), 2.0)
    warp = torch.tensor([1.0, 0.0, 0.0]).repeat(len(fixed), 1)
    warp = _aligned(fixed.mean(1), moved.mean(1), warp, _FIRST_STEPS)
    hopeful = (_compared(fixed, moved, warp)[0] > _HOPELESS).nonzero()[:, 0]
    fixed, moved = fixed[hopeful], moved[hopeful]
    warp = _aligned(fixed.mean(1), moved.mean(1), warp[hopeful], _STEPS - _FIRST_STEPS)
    fine, colour, overlap = _compared(fixed, moved, warp)
    enough = overlap > _LEAST_OVERLAP
    errors[hopeful[enough]] = torch.maximum(1 - fine, _COLOUR * (1 - colour))[enough]
    return errors


def _aligned(fixed: Tensor, moved: Tensor, warp: Tensor, steps: int) -> Tensor:
    """Scale and shift, (P, 3), that lay `moved` on `fixed`, (P, S, S) both; from `warp` on."""
    side = fixed.shape[-1]
    fixed = fixed - fixed.mean((1, 2), keepdim=True)
    fixed = fixed / fixed.norm(dim=(1, 2), keepdim=True).clamp_min(1e-3)
    along_y, along_x = torch.zeros_like(fixed), torch.zeros_like(fixed)
    along_x[:, :, 1:-1] = (fixed[:, :, 2:] - fixed[:, :, :-2]) * (side / 4)
    along_y[:, 1:-1] = (fixed[:, 2:] - fixed[:, :-2]) * (side / 4)
    x, y = _places(side).unbind(-1)
    slopes = torch.stack((along_x * x + along_y * y, along_x, along_y), 1).flatten(2)
    hessian = slopes @ slopes.transpose(1, 2)
    damping = 1e-3 * hessian.diagonal(dim1=1, dim2=2) + 1e-6
    inverse = torch.linalg.inv(hessian + torch.diag_embed(damping))
    for _ in range(steps):
        laid, mask = _laid(moved[:, None], warp)
        difference = _normalised(laid[:, 0], mask) - _normalised(fixed, mask)
        change = (inverse @ (slopes @ difference.flatten(1)[..., None]))[..., 0].clamp(-0.15, 0.15)
        scale = warp[:, :1] / (1 + change[:, :1])
        shift = warp[:, 1:] - scale * change[:, 1:]
        warp = torch.cat((scale.clamp(0.75, 1.33), shift.clamp(-0.3, 0.3)), 1)
    return warp


def _places(side: int) -> Tensor:
    """x and y of each pixel, from -1 to 1: (S, S, 2)."""
    line = (torch.arange(side) + 0.5) * 2 / side - 1
    return torch.stack((line.expand(side, side), line[:, None].expand(side, side)), -1)


def _laid(images: Tensor, warp: Tensor) -> tuple[Tensor, Tensor]:
    """Images, (P, C, S, S), under their warps, and which pixels lie in them, (P, S, S)."""
    grid = _places(images.shape[-1]) * warp[:, 0, None, None, None] + warp[:, None, None, 1:]
    laid = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    return laid, (grid.abs() <= 1).all(-1).float()


def _compared(fixed: Tensor, moved: Tensor, warp: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Correlation of what is fine in grey, the least of a colour, and the overlap, (P,) each."""
    laid, mask = _laid(moved, warp)
    grey, laid_grey = fixed.mean(1), laid.mean(1)
    fine = _correlation(_fine(grey), _fine(laid_grey), mask)
    colours = [_correlation(fixed[:, c], laid[:, c], mask) for c in range(fixed.shape[1])]
    return fine, torch.stack(colours).amin(0), mask.mean((1, 2))


def _fine(images: Tensor) -> Tensor:
    """What is left without the mean of 5 x 5 pixels around, smoothed a little: the finest depends
    on where an image falls on the grid of pixels."""
    left = images - F.avg_pool2d(images[:, None], 5, 1, 2, count_include_pad=False)[:, 0]
    weights = torch.tensor([[1.0, 2.0, 1.0]]) / 4
    padded = F.pad(left[:, None], (1, 1, 1, 1), mode="replicate")
    return F.conv2d(padded, (weights.T * weights)[None, None])[:, 0]


def _normalised(images: Tensor, mask: Tensor) -> Tensor:
    """Without its mean under the mask, of unit length, and 0 outside."""
    count = mask.sum((1, 2), keepdim=True).clamp_min(1)
    images = (images - (images * mask).sum((1, 2), keepdim=True) / count) * mask
    return images / images.norm(dim=(1, 2), keepdim=True).clamp_min(1e-3)


def _correlation(a: Tensor, b: Tensor, mask: Tensor) -> Tensor:
    return (_normalised(a, mask) * _normalised(b, mask)).sum((1, 2))

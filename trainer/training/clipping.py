"""Gradient clipping, after gradients are unscaled and added up over processes."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

SMALLEST_NORM = 1e-3  # of weights, so that those that start at zero can move (Brock et al. 2021)


class ClipNorm:
    """Clipping by norm: the gradients of all parameters together are scaled down to the 2-norm
    `limit` if theirs is larger."""

    def __init__(self, limit: float) -> None:
        self.limit = limit

    def __call__(self, parameters: Sequence[Tensor]) -> None:
        nn.utils.clip_grad_norm_(parameters, self.limit)


class ClipValue:
    """Clipping by value: each element of a gradient is clamped to -limit..limit."""

    def __init__(self, limit: float) -> None:
        self.limit = limit

    def __call__(self, parameters: Sequence[Tensor]) -> None:
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.clamp_(-self.limit, self.limit)


class ClipAdaptive:
    """Adaptive clipping (Brock et al. 2021, equation 3): the gradient G of a unit with weights W is
    scaled down to the 2-norm `limit` * max(|W|, 0.001) if its own is larger. A unit is a row of a
    matrix or a filter of a convolution, and any parameter of one dimension as a whole.

    Args:
        exempt: places of parameters that are not clipped.
    """

    def __init__(self, limit: float, exempt: Collection[int] = ()) -> None:
        self.limit, self.exempt = limit, frozenset(exempt)

    @torch.no_grad()
    def __call__(self, parameters: Sequence[Tensor]) -> None:
        for place, parameter in enumerate(parameters):
            if parameter.grad is None or place in self.exempt:
                continue
            most = self.limit * unit_norms(parameter).clamp(min=SMALLEST_NORM)
            # A gradient of zero is left as it is.
            scale = most / unit_norms(parameter.grad).clamp(min=1e-30)
            parameter.grad.mul_(scale.clamp(max=1.0))


def unit_norms(tensor: Tensor) -> Tensor:
    """2-norm of each unit, of a shape that broadcasts to the tensor's."""
    if tensor.ndim < 2:
        return tensor.norm()
    return tensor.flatten(1).norm(dim=1).view(-1, *(1 for _ in tensor.shape[1:]))


def last_layer(model: nn.Module, parameters: Sequence[Tensor]) -> list[int]:
    """Places of the parameters of a model's last layer: the one that holds its last parameter."""
    layers = [list(layer.parameters(recurse=False)) for layer in model.modules()]
    last = next(own for own in reversed(layers) if own)
    ids = {id(parameter) for parameter in last}
    return [place for place, parameter in enumerate(parameters) if id(parameter) in ids]

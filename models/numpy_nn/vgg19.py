"""VGG19's forward as a plain list of functions (Simonyan, Zisserman 2014, table 1, column E)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise

import numpy as np

from models.numpy_nn import functional as F
from models.numpy_nn.functional.shapes import Array, Cache
from models.numpy_nn.functional.winograd import conv2d_winograd, winograd_fits, winograd_weight

CHANNELS = ((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4)  # a max pooling after each
FEATURES = 512 * 7 * 7  # of a 224 x 224 image after five halvings
HIDDEN = 4096

Params = Sequence[tuple[Array, Array]]  # (weight, bias) of 16 convolutions and 3 linear layers
Step = Callable[[Array], Array]


def he_params(rng: np.random.Generator, num_classes: int = 1000) -> Params:
    """Random float32 parameters; weights N(0, 2 / inputs) keep the variance through ReLUs
    (He et al. 2015, "Delving deep into rectifiers", equation 10), biases are 0."""
    shapes = weight_shapes(num_classes)
    return [(_he_weight(shape, rng), np.zeros(shape[0], np.float32)) for shape in shapes]


def weight_shapes(num_classes: int = 1000) -> list[tuple[int, ...]]:
    """(out, in, 3, 3) of the convolutions, then (out, in) of the linear layers."""
    widths = [3, *(width for block in CHANNELS for width in block)]
    shapes: list[tuple[int, ...]] = [(after, before, 3, 3) for before, after in pairwise(widths)]
    return [*shapes, (HIDDEN, FEATURES), (HIDDEN, HIDDEN), (num_classes, HIDDEN)]


def vgg19(params: Params, fast: bool = True) -> list[Step]:
    """The steps from (N, 3, 224, 224) to logits (N, num_classes), for inference.

    `fast` takes Winograd's convolution where it fits, with weights transformed here, once;
    otherwise all convolutions are the im2col ones.
    """
    remaining = iter(params)
    steps: list[Step] = []
    for block in CHANNELS:
        for _ in block:
            steps += [_convolution(*next(remaining), fast), _only_out(F.relu_forward)]
        steps.append(_only_out(F.max_pool2d_forward, kernel_size=2))
    steps.append(_only_out(F.flatten_forward))
    steps += _classifier(remaining)
    return steps


def run(steps: list[Step], x: Array) -> Array:
    for step in steps:
        x = step(x)
    return x


def _convolution(weight: Array, bias: Array, fast: bool) -> Step:
    if fast and winograd_fits(weight):
        return partial(conv2d_winograd, transformed=winograd_weight(weight), bias=bias, padding=1)
    return _only_out(F.conv2d_forward, weight=weight, bias=bias, padding=1)


def _classifier(params: Iterator[tuple[Array, Array]]) -> list[Step]:
    (first, second, last) = (_only_out(F.linear_forward, weight=w, bias=b) for w, b in params)
    return [first, _only_out(F.relu_forward), second, _only_out(F.relu_forward), last]


def _only_out(forward: Callable[..., tuple[Array, Cache]], **options: object) -> Step:
    """The forward without its cache, which inference would only keep alive."""
    return lambda x: forward(x, **options)[0]


def _he_weight(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    weight = rng.standard_normal(shape, dtype=np.float32)
    weight *= np.float32(np.sqrt(2 / np.prod(shape[1:])))
    return weight

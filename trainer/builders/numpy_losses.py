"""NumPy forms of the losses of `losses.py` (`layers=numpy`), for models with one or more heads."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.numpy_nn import functional as F
from models.numpy_nn.bridge import array_of, by_hand
from models.numpy_nn.functional.shapes import Array, Cache
from trainer import losses

PAIRS: dict[type[nn.Module], tuple[Any, Any]] = {
    losses.CrossEntropy: (F.cross_entropy_forward, F.cross_entropy_backward),
    losses.Focal: (F.focal_forward, F.focal_backward),
    losses.MSE: (F.mean_squared_error_forward, F.mean_squared_error_backward),
    losses.L1: (F.l1_forward, F.l1_backward),
    losses.BCE: (F.binary_cross_entropy_forward, F.binary_cross_entropy_backward),
}


def convert_loss(loss: nn.Module) -> nn.Module:
    """NumPy form of a loss. Raises ValueError if it has none."""
    if type(loss) not in PAIRS:
        known = ", ".join(kind.__name__ for kind in PAIRS)
        raise ValueError(
            f"the loss is {type(loss).__module__}.{type(loss).__qualname__}, which has no NumPy "
            f"form. There are: {known}."
        )
    forward, backward = PAIRS[type(loss)]
    options = {name: getattr(loss, name) for name in inspect.signature(type(loss)).parameters}
    if unknown := options.keys() - inspect.signature(forward).parameters.keys():
        raise ValueError(
            f"the loss {type(loss).__name__} has no NumPy form for {', '.join(sorted(unknown))}"
        )
    return NumpyLoss(forward, backward, **options)


class NumpyPenalised(losses.Penalised):
    """Penalty on weights with its gradient by hand."""

    def penalty(self, weights: Sequence[Tensor]) -> Tensor:
        forward = partial(F.penalty_forward, l1=self.l1, l2=self.l2)
        terms = [by_hand(forward, F.penalty_backward, weight) for weight in weights]
        return torch.stack(terms).sum()


class NumpyLoss(nn.Module):
    """Loss made of a pair of NumPy functions; `options` are keyword arguments of the forward."""

    def __init__(self, forward: Any, backward: Any, **options: Any) -> None:
        super().__init__()
        self._forward, self._backward, self._options = forward, backward, options

    def forward(self, output: losses.Output, target: Tensor) -> Tensor:
        heads = (output,) if isinstance(output, Tensor) else output
        weights = [1.0] + [losses.AUXILIARY_WEIGHT] * (len(heads) - 1)
        targets = array_of(target)

        def forward(*logits: Array) -> tuple[Array, Cache]:
            values, caches = zip(
                *(self._forward(z, targets, **self._options) for z in logits), strict=True
            )
            return np.asarray(np.dot(weights, values), logits[0].dtype), caches

        def backward(grad_out: Array, caches: Cache) -> tuple[Array, ...]:
            pairs = zip(weights, caches, strict=True)
            return tuple(self._backward(weight * grad_out, cache) for weight, cache in pairs)

        return by_hand(forward, backward, *heads)

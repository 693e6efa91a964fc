"""Layers as objects: the functions, with their parameters and what the forward kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from models.numpy_nn import functional as F
from models.numpy_nn.functional.shapes import Array, Cache


class Layer(Protocol):
    """Interface of a layer in `Sequential`. After a backward `grads` has the keys of `params`."""

    params: dict[str, Array]
    grads: dict[str, Array]

    def forward(self, x: Array, training: bool) -> Array: ...

    def backward(self, grad_out: Array) -> Array | None: ...


class Function:
    """A pair of functions without parameters as a layer, `options` being the forward's."""

    def __init__(
        self,
        forward: Callable[..., tuple[Array, Cache]],
        backward: Callable[[Array, Cache], Array],
        **options: Any,
    ) -> None:
        self.params: dict[str, Array] = {}
        self.grads: dict[str, Array] = {}
        self._forward, self._backward, self._options = forward, backward, options

    def forward(self, x: Array, training: bool) -> Array:
        out, self._cache = self._forward(x, **self._options)
        return out

    def backward(self, grad_out: Array) -> Array:
        return self._backward(grad_out, self._cache)


def relu() -> Function:
    return Function(F.relu_forward, F.relu_backward)


def flatten() -> Function:
    return Function(F.flatten_forward, F.flatten_backward)


def max_pool2d(kernel_size: int, stride: int | None = None) -> Function:
    return Function(
        F.max_pool2d_forward, F.max_pool2d_backward, kernel_size=kernel_size, stride=stride
    )


class Dropout:
    """Drops with probability p in training, from its own generator; does nothing in evaluation."""

    def __init__(self, p: float, rng: np.random.Generator) -> None:
        self.params: dict[str, Array] = {}
        self.grads: dict[str, Array] = {}
        self.p, self._rng = p, rng

    def forward(self, x: Array, training: bool) -> Array:
        self._cache: Cache | None = None
        if not training:
            return x
        mask = self._rng.random(x.shape, dtype=np.float32) >= self.p
        out, self._cache = F.dropout_forward(x, mask, self.p)
        return out

    def backward(self, grad_out: Array) -> Array:
        return grad_out if self._cache is None else F.dropout_backward(grad_out, self._cache)


class Linear:
    """(N, in_features) -> (N, out_features).

    `need_grad_x=False` is for the first layer of a network: the images need no gradient.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        rng: np.random.Generator,
        dtype: type[np.floating[Any]] = np.float32,
        need_grad_x: bool = True,
    ) -> None:
        self.params = _uniform_params((out_features, in_features), rng, dtype)
        self.grads: dict[str, Array] = {}
        self.need_grad_x = need_grad_x

    def forward(self, x: Array, training: bool) -> Array:
        out, self._cache = F.linear_forward(x, self.params["weight"], self.params["bias"])
        return out

    def backward(self, grad_out: Array) -> Array | None:
        grad_x, weight, bias = F.linear_backward(grad_out, self._cache, self.need_grad_x)
        assert bias is not None
        self.grads = {"weight": weight, "bias": bias}
        return grad_x


class Conv2d:
    """(N, in_channels, H, W) -> (N, out_channels, OH, OW); `need_grad_x` as for `Linear`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        rng: np.random.Generator,
        stride: int = 1,
        padding: int = 0,
        dtype: type[np.floating[Any]] = np.float32,
        need_grad_x: bool = True,
    ) -> None:
        self.params = _uniform_params(
            (out_channels, in_channels, kernel_size, kernel_size), rng, dtype
        )
        self.grads: dict[str, Array] = {}
        self.stride, self.padding, self.need_grad_x = stride, padding, need_grad_x

    def forward(self, x: Array, training: bool) -> Array:
        weight, bias = self.params["weight"], self.params["bias"]
        out, self._cache = F.conv2d_forward(x, weight, bias, self.stride, self.padding)
        return out

    def backward(self, grad_out: Array) -> Array | None:
        grad_x, weight, bias = F.conv2d_backward(grad_out, self._cache, self.need_grad_x)
        assert bias is not None
        self.grads = {"weight": weight, "bias": bias}
        return grad_x


class Sequential:
    """Layers one after the other.

    `params` and `grads` are flat: "0.weight" is the weight of the first layer, the name that
    PyTorch's nn.Sequential gives it. An optimizer changes the arrays of `params` in place.
    """

    def __init__(self, *layers: Layer) -> None:
        self.layers = layers

    @property
    def params(self) -> dict[str, Array]:
        return {
            f"{i}.{k}": v for i, layer in enumerate(self.layers) for k, v in layer.params.items()
        }

    @property
    def grads(self) -> dict[str, Array]:
        return {
            f"{i}.{k}": v for i, layer in enumerate(self.layers) for k, v in layer.grads.items()
        }

    def forward(self, x: Array, training: bool = True) -> Array:
        for layer in self.layers:
            x = layer.forward(x, training)
        return x

    def backward(self, grad_out: Array) -> Array | None:
        """The chain rule, from the last layer to the first; fills `grads`."""
        grad: Array | None = grad_out
        for layer in reversed(self.layers):
            if grad is None:
                raise ValueError("only the first layer may go without the gradient of its input")
            grad = layer.backward(grad)
        return grad

    def load(self, params: dict[str, Array]) -> None:
        """Copy values into the layers' arrays. Raises ValueError if names or shapes differ."""
        own = self.params
        wanted, found = ({k: v.shape for k, v in p.items()} for p in (own, params))
        if wanted != found:
            raise ValueError(
                f"these parameters are of another network: needed {wanted}, got {found}"
            )
        for name, value in params.items():
            own[name][...] = value


def _uniform_params(
    shape: tuple[int, ...], rng: np.random.Generator, dtype: type[np.floating[Any]]
) -> dict[str, Array]:
    """Weight and bias, uniform in +-1 / sqrt(inputs of one output), as PyTorch starts them."""
    if min(shape) < 1:
        raise ValueError(f"a layer's weight cannot have the shape {shape}: take sizes of 1 or more")
    bound = float(np.prod(shape[1:])) ** -0.5
    return {
        "weight": rng.uniform(-bound, bound, shape).astype(dtype),
        "bias": rng.uniform(-bound, bound, shape[0]).astype(dtype),
    }

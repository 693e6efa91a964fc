"""The bridge to PyTorch: any of its networks, run by the layers of this package.

`convert` gives each leaf module of a network a twin: torch's own class with another `forward`,
which hands the tensors' memory to a pair of NumPy functions, and to autograd their backward. The
parameters and buffers stay the same objects under the same names, so optimizers, `state_dict`,
`deepcopy` and `.double()` know no difference. Between the layers only reshaping, addition and
concatenation are left to torch.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from models.numpy_nn import functional as F
from models.numpy_nn.functional.shapes import Array, Cache
from models.numpy_nn.functional.winograd import conv2d_winograd, winograd_fits, winograd_weight
from models.torch_internals import version_of

Forward = Callable[..., tuple[Array, Cache]]
Backward = Callable[[Array, Cache], Any]


def by_hand(forward: Forward, backward: Backward | None, *tensors: Tensor | None) -> Tensor:
    """Run a pair of NumPy functions on tensors, as one node of torch's autograd graph.

    Args:
        forward: arrays, one for each tensor (None for None), to a new array and a cache.
        backward: the output's gradient and the cache to new arrays, one for each tensor (None
            where there is nothing to tell). None: it is not wanted, as in inference.
        tensors: on the CPU, with any strides. The arrays are views of their memory, bound afresh
            in every call: `.double()` and `deepcopy` move a parameter to other memory.
    """
    return _ByHand.apply(forward, backward, *tensors)


class _ByHand(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, forward: Forward, backward: Backward | None, *tensors: Tensor | None
    ) -> Tensor:
        out, ctx.cache = forward(*(None if t is None else array_of(t) for t in tensors))
        ctx.backward_by_hand = backward
        result = torch.from_numpy(out)
        ctx.save_for_backward(*(t for t in (*tensors, result) if _is_kept(t, ctx.cache)))
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Any, ...]:
        _ = ctx.saved_tensors  # an error if anybody has changed one of them in place
        grads = ctx.backward_by_hand(array_of(grad_out), ctx.cache)
        grads = grads if isinstance(grads, tuple) else (grads,)
        return None, None, *(None if grad is None else torch.from_numpy(grad) for grad in grads)


def _is_kept(tensor: Tensor | None, cache: Cache) -> bool:
    """True if the backward reads this tensor's memory."""
    arrays = (entry for entry in cache if isinstance(entry, np.ndarray))
    return tensor is not None and any(np.may_share_memory(array_of(tensor), a) for a in arrays)


def array_of(tensor: Tensor) -> Any:
    """The tensor's own memory as an array; nothing is copied."""
    return tensor.detach().numpy()


def _options(layer: nn.Module, *names: str) -> dict[str, Any]:
    """Attributes of a layer as keyword arguments: torch and we call them alike."""
    return {name: getattr(layer, name) for name in names}


class Conv2d(nn.Conv2d):
    """Convolution; in inference 3 x 3 kernels use Winograd's method on weights transformed once."""

    # The weight (holding it keeps its address from being given to another), its version, and U.
    _winograd: tuple[Tensor, int, Array] | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training and not torch.is_grad_enabled() and self._fits_winograd():
            return by_hand(self._winograd_forward, None, x, self.bias)
        self._winograd = None
        forward = partial(
            F.conv2d_forward, **_options(self, "stride", "padding", "dilation", "groups")
        )
        backward = partial(F.conv2d_backward, need_grad_x=x.requires_grad)
        return by_hand(forward, backward, x, self.weight, self.bias)

    def _fits_winograd(self) -> bool:
        # Tensors made in inference mode have no version, so their changes could not be seen.
        return not self.weight.is_inference() and winograd_fits(
            array_of(self.weight), **_options(self, "stride", "dilation", "groups")
        )

    def _winograd_forward(self, x: Array, bias: Array | None) -> tuple[Array, Cache]:
        return conv2d_winograd(x, self._transformed(), bias, **_options(self, "padding")), ()

    def _transformed(self) -> Array:
        weight, version = self.weight.detach(), version_of(self.weight)
        if self._winograd is not None:
            before, its_version, transformed = self._winograd
            if (before.data_ptr(), its_version) == (weight.data_ptr(), version):
                return transformed
        self._winograd = weight, version, winograd_weight(weight.numpy())
        return self._winograd[2]


class Linear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        backward = partial(F.linear_backward, need_grad_x=x.requires_grad)
        return by_hand(F.linear_forward, backward, x, self.weight, self.bias)


class BatchNorm2d(nn.BatchNorm2d):
    """The running statistics are changed in place, by NumPy."""

    def forward(self, x: Tensor) -> Tensor:
        forward = partial(
            F.batch_norm2d_forward,
            running_mean=None if self.running_mean is None else array_of(self.running_mean),
            running_var=None if self.running_var is None else array_of(self.running_var),
            training=self.training,
            momentum=self._step_of_average(),
            eps=self.eps,
        )
        return by_hand(forward, F.batch_norm2d_backward, x, self.weight, self.bias)

    def _step_of_average(self) -> float:
        """Momentum of the running statistics; with momentum=None, that of the mean over all
        batches. Counts the batch in training."""
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:
                return 1 / int(self.num_batches_tracked)
        return self.momentum or 0.0


class Dropout(nn.Dropout):
    """The mask is the one that torch's own layer draws for a contiguous input of this shape, from
    the same generator, so that both kinds of layers drop the same units."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        mask = torch.zeros(x.shape, dtype=x.dtype)
        if self.p < 1:  # with 1 torch draws nothing
            mask.bernoulli_(1 - self.p)
        forward = partial(F.dropout_forward, mask=array_of(mask), p=self.p)
        return by_hand(forward, F.dropout_backward, x)


class Softmax(nn.Softmax):
    def forward(self, x: Tensor) -> Tensor:
        axis = _options(self, "dim")["dim"]
        return by_hand(partial(F.softmax_forward, axis=axis), F.softmax_backward, x)


def _plain(
    kind: type[nn.Module], forward: Forward, backward: Backward, *names: str
) -> type[nn.Module]:
    """The twin of a layer without parameters; `names` are its options."""

    def run(self: nn.Module, x: Tensor) -> Tensor:
        return by_hand(partial(forward, **_options(self, *names)), backward, x)

    return type(kind.__name__, (kind,), {"forward": run, "__module__": __name__})


ReLU = _plain(nn.ReLU, F.relu_forward, F.relu_backward)
LeakyReLU = _plain(nn.LeakyReLU, F.leaky_relu_forward, F.leaky_relu_backward, "negative_slope")
Tanh = _plain(nn.Tanh, F.tanh_forward, F.tanh_backward)
Sigmoid = _plain(nn.Sigmoid, F.sigmoid_forward, F.sigmoid_backward)
MaxPool2d = _plain(
    nn.MaxPool2d, F.max_pool2d_forward, F.max_pool2d_backward,
    "kernel_size", "stride", "padding", "dilation", "ceil_mode",
)  # fmt: skip
AvgPool2d = _plain(
    nn.AvgPool2d, F.avg_pool2d_forward, F.avg_pool2d_backward,
    "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad",
)  # fmt: skip
AdaptiveAvgPool2d = _plain(
    nn.AdaptiveAvgPool2d, F.adaptive_avg_pool2d_forward, F.adaptive_avg_pool2d_backward,
    "output_size",
)  # fmt: skip
LocalResponseNorm = _plain(
    nn.LocalResponseNorm, F.local_response_norm_forward, F.local_response_norm_backward,
    "size", "alpha", "beta", "k",
)  # fmt: skip

TWINS: dict[type[nn.Module], type[nn.Module]] = {
    twin.__mro__[1]: twin
    for twin in (
        Conv2d, Linear, BatchNorm2d, Dropout, MaxPool2d, AvgPool2d, AdaptiveAvgPool2d,
        LocalResponseNorm, ReLU, LeakyReLU, Tanh, Sigmoid, Softmax,
    )
}  # fmt: skip

# Leaves that compute nothing. An empty Sequential hands its input on, as Identity does.
KEPT = (nn.Identity, nn.Flatten, nn.Sequential)

# What an option must be, where the NumPy layers cannot do all that torch's can.
NEEDS: dict[type[nn.Module], dict[str, Callable[[Any], bool]]] = {
    nn.Conv2d: {
        "padding_mode": lambda mode: mode == "zeros",
        "padding": lambda padding: not isinstance(padding, str),
    },
    nn.MaxPool2d: {"return_indices": lambda wanted: not wanted},
    nn.AvgPool2d: {"divisor_override": lambda divisor: divisor is None},
    nn.AdaptiveAvgPool2d: {
        "output_size": lambda size: None not in (size if isinstance(size, tuple) else (size,))
    },
    nn.Softmax: {"dim": lambda dim: dim is not None},
}

# What a network's own forward may do between its layers.
BETWEEN: tuple[Any, ...] = (
    operator.add, torch.add, "add", torch.cat, torch.flatten, "flatten",
    torch.reshape, "reshape", "view", "size", getattr, operator.getitem,
)  # fmt: skip


def convert(model: nn.Module) -> nn.Module:
    """The model with every leaf in its NumPy form, in place; the twin if it is a leaf itself.

    ReLUs and dropouts that work in place become ordinary ones.

    Raises:
        ValueError: a leaf has no twin, or an option that the NumPy layers lack, or the model's own
            forward computes with torch; it names the place. The model is then as it was.
    """
    leaves = {name: leaf for name, leaf in model.named_modules() if not list(leaf.children())}
    twins = {n: _twin(n, leaf) for n, leaf in leaves.items() if not isinstance(leaf, KEPT)}
    _check_between(model)
    if "" in twins:
        return twins[""]
    for name, twin in twins.items():
        parent, _, own_name = name.rpartition(".")
        setattr(model.get_submodule(parent), own_name, twin)
    return model


def _twin(name: str, leaf: nn.Module) -> nn.Module:
    """Another view of the leaf: it shares all that the leaf holds."""
    kind = type(leaf)  # exactly: a subclass may compute something else
    place = f"{name or 'the model'} is {kind.__module__}.{kind.__qualname__}"
    if kind not in TWINS:
        known = ", ".join(sorted(known.__name__ for known in TWINS))
        raise ValueError(f"{place}, which has no NumPy form. There are: {known}.")
    for option, fits in NEEDS.get(kind, {}).items():
        value = getattr(leaf, option)
        if not fits(value):
            raise ValueError(f"{place} with {option}={value!r}, which the NumPy form cannot do.")
    twin = copy.copy(leaf)
    twin.__class__ = TWINS[kind]
    if getattr(twin, "inplace", False):
        twin.inplace = False  # type: ignore[assignment]
    return twin


class _Tracer(fx.Tracer):
    """Follows the calls between leaves, whose own computation is not looked at."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not list(m.children())


def _check_between(model: nn.Module) -> None:
    """Raises ValueError if the model's forward computes with torch between its layers, in training
    or evaluation mode."""
    if type(model) in TWINS:
        return
    modes = {module: module.training for module in model.modules()}
    try:
        for training in (True, False):
            _check_graph(model.train(training))
    finally:
        for module, mode in modes.items():
            module.training = mode


def _check_graph(model: nn.Module) -> None:
    try:
        nodes = _Tracer().trace(model).nodes
    except Exception as error:  # fx names no common one for what it cannot follow
        message = f"the forward of {type(model).__name__} cannot be followed: {error}"
        raise ValueError(message) from error
    for node in nodes:
        if node.op in ("call_function", "call_method") and node.target not in BETWEEN:
            what = getattr(node.target, "__name__", node.target)
            raise ValueError(
                f"the forward of {type(model).__name__} calls {what} between its layers, and that "
                "would be torch's own. Only reshaping, addition and concatenation may stand there."
            )

"""Batch norm over the batch of all processes."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from data.loading.part import Part

LAYERS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def synchronise(model: nn.Module, part: Part) -> None:
    """Let the batch norm layers of a model normalise by the mean and variance of the images of all
    processes, in place; names in the state_dict stay. On a GPU they become torch's SyncBatchNorm,
    which does not exist on a CPU. Layers whose statistics are frozen stay as they are."""
    for parent in list(model.modules()):
        for name, layer in parent.named_children():
            if not isinstance(layer, LAYERS) or "train" in vars(layer):  # see pretrained.freeze
                continue
            if next(model.parameters()).device.type == "cuda":
                setattr(parent, name, nn.SyncBatchNorm.convert_sync_batchnorm(layer))
            else:
                layer.forward = MethodType(forward_for(part), layer)  # type: ignore[method-assign]


def forward_for(part: Part) -> Callable[[Any, Tensor], Tensor]:
    def forward(layer: Any, x: Tensor) -> Tensor:
        if part.is_whole or not layer.training:  # each process has the whole batch
            return type(layer).forward(layer, x)
        return normalised(layer, x)

    return forward


def normalised(layer: Any, x: Tensor) -> Tensor:
    """x (N, C, ...), N summed over the processes, normalised by their common mean and variance, of
    which the running statistics take note.

    Each process sends its mean, variance and count in one message: differences of large sums of
    squares would lose digits in float32.
    """
    others = [0, *range(2, x.ndim)]
    var, mean = torch.var_mean(x.to(layer_dtype(layer, x)), others, correction=0)
    count = mean.new_full((1,), x.numel() // x.shape[1])
    means, vars_, counts = every_process(torch.cat([mean, var, count])).split(
        [len(mean), len(var), 1], dim=1
    )
    shares = counts / counts.sum()
    mean = (shares * means).sum(0)
    var = (shares * (vars_ + (means - mean).square())).sum(0)
    note(layer, mean.detach(), var.detach(), counts.sum())
    scale = (var + layer.eps).rsqrt()
    if layer.affine:
        scale = scale * layer.weight
    shift = -mean * scale if not layer.affine else layer.bias - mean * scale
    shape = [1, -1, *(1 for _ in others[1:])]
    return torch.addcmul(shift.view(shape), x, scale.view(shape)).to(x.dtype)


def layer_dtype(layer: Any, x: Tensor) -> torch.dtype:
    return layer.weight.dtype if layer.affine else x.dtype


@torch.no_grad()
def note(layer: Any, mean: Tensor, var: Tensor, count: Tensor) -> None:
    """Update the running statistics as torch's batch norm does."""
    if not layer.track_running_stats:
        return
    layer.num_batches_tracked.add_(1)
    momentum = layer.momentum
    if momentum is None:
        momentum = 1 / int(layer.num_batches_tracked)
    layer.running_mean.lerp_(mean, momentum)
    layer.running_var.lerp_(var * (count / (count - 1)), momentum)


def every_process(values: Tensor) -> Tensor:
    """(n,) of this process -> (processes, n), differentiable."""
    table = values.new_zeros(dist.get_world_size(), len(values))
    table[dist.get_rank()] = values
    return _Sum.apply(table)


class _Sum(torch.autograd.Function):
    """Sum over the processes; the gradient is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        total = grad.contiguous().clone()
        dist.all_reduce(total)
        return total

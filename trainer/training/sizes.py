"""Memory of a model, of its training and of a full state, in bytes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainer.errors import UserError
from trainer.training.optimizer_state import trial_state

MEGABYTE = 1e6


def megabytes(count: float) -> str:
    return f"{count / MEGABYTE:,.1f} MB"


def model_bytes(model: nn.Module) -> int:
    """Bytes of weights and buffers."""
    return sum(tensor.nbytes for tensor in model.state_dict().values())


def state_bytes(model: nn.Module, optimizer: Optimizer) -> int:
    """Approximate bytes of a full state on disk: weights, buffers, and the optimizer's state, which
    is a whole number of copies of the trained weights (see `copies`)."""
    return model_bytes(model) + copies(optimizer) * trained_bytes(optimizer)


def trained_bytes(optimizer: Optimizer) -> int:
    return sum(p.nbytes for group in optimizer.param_groups for p in group["params"])


def copies(optimizer: Optimizer) -> int:
    """Number of state tensors of the optimizer per trained parameter, of the parameter's shape."""
    kept = trial_state(optimizer).values()
    return sum(isinstance(value, Tensor) and value.shape == (2,) for value in kept)


def check_memory(
    model: nn.Module, optimizer: Optimizer, shape: Sequence[int], free: int, device: torch.device
) -> None:
    """Raises UserError if weights, gradients and optimizer state need more than the `free` bytes of
    the device. The model may be on the meta device, in float32; `shape` (C, H, W) is for the
    message."""
    need = state_bytes(model, optimizer) + trained_bytes(optimizer)
    if need > free:
        raise UserError(
            f"model: for data.shape={list(shape)} weights, gradients and optimizer state need "
            f"{need / 1e9:,.1f} GB of memory, and {free / 1e9:,.1f} GB are free on device "
            f"{device}.\nUse smaller images, smaller sizes in model.*, or optimizer=sgd, which "
            "needs less."
        )

"""Bytes of a model, its state and its training."""

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
    """Of weights and buffers."""
    return sum(tensor.nbytes for tensor in model.state_dict().values())


def state_bytes(model: nn.Module, optimizer: Optimizer) -> int:
    """About what a full state takes on disk: weights, buffers, and as many copies of the trained
    weights as the optimizer keeps, which a step on a single number tells."""
    return model_bytes(model) + copies(optimizer) * trained_bytes(optimizer)


def trained_bytes(optimizer: Optimizer) -> int:
    return sum(p.nbytes for group in optimizer.param_groups for p in group["params"])


def copies(optimizer: Optimizer) -> int:
    """How many numbers the optimizer keeps for each that it trains."""
    kept = trial_state(optimizer).values()
    return sum(isinstance(value, Tensor) and value.shape == (2,) for value in kept)


def check_memory(
    model: nn.Module, optimizer: Optimizer, shape: Sequence[int], free: int, device: torch.device
) -> None:
    """Raises UserError if the `free` bytes of the device cannot hold the weights, their gradients
    and what the optimizer keeps of them. The model may be on the meta device, in float32."""
    need = state_bytes(model, optimizer) + trained_bytes(optimizer)
    if need > free:
        raise UserError(
            f"model: for data.shape={list(shape)} its weights, their gradients and the optimizer "
            f"take {need / 1e9:,.1f} GB of memory, and {free / 1e9:,.1f} GB are free on device "
            f"{device}.\nTake smaller pictures, smaller sizes in model.*, or optimizer=sgd, which "
            "keeps less."
        )

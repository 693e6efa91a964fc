"""Device and precision of a run."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from trainer.errors import UserError

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device(name: str, layers: str) -> torch.device:
    """Device of the key `device`; auto is the fastest one, or the CPU with layers=numpy. Raises
    UserError, listing the available devices, if it does not exist."""
    available = available_devices()
    if name == "auto" and layers == "numpy":
        return torch.device("cpu")
    if name == "auto":
        return torch.device(available[0])
    if has_device(name):
        return torch.device(name)
    raise UserError(
        f"device={name}: this machine has no such device.\n"
        f"It has: {', '.join(reversed(available))}. device=auto takes the fastest."
    )


def has_device(name: str) -> bool:
    available = available_devices()
    return name == "auto" or name in available or (name == "cuda" and "cuda:0" in available)


def available_devices() -> list[str]:
    """Names of the available devices, the fastest first."""
    cuda = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return [*cuda, *mps, "cpu"]


def check_precision(precision: str, device: torch.device) -> None:
    if precision == "fp64" and device.type == "mps":
        raise UserError(
            "precision=fp64: device mps has no float64. Use precision=fp32 or device=cpu."
        )


def float_dtype(precision: str) -> torch.dtype:
    """Dtype of weights and images; bf16 and fp16 keep float32 weights under autocast."""
    return torch.float64 if precision == "fp64" else torch.float32


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Reusable autocast context for forward and loss; it does nothing with fp32 and fp64."""
    if precision not in AUTOCAST:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=AUTOCAST[precision])


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()

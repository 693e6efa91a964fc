"""Device and precision of a run."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch

from trainer.errors import UserError
from trainer.system.distributed import Place, place

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device(name: str, layers: str) -> torch.device:
    """Device of the key `device`; auto is the fastest one, or the CPU with layers=numpy. Raises
    UserError, listing the available devices, if it does not exist."""
    available = available_devices()
    if name == "auto" and layers == "numpy":
        return torch.device("cpu")
    here = place()
    if here is not None and name != "cpu":
        return device_of(here, name, available)
    if name == "auto":
        return torch.device(available[0])
    if has_device(name):
        return torch.device(name)
    raise UserError(
        f"device={name}: this machine has no such device.\n"
        f"It has: {', '.join(reversed(available))}. device=auto takes the fastest."
    )


def device_of(here: Place, name: str, available: Sequence[str]) -> torch.device:
    """Device of one of several processes: a GPU for each, or the CPU. Raises UserError."""
    num_gpus = sum(one.startswith("cuda") for one in available)
    if name == "auto" and not num_gpus:
        return torch.device("cpu")
    if name in ("auto", "cuda") and here.local_size <= num_gpus:
        return torch.device("cuda", here.local_rank)
    raise UserError(
        f"processes={here.size}: each needs a GPU of its own, and with device={name} this machine "
        f"has {num_gpus} for {here.local_size}. Use fewer processes, or device=cpu."
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

"""Random state: generators seeded, deterministic algorithms chosen."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    pass


def set_deterministic(on: bool) -> None:
    """Must run before the first CUDA call: cuBLAS reads its workspace setting once."""
    if on:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if on != torch.are_deterministic_algorithms_enabled():  # the call imports the compiler, 1.2 s
        torch.use_deterministic_algorithms(on)
    torch.backends.cudnn.benchmark = not on


def seed_generators(seed: int, device: torch.device) -> None:
    """Seeds the CPU's and the device's global generators, which initialisation and dropout use.

    Not `torch.manual_seed`, which visits every backend and costs 150 us, a sixth of a small net's
    step; these are 2 us, so that every step can have a seed of its own.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.init()  # returns at once if it is done; before, there are no generators
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)

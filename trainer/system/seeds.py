"""Random state: generators seeded, deterministic algorithms chosen."""

from __future__ import annotations

import os

import torch


def set_deterministic(on: bool) -> None:
    """Turn deterministic algorithms on or off. Call it before the first CUDA call: cuBLAS reads its
    workspace setting once."""
    if on:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if on != torch.are_deterministic_algorithms_enabled():  # the call imports the compiler, 1.2 s
        torch.use_deterministic_algorithms(on)
    torch.backends.cudnn.benchmark = not on


def seed_generators(seed: int, device: torch.device) -> None:
    """Seed the global generators of the CPU and of the device, which initialisation and dropout
    use.

    `torch.manual_seed` seeds every backend and takes 150 us, a sixth of a small network's step;
    this takes 2 us, so that every step can have its own seed.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.init()  # creates the generators; returns at once if they exist
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)

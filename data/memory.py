"""Memory available for images."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Sequence

import torch

from data.types import DataError


def check_memory(num_images: int, shape: Sequence[int]) -> None:
    """Raises DataError if so many images are more than memory can hold."""
    needed, free = num_images * math.prod(shape), free_bytes(torch.device("cpu"))
    if needed > free:
        raise DataError(
            f"data.shape={list(shape)}: {num_images:,} images of this size take "
            f"{needed / 1e9:,.1f} GB, and {free / 1e9:,.1f} GB are free. Take a smaller size, or "
            "fewer images."
        )


def free_bytes(device: torch.device) -> int:
    """Memory that could be had on the device. On a CPU that of the machine; a dataset in a mapped
    file that is larger works as well, only slower."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    with contextlib.suppress(OSError), open("/proc/meminfo") as lines:
        for line in lines:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")  # no Linux: all there is

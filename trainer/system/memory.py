"""Memory of the process: freed blocks kept, the peak measured."""

from __future__ import annotations

import ctypes
import platform
import resource
import sys
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    pass


# mallopt(3): how many blocks may be mapped, and how many bytes may lie free at the heap's end.
M_MMAP_MAX, M_TRIM_THRESHOLD = -4, -1


def keep_freed_memory() -> None:
    """Let the C library's allocator keep what is freed for the next step. It hands blocks of more
    than 32 MB, a net's activations, back to the kernel at once and then waits for fresh pages, each
    of them zeroed; that took a tenth of a ResNet-18's step. The process stays as large as it was
    at its largest (up to a quarter larger than otherwise). glibc alone has such settings."""
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory in use so far: of the GPU's allocator, or of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

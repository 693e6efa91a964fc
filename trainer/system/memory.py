"""Memory of the process: allocator settings and peak usage."""

from __future__ import annotations

import ctypes
import platform
import resource
import sys

import torch

# mallopt(3): number of mapped blocks, and number of free bytes at the end of the heap.
M_MMAP_MAX, M_TRIM_THRESHOLD = -4, -1


def keep_freed_memory() -> None:
    """Let the C library's allocator keep freed memory for the next step. By default it returns
    blocks of more than 32 MB, such as activations, to the kernel at once and then waits for new,
    zeroed pages; that took a tenth of a ResNet-18's step. The process stays at its peak size (up to
    a quarter larger than otherwise). Does nothing without glibc."""
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def peak_memory_bytes(device: torch.device) -> int:
    """Peak memory so far, in bytes: of torch's allocator on a CUDA device, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

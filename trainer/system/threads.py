"""Number of threads: a function of the model and the batch size, not of the load."""

from __future__ import annotations

import functools
import os

import threadpoolctl
import torch

from trainer.system.distributed import place

# Below this number of MACs (multiply-adds) per batch, a step takes under about two milliseconds and
# a second thread costs more than it saves, many times more on a busy machine.
SINGLE_THREAD_MACS = 50e6


def pick_num_threads(num_threads: int, macs_per_batch: float) -> int:
    """Number of threads, independent of the load, so that the same command computes the same bits
    on the same machine.

    Args:
        num_threads: the user's choice; 0: by the cost of a batch.
        macs_per_batch: MACs of the forward pass of a batch.
    """
    all_of_them = threads_at_start()
    if num_threads:
        return num_threads
    return 1 if macs_per_batch < SINGLE_THREAD_MACS else all_of_them


@functools.cache
def threads_at_start() -> int:
    """Torch's own number of threads, before a run sets it: the cores, or OMP_NUM_THREADS. Of
    several processes each has its share of the cores; that OMP_NUM_THREADS is 1 is torchrun's doing
    then, not the user's wish."""
    here = place()
    if here is None or os.environ.get("OMP_NUM_THREADS", "1") != "1":
        return torch.get_num_threads()
    has_affinity = hasattr(os, "sched_getaffinity")  # not on macOS
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return max(1, cores // here.local_size)


def set_num_threads(num_threads: int, layers: str = "torch") -> None:
    """Set the number of threads of torch and, with layers=numpy, of NumPy's BLAS, which would use
    all cores for small products that are faster on one."""
    torch.set_num_threads(num_threads)
    if layers == "numpy":
        threadpoolctl.threadpool_limits(num_threads, user_api="blas")

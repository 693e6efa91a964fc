"""Number of threads: a function of the network and the batch, never of the load."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import threadpoolctl
import torch

if TYPE_CHECKING:
    pass


# Below so many multiply-adds per batch a second thread costs more in waiting than it computes
# (a step under about two milliseconds), and on a busy machine it costs many times that.
SINGLE_THREAD_MACS = 50e6


def pick_num_threads(num_threads: int, macs_per_batch: float) -> int:
    """A function of the net and the batch, never of the load, so that the same command computes
    the same bits on the same machine."""
    all_of_them = threads_at_start()
    if num_threads:
        return num_threads
    return 1 if macs_per_batch < SINGLE_THREAD_MACS else all_of_them


@functools.cache
def threads_at_start() -> int:
    """What torch takes by itself, before a run has set it: the cores, or OMP_NUM_THREADS."""
    return torch.get_num_threads()


def set_num_threads(num_threads: int, layers: str = "torch") -> None:
    """For torch; and for NumPy's BLAS where the layers are NumPy's. Left alone, it takes all cores
    for products that one does faster."""
    torch.set_num_threads(num_threads)
    if layers == "numpy":
        threadpoolctl.threadpool_limits(num_threads, user_api="blas")

"""The machine under a run: device, threads, precision, random state, memory."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import platform
import resource
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import PIL
import threadpoolctl
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim import Optimizer

from trainer.errors import UserError

if TYPE_CHECKING:
    from torch.utils.flop_counter import FlopCounterMode

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}

# mallopt(3): how many blocks may be mapped, and how many bytes may lie free at the heap's end.
M_MMAP_MAX, M_TRIM_THRESHOLD = -4, -1

# Below so many multiply-adds per batch a second thread costs more in waiting than it computes
# (a step under about two milliseconds), and on a busy machine it costs many times that.
SINGLE_THREAD_MACS = 50e6


def pick_device(name: str, layers: str) -> torch.device:
    """The device behind `device=`. Raises UserError that lists those there are."""
    available = available_devices()
    if name == "auto" and layers == "numpy":
        return torch.device("cpu")
    if name == "auto":
        return torch.device(available[0])
    if has_device(name):
        return torch.device(name)
    raise UserError(
        f"device={name}: this machine has no such device.\n"
        f"It has: {', '.join(reversed(available))}. device=auto takes the best of them."
    )


def has_device(name: str) -> bool:
    available = available_devices()
    return name == "auto" or name in available or (name == "cuda" and "cuda:0" in available)


def available_devices() -> list[str]:
    """Names that `device=` takes here, the fastest first."""
    cuda = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return [*cuda, *mps, "cpu"]


def check_precision(precision: str, device: torch.device) -> None:
    if precision == "fp64" and device.type == "mps":
        raise UserError("precision=fp64: device mps has no float64. Take precision=fp32 or cpu.")


def float_dtype(precision: str) -> torch.dtype:
    """The dtype of weights and pictures; bf16 and fp16 keep float32 weights under autocast."""
    return torch.float64 if precision == "fp64" else torch.float32


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Reusable context for forward and loss."""
    if precision not in AUTOCAST:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=AUTOCAST[precision])


def is_convolutional(model: nn.Module) -> bool:
    return any(isinstance(module, nn.Conv2d) for module in model.modules())


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


@contextlib.contextmanager
def counting_flops() -> Iterator[FlopCounterMode]:
    """torch's FLOP counter, with attention computed in the form that it has formulas for."""
    # Imported here: it imports triton, a tenth of a second.
    from torch.utils.flop_counter import FlopCounterMode, _FlopCounterMode

    mark_uncompiled(_FlopCounterMode)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            yield counter
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def set_num_threads(num_threads: int, layers: str = "torch") -> None:
    """For torch; and for NumPy's BLAS where the layers are NumPy's. Left alone, it takes all cores
    for products that one does faster."""
    torch.set_num_threads(num_threads)
    if layers == "numpy":
        threadpoolctl.threadpool_limits(num_threads, user_api="blas")


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


def leave_compiler_unimported() -> None:
    """torch imports its compiler (1.2 s, a third of a short command) the first time that one of
    these methods is called, only to mark it as not to be compiled. They are marked here instead;
    nothing compiles them."""
    from torch.utils._python_dispatch import TorchDispatchMode

    for owner in (Optimizer, TorchDispatchMode, *TorchDispatchMode.__subclasses__()):
        mark_uncompiled(owner)


def mark_uncompiled(owner: type) -> None:
    for method in vars(owner).values():
        plain = getattr(method, "__wrapped__", None)
        if plain is not None:
            plain.__dynamo_disable = plain


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory in use so far: of the GPU's allocator, or of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "pillow": PIL.__version__,
    }

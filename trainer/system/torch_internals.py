"""Private names of torch, all in this file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim import Optimizer

if TYPE_CHECKING:
    from torch.utils.flop_counter import FlopCounterMode


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

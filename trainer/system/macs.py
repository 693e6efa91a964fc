"""Multiply-adds of what torch computes, counted operation by operation.

torch's own counter (`torch.utils.flop_counter`) counts the same, but imports triton and with it
takes a tenth of the time in which torch starts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from trainer.system.torch_internals import DispatchMode

aten = torch.ops.aten


def of_convolution(output: Tensor, x: Tensor, weight: Tensor, *args: Any) -> int:
    """A weight of each filter per output, or of a transposed convolution per input."""
    is_transposed = args[4]
    return (x if is_transposed else output).numel() * weight[0].numel()


# Every product of matrices in a forward pass comes down to these, and attention, too, in the form
# that `counting_macs` has it take.
FORMULAS: dict[Any, Callable[..., int]] = {
    aten.mm: lambda output, a, b: output.numel() * b.shape[0],
    aten.addmm: lambda output, bias, a, b: output.numel() * b.shape[0],
    aten.bmm: lambda output, a, b: output.numel() * b.shape[1],
    aten.baddbmm: lambda output, bias, a, b: output.numel() * b.shape[1],
    aten.convolution: of_convolution,
}


class MacCounter(DispatchMode):
    """While it is entered, `total` grows by the multiply-adds of each operation."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        formula = FORMULAS.get(func.overloadpacket)
        if formula is not None:
            self.total += formula(output, *args)
        return output


@contextlib.contextmanager
def counting_macs() -> Iterator[MacCounter]:
    """A counter of the multiply-adds within; to be used without gradients."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), MacCounter() as counter:
            yield counter
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)

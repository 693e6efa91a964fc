"""Private names of torch that data needs.

Checked on torch 2.14.1; `tests/trainer/system/test_torch_internals.py` uses it.

what torch has      if it goes
_standard_gamma     augment.mixup and augment.cutmix end in a traceback
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor


def standard_gamma(shape: Tensor, generator: Generator) -> Tensor:
    """One number of Gamma(a, 1) for each a. The public torch.distributions.Gamma draws from the
    global generator, which is the network's."""
    return torch._standard_gamma(shape, generator=generator)

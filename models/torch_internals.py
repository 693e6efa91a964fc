"""Private names of torch that the networks' side uses, and the English of its errors.

Checked on torch 2.14.1; `tests/trainer/system/test_torch_internals.py` uses each of them.

what torch has                          if it goes
Tensor._version                         layers=numpy cannot evaluate a 3 x 3 convolution
texts of torch.load(weights_only=True)  a refused file is called damaged
"""

from __future__ import annotations

import re

from torch import Tensor

ADVICE = "Weights only load failed"  # begins torch's advice to load unsafely; its context has why
UNKNOWN_OPCODE = "Unsupported operand"
NO_MEMORY = "allocate memory"


def version_of(tensor: Tensor) -> int:
    """Counts the changes in place by torch. Comparing the weights instead takes a VGG-16 0.1 s at
    each forward. Tensors that were made in inference mode have none: RuntimeError."""
    return tensor._version


def refused_global(text: str) -> str | None:
    """The name that torch's restricted unpickler refuses to look up."""
    told = re.search(r"GLOBAL ([\w.]+)", text)
    return told[1] if told else None

"""What torch.save files of other people hold besides plain float32 tensors, made plain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.weights.foreign import WeightsError, printable
from models.weights.safe_load import safe_torch_load

WRAPPERS = ("state_dict", "model")
PREFIXES = ("module.", "_orig_mod.")  # DataParallel and DDP; torch.compile
WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def flatten(path: Path) -> tuple[dict[str, Callable[[], np.ndarray]], list[str]]:
    """Load a file and give its tensors by name, each as a function to its array, and notes.

    Functions, so that only one converted copy need exist at a time.

    Raises:
        WeightsError: not loadable, no tensors in it, or tensors that are not dense CPU numbers.
    """
    try:
        entries, notes = unwrap(safe_torch_load(path))
        _check(entries, path.stat().st_size)
    except WeightsError:
        raise
    except ValueError as error:
        raise WeightsError(f"{path}: {error}") from error
    return {name: partial(_array, tensor) for name, tensor in entries.items()}, notes


def unwrap(content: Any) -> tuple[dict[str, Tensor], list[str]]:
    """Take a state_dict out of `{"state_dict": ...}` or `{"model": ...}` and drop prefixes.

    Raises:
        ValueError: there are no named tensors.
    """
    notes = []
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            notes.append(f"took the weights from the entry {wrapper!r}")
    if not isinstance(content, Mapping):
        raise ValueError(f"it holds a {type(content).__name__}, not a state_dict")
    tensors = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if not tensors:
        keys = ", ".join(printable(str(key)) for key in list(content)[:10])
        raise ValueError(f"it holds no named tensors; its entries are {keys or 'none'}")
    if len(tensors) < len(content):
        others = [printable(str(key)) for key in content if key not in tensors]
        notes.append(
            f"left out {len(others)} entries that are no tensors: {', '.join(others[:10])}"
        )
    return _without_prefixes(tensors, notes), notes


def _without_prefixes(tensors: dict[str, Tensor], notes: list[str]) -> dict[str, Tensor]:
    for _ in range(4):  # module._orig_mod.module. has been seen
        for prefix in PREFIXES:
            if all(name.startswith(prefix) for name in tensors):
                tensors = {name[len(prefix) :]: tensor for name, tensor in tensors.items()}
                notes.append(f"dropped the prefix {prefix!r} from every name")
    return tensors


def _check(tensors: Mapping[str, Tensor], file_bytes: int) -> None:
    """Refuse what is not a plain array of numbers, and what a few bytes blow up to terabytes."""
    for name, tensor in tensors.items():
        kind = _unusual(tensor)
        if kind:
            raise ValueError(f"{printable(name)} is {kind}; only dense real tensors can be used")
    # Half precision doubles, shared tensors double again; an expanded view has no bound.
    needed = 4 * sum(tensor.numel() for tensor in tensors.values())
    if needed > 4 * file_bytes:
        raise ValueError(
            f"damaged or hostile: its tensors would take {needed} bytes, the file has {file_bytes}"
        )


def _unusual(tensor: Tensor) -> str | None:
    if tensor.is_quantized:
        return "a quantized tensor"
    if tensor.layout != torch.strided or tensor.is_nested:
        return f"a tensor of layout {tensor.layout}"
    if tensor.device.type != "cpu":
        return f"a tensor without data (device {tensor.device})"
    if type(tensor) not in (Tensor, torch.nn.Parameter, torch.nn.Buffer):
        return f"a {type(tensor).__name__}"
    if tensor.dtype not in FLOATS + WHOLE:
        return f"of type {tensor.dtype}"
    return None


def _array(tensor: Tensor) -> np.ndarray:
    tensor = tensor.detach().resolve_neg()
    if tensor.is_floating_point():
        tensor = tensor.to(torch.float32)
    return tensor.contiguous().numpy()

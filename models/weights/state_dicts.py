"""Conversion of other programs' torch.save files to plain named float32 tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from models.weights.foreign import WeightsError, printable
from models.weights.safe_load import StandIn, safe_torch_load

# Where trainers keep weights among other things; of several that a file has, the first is taken.
# Averaged ones come first, as timm and torchvision's references evaluate those where they exist.
AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict")
WRAPPERS = (*AVERAGED, "state_dict", "model_state_dict", "model", "net", "network", "weights")
PREFIXES = ("module.", "_orig_mod.")  # DataParallel, DDP and averaged models; torch.compile
AVERAGES_COUNTER = "n_averaged"  # of torch.optim.swa_utils.AveragedModel, beside its module
WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
Value = TypeVar("Value")
FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def flatten(path: Path) -> tuple[dict[str, Callable[[], np.ndarray]], list[str]]:
    """Load a file and give its tensors by name, each as a function to its array, and notes.

    Functions, so that only one converted copy need exist at a time.

    Raises:
        WeightsError: not loadable, no tensors in it, or tensors that are not dense CPU numbers.
    """
    try:
        tensors, notes = unwrap(safe_torch_load(path))
    except WeightsError:
        raise
    except ValueError as error:
        raise WeightsError(f"{path}: {error}") from error
    return arrays_of(tensors, path), notes


def arrays_of(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Callable[[], np.ndarray]]:
    """Each tensor as a function to its array, floating point ones as float32.

    Raises:
        WeightsError: some are not dense CPU numbers, or take more memory than a file that honestly
            holds them.
    """
    try:
        _check(tensors, path.stat().st_size)
    except ValueError as error:
        raise WeightsError(f"{path}: {error}") from error
    return {name: partial(_array, tensor) for name, tensor in tensors.items()}


def unwrap(content: Any) -> tuple[dict[str, Tensor], list[str]]:
    """Take a state_dict out of what trainers wrap it into, see WRAPPERS, and drop prefixes.

    Raises:
        ValueError: there are no named tensors.
    """
    notes: list[str] = []
    for _ in range(3):  # {"net": {"state_dict": ...}} has been seen
        entries = content if isinstance(content, Mapping) else {}
        found = [name for name in WRAPPERS if isinstance(entries.get(name), Mapping)]
        if not found:
            break
        content = content[found[0]]
        notes.append(f"took the weights from the entry {found[0]!r}")
        if found[0] in AVERAGED and len(found) > 1:
            notes[-1] += (
                f", which are averaged, and not from {found[1]!r}; to have those: "
                f"torch.save(torch.load(FILE)[{found[1]!r}], NEW_FILE)"
            )
    if not isinstance(content, Mapping):
        kind = "whole object, not its weights" if isinstance(content, StandIn) else ""
        raise ValueError(
            f"it holds a {kind or f'{type(content).__name__}, not a state_dict'}; save these: "
            "torch.save(model.state_dict(), FILE)"
        )
    tensors = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if not tensors:
        keys = ", ".join(printable(str(key)) for key in list(content)[:10])
        raise ValueError(
            f"it holds no named tensors; its entries are {keys or 'none'}. Weights are looked for "
            f"in {', '.join(WRAPPERS)}"
        )
    if len(tensors) < len(content):
        others = [printable(str(key)) for key in content if key not in tensors]
        notes.append(
            f"left out {len(others)} entries that are no tensors: {', '.join(others[:10])}"
        )
    return without_prefixes(tensors, notes), notes


def without_prefixes(tensors: dict[str, Value], notes: list[str]) -> dict[str, Value]:
    """Names as the network has them, where every one has the same of PREFIXES; what was done is
    added to the notes."""
    rest = {name: tensor for name, tensor in tensors.items() if name != AVERAGES_COUNTER}
    if len(rest) < len(tensors) and rest and all(n.startswith("module.") for n in rest):
        tensors = rest
        notes.append("they are those of an averaged model")
    for _ in range(4):  # module._orig_mod.module. has been seen
        for prefix in PREFIXES:
            if tensors and all(name.startswith(prefix) for name in tensors):
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

"""Search for NaN and infinity in the tensors of a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


def not_finite(entries: Any) -> list[str]:
    """Dotted names of the tensors in nested dicts and lists that hold a NaN or an infinity.

    It takes one reduction per tensor, the largest absolute value, and one sync per device; so it is
    called where a state is saved, not after every step.
    """
    groups: dict[torch.device, list[tuple[str, Tensor]]] = {}
    for name, tensor in floats_in(entries):
        groups.setdefault(tensor.device, []).append((name, tensor))
    found = set()
    for named in groups.values():
        largest = [torch.linalg.vector_norm(plain(tensor), torch.inf) for _, tensor in named]
        are_finite = torch.stack([norm.isfinite() for norm in largest]).tolist()  # the sync
        found |= {name for (name, _), fine in zip(named, are_finite, strict=True) if not fine}
    return [name for name, _ in floats_in(entries) if name in found]


def floats_in(entries: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Iterate over (dotted name, tensor) of all non-empty floating-point and complex tensors."""
    if isinstance(entries, Tensor):
        if (entries.is_floating_point() or entries.is_complex()) and entries.numel():
            yield prefix, entries.detach()
        return
    items: Any = ()
    if isinstance(entries, Mapping):
        items = entries.items()
    elif isinstance(entries, list | tuple):
        items = enumerate(entries)
    for key, value in items:
        yield from floats_in(value, f"{prefix}.{key}" if prefix else str(key))


def plain(tensor: Tensor) -> Tensor:
    """The tensor in a dtype that has norms on every device: 8-bit floats have none."""
    return tensor if tensor.itemsize > 1 else tensor.float()

"""Tensors out of a file, held against those that they are to fill: by name, shape and kind."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def differences(
    have: Mapping[str, Tensor], want: Mapping[str, Tensor]
) -> list[tuple[str, str, str]]:
    """(name, what is there, what is wanted) of each tensor that does not fit. Precision may
    differ, the kind of number may not: whole numbers are no weights."""
    pairs = [(name, described(have, name), described(want, name)) for name in {**want, **have}]
    return sorted(
        (name, there or "missing", wanted or "unexpected")
        for name, there, wanted in pairs
        if there != wanted
    )


def described(tensors: Mapping[str, Tensor], name: str) -> str:
    """Shape and kind, such as "(8, 16)" or "() int64"; empty if there is none."""
    if name not in tensors:
        return ""
    tensor = tensors[name]
    kind = "" if tensor.is_floating_point() else f" {str(tensor.dtype).removeprefix('torch.')}"
    return f"{tuple(tensor.shape)}{kind}"

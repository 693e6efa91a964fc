"""Comparison of tensors from a file with those of a model: by name, shape and kind of number."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def differences(
    have: Mapping[str, Tensor], want: Mapping[str, Tensor]
) -> list[tuple[str, str, str]]:
    """List of (name, what `have` holds, what `want` needs) of each tensor that does not fit.
    Floating-point dtypes may differ; an integer tensor does not fit a floating-point one."""
    pairs = [(name, described(have, name), described(want, name)) for name in {**want, **have}]
    return sorted(
        (name, there or "missing", wanted or "unexpected")
        for name, there, wanted in pairs
        if there != wanted
    )


def described(tensors: Mapping[str, Tensor], name: str) -> str:
    """Shape and kind of a tensor, such as "(8, 16)" or "() int64"; empty if it does not exist."""
    if name not in tensors:
        return ""
    tensor = tensors[name]
    kind = "" if tensor.is_floating_point() else f" {str(tensor.dtype).removeprefix('torch.')}"
    return f"{tuple(tensor.shape)}{kind}"

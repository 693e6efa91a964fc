"""Digests of tensors and of whole checkpoints (SHA-256)."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import torch
from torch import Tensor


def digest(entries: dict[str, Any], most: float = math.inf) -> str:
    """Digest of a checkpoint's entries (SHA-256, hexadecimal): names, types and values, in order,
    without `digest` and `format`.

    Raises:
        ValueError: more than `most` bytes to hash. A forged file can claim any size, with a tensor
            that repeats one value or a list that is referenced many times.
    """
    sha = _Sha256(most)
    _update(sha, {k: v for k, v in entries.items() if k not in ("digest", "format")})
    return sha.sha.hexdigest()


def weights_sha256(state_dict: dict[str, Tensor]) -> str:
    """Digest of a state_dict (SHA-256, hexadecimal): names, dtypes, shapes and bytes, in order.
    Equal digests mean bitwise equal weights."""
    return digest(dict(state_dict))


class _Sha256:
    def __init__(self, most: float) -> None:
        self.sha, self.left = hashlib.sha256(), most

    def update(self, content: bytes | memoryview) -> None:
        self.left -= len(content)
        if self.left < 0:
            raise ValueError("holds more than a file of its size can")
        self.sha.update(content)


def _update(sha: _Sha256, value: Any) -> None:
    if isinstance(value, Tensor):
        if value.layout != torch.strided or value.is_quantized or value.nbytes > sha.left:
            raise ValueError(f"not a plain tensor: {value.layout}, {value.nbytes} bytes")
        sha.update(f"tensor {value.dtype} {tuple(value.shape)}".encode())
        # uint8 view: NumPy has no bfloat16
        flat = value.detach().cpu().contiguous().flatten()
        sha.update(flat.view(torch.uint8).numpy().data)
    elif isinstance(value, dict):
        sha.update(f"dict {len(value)}".encode())
        for key, item in value.items():
            sha.update(f"{type(key).__name__} {key!r}".encode())
            _update(sha, item)
    elif isinstance(value, list | tuple):
        sha.update(f"list {len(value)}".encode())
        for item in value:
            _update(sha, item)
    elif value is None or isinstance(value, str | int | float | bool):
        sha.update(f"{type(value).__name__} {value!r}".encode())
    else:
        raise TypeError(f"a checkpoint cannot hold a {type(value).__name__}: {value!r}")

"""Layout of a pack in its file, and checks that find damage before any of it is used.

    N * C * H * W bytes   the images, (N, C, H, W) uint8
    index                 JSON: "made_by", "shape", "files" and "bad" as in
                          `data.image_folder.packing.Pack`, and "sums", the checksums of
                          the images, see `data.digests`
    32 bytes              SHA-256 of the index
    8 bytes               length of the index, little-endian
    8 bytes               MAGIC, which says that this is how it lies

Every byte is covered: by a checksum of images, by that of the index, or by being compared.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import warnings
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from data.digests import digest_of, sums_of

MAGIC = b"trnpack3"
_LENGTH_BYTES, _SUM_BYTES = 8, 32
_TAIL_BYTES = _SUM_BYTES + _LENGTH_BYTES + len(MAGIC)


class UnusablePackError(ValueError):
    """There is a file, but not a pack that may be used; why, in words."""


def write_index(out: BinaryIO, index: dict[str, Any]) -> None:
    """After the images: the rest of the file, down to the disk."""
    content = json.dumps(index).encode()
    out.write(content)
    out.write(hashlib.sha256(content).digest())
    out.write(len(content).to_bytes(_LENGTH_BYTES, "little") + MAGIC)
    out.flush()
    os.fsync(out.fileno())


def read_pack(file: BinaryIO, shape: Sequence[int], made_by: str) -> tuple[Tensor, dict[str, Any]]:
    """The images, (N, *shape) uint8, mapped, and the index. All of the file is read once.

    Raises:
        UnusablePackError: damaged, or made by another version.
        MemoryError: it is more than this process may map.
    """
    index, num_bytes = _read_index(file)
    if (index["made_by"], index["shape"]) != (made_by, list(shape)):
        raise UnusablePackError("another version of this program or of Pillow made it")
    num_images = len(index["files"])
    if num_bytes != num_images * math.prod(shape):
        raise UnusablePackError("it is damaged: it has not the length that it should have")
    try:
        images = mapped(file, (num_images, *shape))
    except OSError as error:
        raise (MemoryError if error.errno == errno.ENOMEM else error) from error
    if sums_of(images) != index["sums"]:
        raise UnusablePackError("it is damaged: its images do not agree with their checksums")
    return images, index


def _read_index(file: BinaryIO) -> tuple[dict[str, Any], int]:
    """And how many bytes of images lie before it."""
    if (size := os.fstat(file.fileno()).st_size) < _TAIL_BYTES:
        raise UnusablePackError("it is cut off")
    file.seek(size - _TAIL_BYTES)
    tail = file.read(_TAIL_BYTES)
    if tail[-len(MAGIC) :] != MAGIC:
        raise UnusablePackError("it is damaged, or an earlier version of this program made it")
    length = int.from_bytes(tail[_SUM_BYTES : -len(MAGIC)], "little")
    num_bytes = size - _TAIL_BYTES - length
    if num_bytes < 0:
        raise UnusablePackError("it is damaged: its index is longer than the file")
    file.seek(num_bytes)
    content = file.read(length)
    if hashlib.sha256(content).digest() != tail[:_SUM_BYTES]:
        raise UnusablePackError("it is damaged: its index does not agree with its checksum")
    index: dict[str, Any] = json.loads(content)
    return index, num_bytes


def mapped(file: BinaryIO, shape: tuple[int, ...]) -> Tensor:
    """The beginning of a file as a tensor that reads from it.

    Read-only and shared. A private map that may be written to counts as memory in use, and Linux
    refuses one that is larger than memory and swap.
    """
    if not shape[0]:
        return torch.empty(shape, dtype=torch.uint8)
    array = np.memmap(file, np.uint8, mode="r", shape=shape)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.from_numpy(array)


def content_digest(path: str | os.PathLike[str]) -> str:
    """BLAKE2b of a file's content, 32 hex digits; empty if it is no file or cannot be read."""
    try:
        if not os.path.isfile(path):  # opening a pipe would wait for its writer
            return ""
        with open(path, "rb") as file:
            return digest_of(file, hashlib.blake2b(digest_size=16))
    except OSError:
        return ""

"""For tests: TIFFs of any kind, byte by byte, as TIFF 6.0 has them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

PACKED = 8  # Compression: deflate


def write_tiff(
    path: Path,
    pixels: np.ndarray,
    photometric: int = 1,
    *,
    extra: Sequence[int] = (),
    planar: bool = False,
    compression: int = 1,
    order: str = "",
    num_bits: int = 0,
    content: bytes = b"",
) -> Path:
    """Pixels of (H, W) or (H, W, C) in one strip, or one each channel.

    Args:
        order: "<" or ">", of the file; that of the pixels' bytes if they have one.
        extra: what the channels beyond the photometric ones are.
        num_bits: of each number, and `content` the bytes, where NumPy has no such type.
    """
    order = order or (">" if pixels.dtype.byteorder == ">" else "<")
    height, width, *channels = pixels.shape
    num = channels[0] if channels else 1
    strips = [content or pixels.tobytes()]
    if planar:
        strips = [pixels[..., i].tobytes() for i in range(num)]
    if compression == PACKED:
        strips = [zlib.compress(strip) for strip in strips]
    starts = [8 + sum(map(len, strips[:i])) for i in range(len(strips))]
    tags = {
        256: [width], 257: [height], 258: [num_bits or 8 * pixels.itemsize] * num,
        259: [compression], 262: [photometric], 273: starts, 277: [num], 278: [height],
        279: [len(strip) for strip in strips], 284: [2 if planar else 1],
        338: list(extra), 339: [{"u": 1, "i": 2, "f": 3, "c": 6}[pixels.dtype.kind]] * num,
    }  # fmt: skip
    data = b"".join(strips)
    data += bytes(len(data) % 2)
    directory = _directory(order, {t: v for t, v in tags.items() if v}, 8 + len(data))
    magic = b"MM\0*" if order == ">" else b"II*\0"
    path.write_bytes(magic + struct.pack(f"{order}I", 8 + len(data)) + data + directory)
    return path


def _directory(order: str, tags: dict[int, list[int]], start: int) -> bytes:
    """Of tags with values of 16 bits, but for sizes and places, which have 32."""
    beyond = start + 2 + 12 * len(tags) + 4
    entries, values = struct.pack(f"{order}H", len(tags)), b""
    for tag in sorted(tags):
        kind, code = (4, "I") if tag in (256, 257, 273, 278, 279) else (3, "H")
        value = struct.pack(f"{order}{len(tags[tag])}{code}", *tags[tag])
        if len(value) > 4:
            place, value = beyond + len(values), value + bytes(len(value) % 2)
            values += value
            value = struct.pack(f"{order}I", place)
        entries += struct.pack(f"{order}HHI", tag, kind, len(tags[tag])) + value.ljust(4, b"\0")
    return entries + bytes(4) + values

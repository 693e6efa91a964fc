"""A JPEG's or PNG's pixels without what stands beside them: EXIF, texts, colour profiles, previews.

Pillow reads all of that when it opens a file, and calls the image damaged if any of it is: a
text that is long when unpacked, a wrong checksum of a comment, a resolution that is none. None of
it is a pixel, so it is left out before Pillow sees the file. Two things are kept of it: how an
image is to be turned, and what changes the meaning of its pixels (transparency, Adobe's mark).

What cannot be followed is left to Pillow as it is.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from PIL import Image

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
# Of PNG, third edition: all that changes a still image's pixels. An animation's other frames, and
# what plays them, are left out: its first image stands in the IDAT chunks.
_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
ORIENTATION = 0x0112  # of EXIF 2.3 and TIFF 6.0
_MOST_TEXT = 2**20  # bytes of a packed text that may hold EXIF

_START_OF_SCAN, _COMMENT = 0xDA, 0xFE
_ADOBE = 0xEE  # APP14: whether the colours are RGB, CMYK or turned by YCC
_XMP = re.compile(rb"tiff:Orientation(?:=[\"']|>)\s*([1-8])")


class Pixels(NamedTuple):
    """A file's pixels alone, and its 8 kinds of upright: EXIF 2.3, tag 0x0112, 1..8."""

    content: bytes
    orientation: int


def has_parts(head: bytes) -> bool:
    """True if a file that begins so is a JPEG or PNG."""
    return head.startswith((_PNG, _JPEG))


def pixels_alone(content: bytes) -> Pixels | None:
    """None if it is no JPEG or PNG, or damaged so that its parts cannot be told apart.

    Raises:
        ValueError: the checksum of a part that has pixels is wrong.
    """
    try:
        if content.startswith(_PNG):
            return _of_png(content)
        if content.startswith(_JPEG):
            return _of_jpeg(content)
    except (struct.error, IndexError):
        pass
    return None


def _of_png(content: bytes) -> Pixels | None:
    kept, exif, xmp = [_PNG], b"", b""
    for name, start, end in _chunks(content):
        data = content[start:end]
        if name in _PIXELS:
            if end + 4 <= len(content) and zlib.crc32(name + data) != _number(content, end):
                raise ValueError(f"wrong checksum of {name.decode()}")
            kept.append(content[start - 8 : end + 4])
        elif name == b"eXIf":
            exif = exif or data
        elif name in (b"tEXt", b"zTXt", b"iTXt"):
            exif, xmp = exif or _exif_in_text(name, data), xmp or _xmp_in_text(name, data)
        elif not name[0] & 0x20:  # a critical one that nobody here knows
            return None
        if name == b"IEND":
            break
    return Pixels(b"".join(kept), orientation_of(exif, xmp))


def _chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of each chunk's data; the last one may be cut off."""
    at = len(_PNG)
    while at + 8 <= len(content):
        length, name = _number(content, at), content[at + 4 : at + 8]
        yield name, at + 8, at + 8 + length
        at += 12 + length


def _number(content: bytes, at: int) -> int:
    return int(struct.unpack_from(">I", content, at)[0])


def _exif_in_text(name: bytes, data: bytes) -> bytes:
    """As ImageMagick writes it: a length and hex digits."""
    key, _, value = data.partition(b"\0")
    if key not in (b"Raw profile type exif", b"Raw profile type APP1") or name == b"iTXt":
        return b""
    try:
        text = _unpacked(value[1:]) if name == b"zTXt" else value
        return bytes.fromhex("".join(text.decode("latin1").split("\n")[3:]))
    except ValueError:
        return b""


def _xmp_in_text(name: bytes, data: bytes) -> bytes:
    key, _, rest = data.partition(b"\0")
    if name != b"iTXt" or key != b"XML:com.adobe.xmp":
        return b""
    packed, value = rest[:1] == b"\1", rest[2:].split(b"\0", 2)[-1]
    return _unpacked(value) if packed else value


def _unpacked(data: bytes) -> bytes:
    """Its beginning; nothing if it is damaged."""
    try:
        return zlib.decompressobj().decompress(data, _MOST_TEXT)
    except zlib.error:
        return b""


def _of_jpeg(content: bytes) -> Pixels | None:
    kept, exif, xmp, at = [b"\xff\xd8"], b"", b"", 2
    while True:
        while content[at] == 0xFF and content[at + 1] == 0xFF:  # fill bytes
            at += 1
        if content[at] != 0xFF:
            return None
        marker = content[at + 1]
        if marker == _START_OF_SCAN:
            return Pixels(b"".join([*kept, content[at:]]), orientation_of(exif, xmp))
        if marker == 0x01 or 0xD0 <= marker <= 0xD9:  # without a length: not expected here
            return None
        end = at + 2 + int(struct.unpack_from(">H", content, at + 2)[0])
        data = content[at + 4 : end]
        if 0xE1 <= marker <= 0xEF and marker != _ADOBE:
            exif = exif or (data if marker == 0xE1 and data.startswith(b"Exif\0\0") else b"")
            xmp = xmp or (data if marker == 0xE1 and data.startswith(b"http://ns.adobe") else b"")
        elif marker != _COMMENT:
            kept.append(content[at:end])
        at = end


def orientation_of(exif: bytes, xmp: bytes = b"") -> int:
    """1..8, how an image is to be turned; 1, as it is, where nothing that can be read says so."""
    found = _in_exif(exif)
    if found is None:
        match = _XMP.search(xmp)
        found = int(match[1]) if match else 1
    return found if found in range(1, 9) else 1


_WHOLE = {1: "B", 3: "H", 4: "I"}  # kinds of whole numbers


def _in_exif(exif: bytes) -> int | None:
    """The tag alone, from the first directory: what is wrong with others does not matter."""
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return None
    try:
        (at,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, at)
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            tag, kind, num = struct.unpack_from(f"{order}HHI", exif, entry)
            if tag == ORIENTATION and kind in _WHOLE and num == 1:
                return int(struct.unpack_from(order + _WHOLE[kind], exif, entry + 8)[0])
    except struct.error:  # cut off
        pass
    return None


def exif_of(orientation: int) -> bytes:
    """EXIF that says this and nothing else."""
    entry = struct.pack("<HHIHH", ORIENTATION, 3, 1, orientation, 0)
    return b"Exif\0\0II*\0\x08\0\0\0\x01\0" + entry + bytes(4)


# Operation that brings an image of each orientation upright; 1 is upright.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip

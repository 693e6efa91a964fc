"""Tests of which files are images: by their first bytes, and by names that say so.

What claims to be one, by either, is decoded, or named as one that cannot be. All else that lies in
a folder (README.txt, labels.csv, a film) is no image, and no fault.
"""

from __future__ import annotations

import os
import re
from collections import Counter

from data.images.ignored_files import SUFFIXES

# Names of images that are not decoded, whatever is in them being looked at all the same.
OTHER_SUFFIXES = (".heic", ".heics", ".heif", ".heifs", ".hif", ".jxl", ".jxr", ".psd", ".svg")

_NUM_BYTES = 32  # that are read of a file

# First bytes: JPEG, PNG, GIF, TIFF (both orders, BigTIFF), JPEG 2000 (file, bare), JPEG XL, PSD.
_BEGINNINGS = (
    b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"II+\0",
    b"MM\0+", b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51", b"\0\0\0\x0cJXL \r\n\x87\n",
    b"8BPS\0\1",
)  # fmt: skip
_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_NETPBM = re.compile(rb"P[1-6]\s+(#|\d)|P[Ff]\s+\d|P7\sWIDTH")

# TIFF by their first bytes; what a reader of TIFF finds in them is a thumbnail.
RAW_SUFFIXES = (
    ".3fr", ".arw", ".cr2", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mos", ".nef", ".nrw",
    ".orf", ".pef", ".raf", ".rw2", ".rwl", ".srw", ".x3f",
)  # fmt: skip


def claims_to_be_an_image(path: str | os.PathLike[str]) -> bool:
    """By its name or its first bytes. A camera's raw file does not: beside it lies its JPEG."""
    suffix = suffix_of(path)
    if suffix in SUFFIXES or suffix in OTHER_SUFFIXES:
        return True
    return suffix not in RAW_SUFFIXES and begins_as_an_image(path)


def begins_as_an_image(path: str | os.PathLike[str]) -> bool:
    """False for what is no regular file, or cannot be read."""
    try:
        if not os.path.isfile(path):  # opening a pipe would wait for its writer
            return False
        with open(path, "rb") as file:
            first = file.read(_NUM_BYTES)
    except OSError:
        return False
    if first.startswith(_BEGINNINGS) or _NETPBM.match(first):
        return True
    if first[:4] == b"RIFF" and first[8:12] == b"WEBP":
        return True
    if first[4:8] == b"ftyp":
        return first[8:12] in _BRANDS
    return first[:2] == b"BM" and first[6:10] == bytes(4)  # two reserved numbers, which are 0


def suffix_of(path: str | os.PathLike[str]) -> str:
    """In small letters, with the dot; empty if the name has none."""
    return os.path.splitext(path)[1].lower()


def kinds(others: Counter[str]) -> str:
    """`3 .txt, 1 without a suffix`: files that are no images, by their suffixes."""
    named = [f"{n:,} {suffix or 'without a suffix'}" for suffix, n in others.most_common()]
    rest = len(named) - 10
    more = [f"and {rest:,} kind{'s' * (rest > 1)} more"] if rest > 0 else []
    return ", ".join(named[:10] + more)

"""Real type of a file that is no image, told by its first bytes: its name may say anything."""

from __future__ import annotations

import re
from pathlib import Path

_HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_SAVE = "which is not read; save it as a JPEG or PNG"
_TIFF = f"a TIFF, damaged or of a kind {_SAVE} of 8 or 16 bits"

# Beginnings in small letters, after white space, and what has them.
_BEGINNINGS = (
    (b"version https://git-lfs", "a pointer of Git LFS, not the image itself; `git lfs pull` "
     "fetches it"),
    (b"ii*\0", _TIFF), (b"mm\0*", _TIFF), (b"ii+\0", _TIFF), (b"mm\0+", _TIFF),
    (b"<!doctype html", "a web page (HTML)"), (b"<html", "a web page (HTML)"),
    (b"<head", "a web page (HTML)"), (b"<svg", f"an SVG drawing, {_SAVE}"),
    (b"<?xml", "XML"), (b"{", "JSON or another text"), (b"%pdf-", f"a PDF document, {_SAVE}"),
    (b"%!ps", f"a PostScript file, {_SAVE}"), (b"8bps", f"a Photoshop file, {_SAVE}"),
    (b"\x89hdf", "an HDF5 file"), (b"\x93numpy", "an array of NumPy's"),
    (b"simple  =", "a FITS file"),
    (b"pk\3\4", "a ZIP archive or an Office document"), (b"rar!", "a RAR archive"),
    (b"\x1f\x8b", "a gzip archive"), (b"7z\xbc\xaf", "a 7z archive"),
    (b"\xff\x0a", f"a JPEG XL image, {_SAVE}"),
    (b"\0\0\0\x0cjxl ", f"a JPEG XL image, {_SAVE}"), (b"\x7felf", "a program"),
    (b"mz", "a program"), (b"\0\0\1\0", f"an icon of Windows', {_SAVE}"),
)  # fmt: skip


def looks_like(path: Path) -> str | None:
    """Such as: a web page (HTML). None if the beginning tells nothing."""
    with path.open("rb") as file:
        head = file.read(512)
    if head[4:8] == b"ftyp":
        heif = head[8:12] in _HEIF
        return f"a HEIC photograph, {_SAVE}" if heif else "a film, or of that family (MP4)"
    if head[128:132] == b"DICM":
        return f"a DICOM file, {_SAVE} of 8 or 16 bits"
    if head[:4] == b"RIFF" and head[8:12] != b"WEBP":
        return "a film or sound (RIFF)"
    beginning = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for first, name in _BEGINNINGS:
        if beginning.startswith(first):
            return name
    if head and not any(head):
        return "nothing but zeros, as of a download that was cut off"
    return "text" if head and re.fullmatch(rb"[\t\n\r\x20-\x7e]+", head) else None

"""Format of a weight file, recognised by its first bytes: names can be wrong, and a download can be
a web page."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Literal

from models.weights.foreign import WeightsError, printable

Kind = Literal["mat", "zip", "pickle", "safetensors"]

HDF5 = b"\x89HDF\r\n\x1a\n"
ACCEPTED = "a .pth written by torch.save, a .safetensors, or a MATLAB v5 .mat of MatConvNet"


def kind_of(path: Path) -> Kind:
    """The format of a weight file: 'mat', 'safetensors', 'zip' (torch.save since 1.6) or 'pickle'
    (before).

    Raises:
        WeightsError: missing, unreadable, empty, or another format, which is named.
    """
    head = _head(path)
    if not head:
        raise WeightsError(f"{path}: the file is empty; download it again")
    if head.startswith(b"MATLAB 5.0"):
        return "mat"
    if head.startswith(b"PK"):
        return "zip"
    if head[6:9] == b"\0\0{":  # the header's length in 8 bytes, of which 6 suffice, and its start
        return "safetensors"
    refusal = refusal_of(head)
    if refusal is None and head[0] == 0x80:  # pickle's PROTO opcode
        return "pickle"
    raise WeightsError(f"{path}: {refusal or 'the format is unknown'}; expected {ACCEPTED}")


def check_zip(path: Path) -> None:
    """Refuse a zip that torch.save did not write or that arrived damaged.

    `torch.load` checks no CRC, inflates compressed entries of any size, and returns uninitialised
    memory for an entry that carries the DOS directory attribute; so each is looked at here first.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            problem = _zip_problem(archive, path.stat().st_size)
    except Exception as error:  # damaged headers reach many corners of zipfile
        problem = f"truncated or damaged zip archive ({error}); download it again"
    if problem:
        raise WeightsError(f"{path}: {problem}")


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(1024)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from error


def refusal_of(head: bytes) -> str | None:
    """Phrase for a file that begins so and is no weights; None if its beginning says nothing."""
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "this is a web page, not weights: the download link needs a browser or a login"
    if text.startswith(b"version https://git-lfs"):
        return "this is a git-lfs pointer, not the file itself: run `git lfs pull`"
    if head.startswith((HDF5, b"MATLAB 7")) or head[512:520] == HDF5:
        return "this is HDF5 (MATLAB v7.3): in MATLAB, save it again with save(..., '-v7')"
    if head.startswith(b"\x1f\x8b"):
        return "this is gzip: unpack it first"
    if head[257:262] == b"ustar":
        return "this is a tar archive: unpack it first"
    return None


def _zip_problem(archive: zipfile.ZipFile, size: int) -> str | None:
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    leaves = {name.rsplit("/", 1)[-1] for name in names}
    if "constants.pkl" in leaves:
        return (
            "this is a TorchScript program, which carries code; where you trust it: "
            "torch.save(torch.jit.load(FILE).state_dict(), NEW_FILE)"
        )
    if "data.pkl" not in leaves:
        shown = ", ".join(map(printable, names[:5])) or "nothing"
        return f"a zip archive, but not of torch.save: it holds {shown}; unpack it first"
    if len(set(names)) != len(names):
        return "damaged or hostile: two entries of the zip archive have the same name"
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        return "damaged or hostile: torch.save never compresses, this zip archive is compressed"
    if sum(entry.file_size for entry in entries) > size:
        return f"damaged or hostile: its entries claim more than the file's {size} bytes"
    if any(entry.is_dir() or entry.external_attr & 0x10 for entry in entries):
        return "damaged or hostile: a tensor is marked as a directory"
    bad = archive.testzip()
    return bad and f"damaged: the checksum of {printable(bad)} is wrong; download it again"

"""Checkpoint files: written so that a crash leaves the old file, read so that damage is detected.

A checkpoint is one dict of tensors, str, int, float, bool, None, lists and dicts. Of its entries
this module uses only `digest`, a SHA-256 over all others: torch.load verifies no checksums, and a
flipped bit in a tensor would load silently.
"""

from __future__ import annotations

import io
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from models.torch_internals import refused_global
from models.weights.formats import refusal_of
from models.weights.safe_load import foreign_globals
from trainer.checkpoints.digest import digest
from trainer.errors import UserError
from trainer.system.files import write_bytes

FORMAT = 1


def write(path: Path, entries: dict[str, Any]) -> None:
    """Write `entries` with their digest to `path`, durably: to a temporary file in the same folder,
    which is synced, then renamed; then the folder is synced."""
    buffer = io.BytesIO()
    torch.save({**entries, "format": FORMAT, "digest": digest(entries)}, buffer)
    write_bytes(path, buffer.getbuffer())


def read(path: Path) -> dict[str, Any]:
    """Verified entries of a checkpoint of this program, on the CPU, without `format` and `digest`.
    Raises UserError.

    weights_only is passed because an environment variable can turn off the default.
    """
    if not path.is_file():
        what = "is a folder, a pipe or a device, not a file" if path.exists() else None
        raise UserError(f"{path}: {what or 'there is no such file'}.")
    try:
        _check_archive(path)
        with warnings.catch_warnings():  # a damaged pickle can cause misleading warnings
            warnings.simplefilter("ignore")
            entries = torch.load(path, map_location="cpu", weights_only=True)
        most = 8 * path.stat().st_size  # shared tensors and memoised names are counted each time
        found = digest(entries, most) if isinstance(entries, dict) else ""
    except Exception as error:  # torch raises seven kinds, depending on where a file is truncated
        raise UserError(f"{path}: {_what_is_wrong(path, error)}") from error
    if not isinstance(entries, dict) or "digest" not in entries or "model" not in entries:
        raise UserError(f"{path}: not a checkpoint of this program: its description is missing.")
    if entries.get("format") != FORMAT:
        raise UserError(
            f"{path}: checkpoint format {entries.get('format')}; this version reads {FORMAT}."
        )
    if found != entries.pop("digest"):
        raise UserError(f"{path}: damaged: the content does not match its digest.")
    del entries["format"]
    return entries


def _check_archive(path: Path) -> None:
    """Raises ValueError unless the zip archive has the form that torch.save writes. Called before
    any memory is allocated for its content: torch.load inflates compressed entries of any size, and
    returns uninitialised memory for an entry marked as a folder."""
    with zipfile.ZipFile(path) as file:
        entries = file.infolist()
    plain = all(e.compress_type == zipfile.ZIP_STORED and not e.external_attr for e in entries)
    size = sum(entry.file_size for entry in entries)
    if not plain or size > path.stat().st_size or len({e.filename for e in entries}) < len(entries):
        raise ValueError("not as torch.save writes it")


def is_ours(path: Path) -> bool:
    """True if a file claims to be a checkpoint of this program, even if it is damaged: a zip file
    with the word "digest" in its pickle. Unpickles nothing."""
    try:
        with zipfile.ZipFile(path) as file:
            names = [name for name in file.namelist() if name.endswith("/data.pkl")]
            with file.open(names[0]) as described:
                return b"digest" in described.read(2**24)
    except (OSError, zipfile.BadZipFile, IndexError, RuntimeError, ValueError):
        return False


def is_safetensors(path: Path) -> bool:
    """True for a file that begins as safetensors do: the length of a header in 8 bytes, of which 6
    suffice, and its brace."""
    try:
        with open(path, "rb") as file:
            return file.read(9)[6:] == b"\0\0{"
    except OSError:
        return False


def _what_is_wrong(path: Path, error: Exception) -> str:
    """Sentence for the user on why a file could not be loaded; torch's message would advise unsafe
    loading."""
    try:
        with open(path, "rb") as file:
            head = file.read(1024)
    except OSError as unreadable:
        error, head = unreadable, b"?"
    if not head:
        return "the file is empty."
    if isinstance(error, OSError) and error.errno is not None:
        return f"it cannot be read: {error.strerror}."
    if refusal := refusal_of(head):
        return f"{refusal}."
    if is_safetensors(path):
        return (
            "this is a safetensors file, which holds weights alone and no model. Make a checkpoint "
            "of it: python -m trainer import-weights FILE --model NAME -o FILE.pth"
        )
    if forbidden := refused_global(str(error)) or next(iter(foreign_globals(path)), None):
        return f"it holds {forbidden!r}, which could run code, and is not loaded."
    return "damaged, truncated or not a checkpoint."

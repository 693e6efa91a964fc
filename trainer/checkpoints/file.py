"""Checkpoints on disk: written so that a crash leaves the old one, read so that damage shows.

A checkpoint is one dict of tensors, str, int, float, bool, None, lists and dicts. This file knows
nothing of what is in it but `digest`, a SHA-256 over all the rest: torch.load checks no sums, and
a flipped bit in a tensor would load silently.
"""

from __future__ import annotations

import contextlib
import io
import pickletools
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from trainer.checkpoints.digest import digest
from trainer.errors import UserError
from trainer.system.error_texts import refused_global
from trainer.system.files import write_bytes

FORMAT = 1


def write(path: Path, entries: dict[str, Any]) -> None:
    """Write `entries` with their digest to `path`, durably: first whole and synced under another
    name in the same folder, then renamed, then the folder synced."""
    buffer = io.BytesIO()
    torch.save({**entries, "format": FORMAT, "digest": digest(entries)}, buffer)
    write_bytes(path, buffer.getbuffer())


def read(path: Path) -> dict[str, Any]:
    """The entries of a checkpoint of ours, on the CPU, verified. Raises UserError.

    weights_only is spelled out because an environment variable can turn off the default.
    """
    if not path.is_file():
        what = "is no file but a folder, a pipe or a device" if path.exists() else None
        raise UserError(f"{path}: {what or 'there is no such file'}.")
    try:
        _check_archive(path)
        with warnings.catch_warnings():  # of what a damaged description seems to be
            warnings.simplefilter("ignore")
            entries = torch.load(path, map_location="cpu", weights_only=True)
        most = 8 * path.stat().st_size  # shared weights and memoised names count each time
        found = digest(entries, most) if isinstance(entries, dict) else ""
    except Exception as error:  # torch raises seven kinds, depending on where a file is cut
        raise UserError(f"{path}: {_what_is_wrong(path, error)}") from error
    if not isinstance(entries, dict) or "digest" not in entries or "model" not in entries:
        raise UserError(f"{path}: not a checkpoint of this program: its description is missing.")
    if entries.get("format") != FORMAT:
        raise UserError(
            f"{path}: checkpoint format {entries.get('format')}, and this version reads {FORMAT}."
        )
    if found != entries.pop("digest"):
        raise UserError(f"{path}: damaged: its content does not match its digest.")
    del entries["format"]
    return entries


def _check_archive(path: Path) -> None:
    """Before memory is taken for what a file claims to hold: torch.load inflates compressed
    entries of any size, and gives uninitialised memory for one that is marked as a folder.
    Raises ValueError."""
    with zipfile.ZipFile(path) as file:
        entries = file.infolist()
    plain = all(e.compress_type == zipfile.ZIP_STORED and not e.external_attr for e in entries)
    size = sum(entry.file_size for entry in entries)
    if not plain or size > path.stat().st_size or len({e.filename for e in entries}) < len(entries):
        raise ValueError("not as torch.save writes it")


def is_ours(path: Path) -> bool:
    """Whether a file claims to be a checkpoint of ours: a zip file that speaks of a digest in its
    pickled description, however damaged. Reads no object out of it."""
    try:
        with zipfile.ZipFile(path) as file:
            names = [name for name in file.namelist() if name.endswith("/data.pkl")]
            with file.open(names[0]) as described:
                return b"digest" in described.read(2**24)
    except (OSError, zipfile.BadZipFile, IndexError, RuntimeError):
        return False


def _what_is_wrong(path: Path, error: Exception) -> str:
    """One sentence for the user; torch's own would advise to load unsafely."""
    try:
        with open(path, "rb") as file:
            head = file.read(64)
    except OSError as unreadable:
        error, head = unreadable, b"?"
    if not head:
        return "the file is empty."
    if isinstance(error, OSError) and error.errno is not None:
        return f"it cannot be read: {error.strerror}."
    if head.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")):
        return "this is a web page, not a checkpoint; the download went wrong."
    if head.startswith(b"version https://git-lfs"):
        return "this is a pointer of Git LFS, not the file itself: fetch it with `git lfs pull`."
    forbidden = refused_global(error) or _looked_up(path)
    if forbidden:
        return f"it holds {forbidden!r}, which could run code, and is not loaded."
    return "damaged, cut off or not a checkpoint."


def _looked_up(path: Path) -> str | None:
    """The first name outside torch that a bare pickle would import, found without running it. The
    format of torch before 1.6 is a row of pickles; what follows them ends the loop."""
    strings: list[str] = []
    with contextlib.suppress(Exception), open(path, "rb") as file:
        while True:
            for opcode, argument, _ in pickletools.genops(file):
                name = None
                if opcode.name in ("GLOBAL", "INST"):
                    name = str(argument).replace(" ", ".")
                elif opcode.name == "STACK_GLOBAL":
                    name = ".".join(strings[-2:])
                elif isinstance(argument, str):
                    strings.append(argument)
                if name and not name.startswith(("torch.", "collections.")):
                    return name
    return None

"""Checkpoints on disk: written so that a crash leaves the old one, read so that damage shows.

A checkpoint is one dict of tensors, str, int, float, bool, None, lists and dicts. This file knows
nothing of what is in it but `digest`, a SHA-256 over all the rest: torch.load checks no sums, and
a flipped bit in a tensor would load silently.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer.errors import UserError

FORMAT = 1


def write(path: Path, entries: dict[str, Any]) -> None:
    """Write `entries` with their digest to `path`, durably: first whole and synced under another
    name in the same folder, then renamed, then the folder synced."""
    buffer = io.BytesIO()
    torch.save({**entries, "format": FORMAT, "digest": digest(entries)}, buffer)
    write_bytes(path, buffer.getbuffer())


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    temporary = path.with_name(f".{path.name}.tmp.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    if not hasattr(os, "O_DIRECTORY"):  # Windows cannot open a folder
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(path: Path) -> dict[str, Any]:
    """The entries of a checkpoint of ours, on the CPU, verified. Raises UserError.

    weights_only is spelled out because an environment variable can turn off the default.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such file.")
    try:
        entries = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises seven kinds, depending on where a file is cut
        raise UserError(f"{path}: {_what_is_wrong(path, error)}") from error
    if not isinstance(entries, dict) or "digest" not in entries or "model" not in entries:
        raise UserError(f"{path}: not a checkpoint of this program: its description is missing.")
    if entries.get("format") != FORMAT:
        raise UserError(
            f"{path}: checkpoint format {entries.get('format')}, and this version reads {FORMAT}."
        )
    stored = entries.pop("digest")
    del entries["format"]
    if digest(entries) != stored:
        raise UserError(f"{path}: damaged: its content does not match its digest.")
    return entries


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
    with open(path, "rb") as file:
        head = file.read(64)
    if not head:
        return "the file is empty."
    if head.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")):
        return "this is a web page, not a checkpoint; the download went wrong."
    if head.startswith(b"version https://git-lfs"):
        return "this is a pointer of Git LFS, not the file itself: fetch it with `git lfs pull`."
    forbidden = re.search(r"GLOBAL (\S+) was not an allowed", str(error))
    if forbidden:
        return f"it holds {forbidden[1]}, which could run code, and is not loaded."
    return "damaged, cut off or not a checkpoint."


def digest(entries: dict[str, Any]) -> str:
    """SHA-256, hex, over all names, types and values, in order."""
    sha = hashlib.sha256()
    _update(sha, entries)
    return sha.hexdigest()


def weights_sha256(state_dict: dict[str, Tensor]) -> str:
    """SHA-256, hex, of a model's weights: names, dtypes, shapes and bytes, in order. Two runs with
    the same one computed the same bits."""
    return digest(dict(state_dict))


def _update(sha: Any, value: Any) -> None:
    if isinstance(value, Tensor):
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


class CheckpointFolder:
    """`step_<N>.pth`: full states, the newest `keep`. `last.pth`: the newest of them, a hard link
    where the file system has them. `best.pth`: weights and description."""

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder, self.keep = folder, keep
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def best(self) -> Path:
        return self.folder / "best.pth"

    def save_state(self, step: int, entries: dict[str, Any]) -> Path:
        path = self.folder / f"step_{step}.pth"
        write(path, entries)
        self._link_last(path)
        for old in self.states()[: -self.keep]:
            old.unlink()
        return path

    def save_best(self, entries: dict[str, Any]) -> None:
        write(self.best, entries)

    def states(self) -> list[Path]:
        """The full states, oldest step first."""
        found = self.folder.glob("step_*.pth")
        steps = {int(m[1]): p for p in found if (m := re.fullmatch(r"step_(\d+)\.pth", p.name))}
        return [steps[step] for step in sorted(steps)]

    def _link_last(self, path: Path) -> None:
        last, temporary = self.folder / "last.pth", self.folder / f".last.pth.tmp.{os.getpid()}"
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        try:
            os.link(path, temporary)
            os.replace(temporary, last)
            sync_folder(self.folder)
        except OSError:  # no hard links here (exFAT, some network drives)
            write_bytes(last, path.read_bytes())

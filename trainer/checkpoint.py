"""Checkpoints on disk: written so that a crash leaves the old one, read so that damage shows.

A checkpoint is one dict of tensors, str, int, float, bool, None, lists and dicts. This file knows
nothing of what is in it but `digest`, a SHA-256 over all the rest: torch.load checks no sums, and
a flipped bit in a tensor would load silently.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import os
import pickletools
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer.errors import UserError, named

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
    except BaseException as error:
        with contextlib.suppress(OSError):  # the first fault is the one to tell
            temporary.unlink()
        if isinstance(error, OSError):
            error.filename, error.filename2 = str(path), None  # the name that people know
        raise
    sync_folder(path.parent)


# Files of a run's folder that are written under another name first, see `write_bytes`.
OWN_FILES = (
    r"(step_\d+|last|best)\.pth|(summary|findings|evaluation)\.json|metrics\.jsonl(\.damaged)?"
    r"|(config|hydra)\.yaml|report\.html"
)


def remove_half_written(folder: Path) -> None:
    """What `write_bytes` of a killed process left; files of other names are the user's. The caller
    holds the run's lock."""
    for temporary in folder.glob(".*.tmp.*"):
        if re.fullmatch(rf"\.({OWN_FILES})\.tmp\.\d+", temporary.name) and temporary.is_file():
            temporary.unlink()


def sync_folder(folder: Path) -> None:
    if not hasattr(os, "O_DIRECTORY"):  # Windows cannot open a folder
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with named(folder):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
    told = re.search(r"GLOBAL ([\w.]+)", str(error))
    forbidden = told[1] if told else _looked_up(path)
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


def digest(entries: dict[str, Any], most: float = math.inf) -> str:
    """SHA-256, hex, over all names, types and values, in order, but for `digest` and `format`.
    Raises ValueError once that comes to more than `most` bytes: a forged file may claim any size,
    by a tensor that repeats one value or by a list in many places."""
    sha = _Sha256(most)
    _update(sha, {k: v for k, v in entries.items() if k not in ("digest", "format")})
    return sha.sha.hexdigest()


def weights_sha256(state_dict: dict[str, Tensor]) -> str:
    """SHA-256, hex, of a model's weights: names, dtypes, shapes and bytes, in order. Two runs with
    the same one computed the same bits."""
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


def states_in(folder: Path) -> list[Path]:
    """The full states in a run's checkpoints/, oldest step first; by name, for a clock may have
    been set back and files copied."""
    found = folder.glob("step_*.pth")
    states = [p for p in found if re.fullmatch(r"step_(0|[1-9][0-9]*)\.pth", p.name)]
    return sorted(states, key=step_of)


def step_of(state: Path) -> int:
    """As its name tells it."""
    return int(state.stem.removeprefix("step_"))


class CheckpointFolder:
    """`step_<N>.pth`: full states, the newest `keep`. `last.pth`: the newest of them, a hard link
    where the file system has them. `best.pth`: weights and description.

    Whoever makes one for writing holds the run's lock: what a killed process left half-written is
    removed."""

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder, self.keep = folder, keep
        folder.mkdir(parents=True, exist_ok=True)
        remove_half_written(folder)

    @property
    def best(self) -> Path:
        return self.folder / "best.pth"

    def save_state(self, step: int, entries: dict[str, Any]) -> Path:
        path = self.folder / f"step_{step}.pth"
        write(path, entries)
        self._link_last(path)
        # One of a higher step could not be read or renamed before: it pushes none of ours out.
        done = [state for state in self.states() if step_of(state) <= step]
        for old in done[: -self.keep]:
            old.unlink()
        return path

    def save_best(self, entries: dict[str, Any]) -> None:
        write(self.best, entries)

    def states(self) -> list[Path]:
        return states_in(self.folder)

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

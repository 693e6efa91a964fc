"""Where the files of a data set lie, and how they get there."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError

from tqdm import tqdm

from data.types import DataError

TIMEOUT_S = 20.0
"""Seconds that a server may stay silent before a download is given up."""

FETCH_AGAIN = "Delete it and fetch it again (data.download=true does)."
WAY_OUT = "data=mnist_5k needs no files and no network"


def default_root() -> Path:
    """The folder that `data.root: null` stands for.

    In a checkout (pyproject.toml beside data/) its data/raw; for an installed package `trainer` in
    the user's cache folder, which is the system's convention on Windows, macOS and XDG elsewhere.
    """
    package = Path(__file__).resolve().parent
    if (package.parent / "pyproject.toml").is_file():
        return package / "raw"
    if sys.platform == "win32":
        cache = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        cache = Path.home() / "Library" / "Caches"
    else:
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "trainer"


def resolve_root(root: str | os.PathLike[str] | None) -> Path:
    """`data.root` as an absolute path, `~` expanded; the folder need not exist.

    Raises:
        DataError: it is a file, or `~name` of a user who is not known here.
    """
    try:
        path = default_root() if root is None else Path(root).expanduser().absolute()
    except RuntimeError as error:
        raise DataError(f"data.root={root}: {error} Give the whole path.") from error
    if path.exists() and not path.is_dir():
        raise DataError(f"data.root={path} is a file; it must be a folder.")
    return path


@contextmanager
def scratch_folder(root: Path) -> Iterator[Path]:
    """An empty folder inside `root`, so on the same disk: a rename out of it is atomic.

    It is removed at the end, and so are `root` and its parents if they were made here and nothing
    was put into them: a failed download leaves the disk as it was.
    """
    made = [folder for folder in (root, *root.parents) if not folder.exists()]
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=root) as scratch:
            yield Path(scratch)
    finally:
        for folder in made:
            with suppress(OSError):  # not empty: what was asked for has arrived
                folder.rmdir()


def md5_of(path: Path) -> str:
    """The MD5 of a file as 32 hex digits. It finds damage; it does not stop a forger."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def check_md5(place: str, found: str, expected: str) -> None:
    if found != expected.lower():
        raise DataError(
            f"{place} has the MD5 {found}, expected {expected}: it is incomplete, damaged or "
            f"another file. {FETCH_AGAIN}"
        )


def fetch(url: str, root: Path, name: str, md5: str) -> None:
    """Downloads `url` to `root / name`: complete and with this MD5, or not at all.

    Raises:
        DataError: no network, no such file, a silent server, no room, or other content than
            expected; nothing is left behind.
    """
    try:
        with scratch_folder(root) as scratch:
            part = scratch / name
            _copy(url, part)
            if (found := md5_of(part)) != md5.lower():
                size = part.stat().st_size
                raise OSError(f"{size:,} bytes arrived, with the MD5 {found} instead of {md5}")
            os.replace(part, root / name)
    except (OSError, ValueError, HTTPException) as error:
        if isinstance(error, HTTPError):
            error.close()  # it is the server's open answer as well
        raise DataError(
            f"Could not download {url}: {error}.\n"
            f"Try again, or put {name} (MD5 {md5}) into {root},\n"
            f"or name the folder that has it by data.root=FOLDER; {WAY_OUT}."
        ) from error


def _copy(url: str, path: Path) -> None:
    request = urllib.request.Request(url, headers={"User-Agent": "trainer"})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply, path.open("wb") as file:
        size = int(reply.headers.get("Content-Length") or 0)
        # disable=None: a bar on a terminal, nothing elsewhere.
        with tqdm(
            desc=path.name, total=size or None, unit="B", unit_scale=True, disable=None
        ) as bar:
            while chunk := reply.read(1 << 18):
                file.write(chunk)
                bar.update(len(chunk))

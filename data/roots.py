"""Folders of a dataset's files and of caches."""

from __future__ import annotations

import errno
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data.types import DataError

_NOT_ALLOWED = (errno.EACCES, errno.EPERM)
WAY_OUT = "data=mnist_5k needs no files and no network"
_NAME_CACHE = "data.cache_dir=FOLDER names another folder."


def default_root() -> Path:
    """The folder that `data.root: null` stands for: in a checkout (pyproject.toml beside data/) its
    data/raw; for an installed package the user's cache folder. Raises DataError if there is none.
    """
    package = Path(__file__).resolve().parent
    if (package.parent / "pyproject.toml").is_file():
        return package / "raw"
    return user_cache()


def user_cache() -> Path:
    """`trainer` in the user's cache folder, which is the system's convention on Windows, macOS and
    XDG elsewhere. Raises DataError if no home folder is known."""
    try:
        if sys.platform == "win32":
            cache = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
        elif sys.platform == "darwin":
            cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / "Library" / "Caches"
        else:
            cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError as error:
        raise DataError(
            "No home folder is known (HOME is not set), and so no folder for what is kept: name "
            "one by data.root=FOLDER, or set XDG_CACHE_HOME."
        ) from error
    return Path(cache).absolute() / "trainer"


def cache_for(name: Path) -> tuple[Path, tuple[str, ...]]:
    """A folder of this name below the user's cache folder, or, where that cannot be written to,
    below one of the user's own in the folder for temporary files, and a note that says so.

    Raises:
        DataError: neither can be used.
    """
    try:
        folder = user_cache() / name
        if folder.is_dir() or can_write(folder):
            return folder, ()
        reason = f"{folder} cannot be written to"
    except (DataError, OSError):
        reason = "there is no home folder"
    other = _temporary_cache() / name
    return other, (
        f"the packed images lie in {other}, since {reason}; data.cache_dir=FOLDER names another "
        "folder",
    )


def _temporary_cache() -> Path:
    """A folder that nobody else may write to: what lies in it is trained on."""
    try:
        folder = Path(tempfile.gettempdir()) / f"trainer-{getattr(os, 'geteuid', int)()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise DataError(f"No folder for packed images: {error}. {_NAME_CACHE}") from error
    is_mine = not hasattr(os, "geteuid") or (
        found.st_uid == os.geteuid() and not found.st_mode & 0o022
    )
    if not stat.S_ISDIR(found.st_mode) or not is_mine:
        raise DataError(f"{folder} is somebody else's, or open to all. {_NAME_CACHE}")
    return folder


def can_write(folder: Path) -> bool:
    """True if it is a folder that can be written to, or can be made."""
    above = next(path for path in (folder, *folder.parents) if path.exists())
    effective = os.access in os.supports_effective_ids
    return above.is_dir() and os.access(above, os.W_OK | os.X_OK, effective_ids=effective)


def resolve_root(root: str | os.PathLike[str] | None) -> Path:
    """`data.root` as an absolute path, `~` expanded; the folder need not exist.

    Raises:
        DataError: it is a file, or cannot be looked at, or `~name` of a user who is not known here.
    """
    path = default_root() if root is None else expanded("data.root", root).absolute()
    with reading(path):
        if path.exists() and not path.is_dir():
            raise DataError(f"data.root={path} is a file; it must be a folder.")
    return path


@contextmanager
def reading(root: Path) -> Iterator[None]:
    """Within it, files under `data.root` are looked for and read: an OSError becomes a DataError.

    Not every one that says that something is not there: pathlib raises where a folder may not be
    searched, and where a name is longer than the system takes.
    """
    try:
        yield
    except OSError as error:
        place = error.filename or root
        where = "" if str(place) == str(root) else f": {place}"
        allow = "Allow it to be read (chmod), or name" if error.errno in _NOT_ALLOWED else "Name"
        raise DataError(
            f"data.root={root}{where} cannot be read: {error.strerror or error}. "
            f"{allow} another folder by data.root=FOLDER; {WAY_OUT}."
        ) from error


def expanded(key: str, folder: str | os.PathLike[str]) -> Path:
    """The path with `~` expanded. Raises DataError for `~name` of a user who is not known here."""
    try:
        return Path(folder).expanduser()
    except RuntimeError as error:
        raise DataError(f"{key}={folder}: {error} Give the whole path.") from error

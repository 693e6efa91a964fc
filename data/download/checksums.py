"""MD5s of a dataset's files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from data.digests import digest_of
from data.types import DataError

FETCH_AGAIN = "Delete it and fetch it again (data.download=true does)."


def md5_of(path: Path) -> str:
    """The MD5 of a file as 32 hex digits. It finds damage; it does not stop a forger."""
    with path.open("rb") as file:
        return digest_of(file, hashlib.md5(usedforsecurity=False))


def check_md5(place: str, found: str, expected: str, otherwise: str = "") -> None:
    """Raises DataError if they differ; `otherwise` is a way out beside fetching it again."""
    if found != expected.lower():
        raise DataError(
            f"{place} has the MD5 {found}, expected {expected}: it is incomplete, damaged or "
            f"another file. {FETCH_AGAIN}" + (f" {otherwise}" if otherwise else "")
        )


def check_md5_names(file_md5: Mapping[str, str], files: Iterable[str]) -> None:
    """`data.file_md5` must have these files' names as its keys, and MD5s as its values."""
    if not isinstance(file_md5, Mapping):
        raise DataError(f"data.file_md5={file_md5}: must give an MD5 for each file.")
    if set(file_md5) != set(files):
        raise DataError(
            f"data.file_md5 has the keys {', '.join(sorted(file_md5))}; expected are "
            f"{', '.join(sorted(files))}."
        )
    for name, md5 in file_md5.items():
        if not (isinstance(md5, str) and re.fullmatch("[0-9a-fA-F]{32}", md5)):
            raise DataError(
                f"data.file_md5.{name}={md5}: must be an MD5: 32 hex digits, in quotes."
            )

"""Files in which users list images by their paths below the dataset's folder, with slashes."""

from __future__ import annotations

import csv
import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from data.files import replace_durably
from data.image_folder.names import join_first_ten
from data.roots import expanded
from data.types import DataError, printable

_LOOKED_AT = 2**16  # bytes from the start of a file in which a 0 says that it is no text


def read_paths(key: str, path: str) -> list[str]:
    """The paths in a text file, one a line; empty lines and those that begin with # are none.

    Raises:
        DataError: it cannot be read, or lists nothing.
    """
    with _opened(key, path) as file:
        lines = [line.rstrip("\r\n") for line in file]
    names = [_plain(line) for line in lines if line.strip() and not line.startswith("#")]
    if not names:
        raise DataError(f"{key}={path}: lists no file. {ONE_A_LINE}")
    return names


ONE_A_LINE = "It needs one path a line, as counted from data.root, such as cat/001.jpg."


def write_paths(path: Path, head: str, names: Collection[str]) -> None:
    """A file that `read_paths` reads: whole and on the disk, or not at all.

    Raises:
        DataError: there is one already, which another test split may depend on; a name cannot stand
            on a line; or it cannot be written.
    """
    if broken := [name for name in names if "\n" in name or "\r" in name or name != name.strip()]:
        raise DataError(
            f"{join_first_ten(broken)}: a list of files has one a line, and blanks at its ends do "
            "not count. Rename these."
        )
    lines = [f"# {head}", *(f"./{name}" if name[0] == "#" else name for name in names)]
    temporary = path.with_name(f"{path.name}.tmp")
    if os.path.lexists(path):
        raise DataError(
            f"{path}: is there already, and is not written over: what was measured on these images "
            "could not be compared any more. Move it away first, or -o FILE takes another name."
        )
    try:
        with open(temporary, "w", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            file.write("\n".join(lines) + "\n")
            file.flush()
            os.fsync(file.fileno())
        replace_durably(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise DataError(
            f"{path}: cannot be written: {error.strerror}. -o FILE takes another place."
        ) from error


def read_groups(key: str, path: str) -> dict[str, str]:
    """The group of each file in a CSV file with the columns `file` and `group`.

    Raises:
        DataError: it cannot be read, lacks a column, or gives a file two groups.
    """
    found: dict[str, str] = {}
    with _opened(key, path) as file:
        try:
            rows = csv.DictReader(file, skipinitialspace=True)
            if not {"file", "group"} <= set(rows.fieldnames or ()):
                own = printable(",".join(rows.fieldnames or ()))
                raise DataError(
                    f"{key}={path}: its first line must name the columns file and group, with a "
                    f"comma between them, and is '{own[:200]}'."
                )
            for row in rows:
                name, group = _plain(row["file"] or ""), (row["group"] or "").strip()
                if found.setdefault(name, group) != group:
                    raise DataError(
                        f"{key}={path}: {printable(name)} is in two groups, "
                        f"{printable(found[name])} and {printable(group)}."
                    )
        except csv.Error as error:
            raise DataError(f"{key}={path}: is no CSV file: {error}.") from error
    return found


def check_known(key: str, path: str, root: Path, listed: Iterable[str], known: set[str]) -> None:
    """Raises DataError that names listed files which are none of the dataset's images."""
    missing = [name for name in listed if name not in known]
    if not missing:
        return
    hints = []
    if any("\\" in name for name in missing):
        hints.append("Folders are divided by /.")
    if any(Path(name).is_file() for name in missing):
        hints.append("Paths count from data.root.")
    raise DataError(
        f"{key}={path}: {len(missing):,} of its files "
        f"{'is' if len(missing) == 1 else 'are'} not among the images in {root}: "
        f"{join_first_ten(missing)}. Put them back; or take their lines out, which makes it "
        f"another test split. {' '.join(hints)}".rstrip()
    )


@contextmanager
def _opened(key: str, path: str) -> Iterator[TextIO]:
    """Names of files need not be UTF-8; a mark of byte order, as some editors write it, is none."""
    place = expanded(key, path)
    try:
        if not place.is_file():
            state = "is no file" if place.exists() else "does not exist"
            raise DataError(
                f"{key}={path}: {state}. A relative path counts from where the command is started, "
                f"which is {Path.cwd()}."
            )
        with open(place, "rb") as binary:
            if b"\0" in binary.read(_LOOKED_AT):
                raise DataError(
                    f"{key}={path}: is not a text file: it has bytes of the value 0, as images, "
                    "archives, spreadsheets and text in UTF-16 have. Save the list as text in "
                    "UTF-8, or as CSV."
                )
        with open(place, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            yield file
    except OSError as error:
        raise DataError(f"{key}={path}: cannot be read: {error.strerror}.") from error


def _plain(name: str) -> str:
    return name.strip().removeprefix("./")

"""The pictures that words on a command line mean, and where annotated copies of them go."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from trainer.errors import UserError


class Found(NamedTuple):
    """A file, and the folder that was searched for it: where a word named the file itself, its
    own."""

    file: Path
    folder: Path


def find(words: Sequence[str]) -> list[Found]:
    """The files that the words mean, in the order of the words.

    A word is a file, a folder (`in_folder`) or a pattern (`*`, `?`, `[a-z]`; `**` for any number of
    folders) of such. Raises UserError for a word that means none.
    """
    return [found for word in words for found in _meant(word)]


def _meant(word: str) -> list[Found]:
    if os.path.lexists(word):  # a name may hold a bracket without being a pattern
        found = _files_of(Path(word))
        if not found:
            raise UserError(f"{word}: there are no files in this folder.")
        return found
    if not glob.has_magic(word):
        raise UserError(f"{word}: there is no such file or folder.")
    matches = [Path(match) for match in sorted(glob.glob(word, recursive=True))]
    matches = [match for match in matches if not _is_a_systems(match.name)]
    by_file = {found.file: found for match in matches for found in reversed(_files_of(match))}
    if not by_file:
        raise UserError(f"{word}: no file matches this pattern.")
    return sorted(by_file.values())


def _files_of(path: Path) -> list[Found]:
    if not path.is_dir():
        return [Found(path, path.parent)]
    return [Found(file, path) for file in in_folder(path)]


def in_folder(folder: Path) -> list[Path]:
    """All files at any depth, sorted, but hidden ones and what systems leave among pictures, such
    as Thumbs.db; a training passes them over too. Links to folders are followed, each folder once.
    """
    found: list[Path] = []
    seen = set()
    for parent, subfolders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = [n for n in subfolders if n[0] != "." and not _is_a_systems(n)]
        found += [Path(parent, n) for n in names if n[0] != "." and not _is_a_systems(n)]
    return sorted(found)


def _is_a_systems(name: str) -> bool:
    from data.class_folders import RUBBISH, SYSTEM_FILES  # not above: it imports torch

    return name in RUBBISH or name.lower() in SYSTEM_FILES


def _refuse(error: OSError) -> None:
    raise UserError(f"{error.filename}: this folder cannot be read: {error.strerror}.")


def copies(found: Iterable[Found], folder: Path) -> dict[Path, Path]:
    """Where in `folder` a copy of each file goes: under its path from the folder that was searched,
    or, of several, from the one that holds them all, so that no two copies have the same name.

    Raises UserError where something lies there already, which may be the user's own picture, or
    where nothing can be written.
    """
    found = list(found)
    root = os.path.commonpath([os.path.abspath(one.folder) for one in found])
    targets = {one.file: folder / os.path.relpath(os.path.abspath(one.file), root) for one in found}
    for target in targets.values():
        if os.path.lexists(target):
            raise UserError(
                f"-o {folder}: {target} is there already, and nothing is overwritten. Name another "
                "folder."
            )
    above = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise UserError(f"-o {folder}: nothing can be written into {above}.")
    return targets

"""The images that words on a command line mean, and where annotated copies of them go."""

from __future__ import annotations

import contextlib
import glob
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from data.images.file_types import claims_to_be_an_image, kinds, suffix_of
from data.images.ignored_files import MARK, is_a_systems, is_own, walk
from trainer.errors import UserError
from trainer.text.values import count


class Found(NamedTuple):
    """A file, and the folder that was searched for it: where a word named the file itself, its
    own."""

    file: Path
    folder: Path


def find(words: Sequence[str]) -> tuple[list[Found], str]:
    """The images that the words mean, in the order of the words, and a line about other files that
    are passed over, which may be empty.

    A word is a file, which is taken as it is, a folder (`_in`) or a pattern (`*`, `?`,
    `[a-z]`; `**` for any number of folders) of such, of which only images are taken. Raises
    UserError for a word that means none.
    """
    others: set[str] = set()
    found = [one for word in words for one in _meant(word, others)]
    suffixes = Counter(suffix_of(path) for path in others)
    if not others:
        return found, ""
    passed_over = count(len(others), "file is no image", "files are no images")
    are = "is" if len(others) == 1 else "are"
    return found, f"{passed_over} and {are} passed over: {kinds(suffixes)}"


def _meant(word: str, others: set[str]) -> list[Found]:
    for name in dict.fromkeys((word, os.path.expanduser(word))):
        if os.path.lexists(name):  # a name may hold a bracket without being a pattern
            path = Path(name)
            found = _in(path, others) if path.is_dir() else [Found(path, path.parent)]
            if not found:
                raise UserError(f"{name}: there are no images in this folder.")
            return found
    word = os.path.expanduser(word)
    if not glob.has_magic(word):
        raise UserError(f"{word}: there is no such file or folder.")
    found = [one for match in _matches(word) for one in _in(match, others)]
    if not found:
        raise UserError(f"{word}: no image matches this pattern.")
    by_file = {one.file: one for one in sorted(found, key=lambda one: len(one.folder.parts))}
    return sorted(by_file.values())


def _matches(pattern: str) -> list[Path]:
    """Without those in folders that are passed over, below the part of the pattern that names one
    folder."""
    base = Path(*takewhile(lambda part: not glob.has_magic(part), Path(pattern).parts))
    known: dict[Path, bool] = {base: True, Path(): True}

    def is_taken(path: Path) -> bool:
        if path not in known:
            passed = is_a_systems(path.name) or (path.is_dir() and is_own(path))
            known[path] = not passed and is_taken(path.parent)
        return known[path]

    return [
        path for path in map(Path, sorted(glob.glob(pattern, recursive=True))) if is_taken(path)
    ]


def _in(path: Path, others: set[str]) -> list[Found]:
    """The images at or below a path, sorted: what `data.images.file_types` says is one, which lies
    in no folder of `data.images.ignored_files`. A training takes the same. `others` gets the other
    files."""
    is_folder = path.is_dir()
    found = []
    for file in walk(path, _refuse) if is_folder else [str(path)]:
        if claims_to_be_an_image(file):
            found.append(Found(Path(file), path if is_folder else path.parent))
        else:
            others.add(file)
    return sorted(found)


def _refuse(error: OSError) -> None:
    raise UserError(f"{error.filename}: this folder cannot be read: {error.strerror}.")


def mark(folder: Path) -> None:
    """Leave a mark in a new folder of copies, by which a training and the next predict know that
    these are not the user's own images."""
    if folder.is_dir() and not (folder / MARK).exists():
        with contextlib.suppress(OSError):  # the copies are worth more
            (folder / MARK).write_text("Annotated copies of images, by trainer predict -o.\n")


def copies(found: Iterable[Found], folder: Path) -> dict[Path, Path]:
    """Paths in `folder` of the copies of files: each under its path from the folder that was
    searched, or, of several, from the one that holds them all, so that no two copies have the same
    name.

    Raises UserError where something lies there already, which may be the user's own image, or
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

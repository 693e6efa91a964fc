"""The names of classes, which are those of folders: alike in all splits, and told apart by eye."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

from data.types import DataError, printable


def check_names(folder: Path, names: Iterable[str]) -> None:
    """Raises DataError for names that are no text, or that hardly differ."""
    alike: dict[str, str] = {}
    for name in sorted(names):
        if any(unicodedata.category(c) in ("Cc", "Cs") for c in name):  # Cs: bytes, not UTF-8
            raise DataError(
                f"{printable(folder)}: the name of the class folder '{printable(name)}' is no "
                "plain text: it has control characters, or is not in UTF-8. Rename it."
            )
        other = alike.setdefault(unicodedata.normalize("NFC", name.casefold()), name)
        if other != name:
            raise DataError(
                f"{printable(folder)} has the class folders '{printable(other)}' and "
                f"'{printable(name)}', whose names hardly differ. Make them one, or rename one."
            )


def differences(train: Path, classes: set[str], folder: Path, own: set[str]) -> Iterator[str]:
    """A line for each kind of difference between a part's classes and those of train."""
    by_nfc = {_nfc(name): name for name in classes - own}
    alike = {name: by_nfc[_nfc(name)] for name in own - classes if _nfc(name) in by_nfc}
    for name, wanted in sorted(alike.items()):
        yield (
            f"{folder} has {_quoted(name)} where {train} has {_quoted(wanted)}: they look the "
            "same, but their Unicode characters differ (NFC and NFD), as between a Mac and other "
            f"systems. Rename it: mv {_quoted(folder / name)} {_quoted(folder / wanted)}"
        )
    for verb, names in (
        ("lacks", classes - own - set(alike.values())), ("has besides", own - classes - set(alike))
    ):  # fmt: skip
        if names:
            yield f"{folder} {verb} {join_first_ten(sorted(names))}{_way_out(train, folder, verb)}"


def _way_out(train: Path, folder: Path, verb: str) -> str:
    if verb == "lacks":
        return (
            f": move some of their images there from {train}, or move {folder} away; then its "
            "images are drawn from train"
        )
    return f": rename them as in {train}, or move them away"


def _nfc(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _quoted(name: object) -> str:
    """As a shell (bash, zsh) takes it, each character beyond ASCII by its number."""
    characters = []
    for c in str(name):
        if c.isascii():
            characters.append(f"\\{c}" if c in "\\'" else c)
        else:
            characters.append(f"\\u{ord(c):04x}" if ord(c) < 0x10000 else f"\\U{ord(c):08x}")
    return f"$'{''.join(characters)}'"


def join_first_ten(items: Iterable[object], separator: str = ", ") -> str:
    """The first ten, printable, and how many more."""
    names = [printable(item) for item in items]
    more = [f"and {len(names) - 10:,} more"] if len(names) > 10 else []
    return separator.join(names[:10] + more)

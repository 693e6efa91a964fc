"""Pictures in one folder per class: which folders are splits, which are classes, what is in them.

root/<class>/...                       all splits are carved out of it, or
root/{train,val,test}/<class>/...      what is missing of val and test is carved out of train
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from data.pack import File
from data.types import DataError, printable

PARTS = ("train", "val", "test")
_LIKE_PARTS = {
    "train", "training", "training_set", "val", "valid", "validation", "test", "testing", "test_set"
}  # fmt: skip

# Of data.pictures.FORMATS, in small letters.
SUFFIXES = (
    ".apng", ".avif", ".avifs", ".bmp", ".gif", ".j2c", ".j2k", ".jfif", ".jp2", ".jpc", ".jpe",
    ".jpeg", ".jpf", ".jpg", ".jpx", ".pbm", ".pfm", ".pgm", ".png", ".pnm", ".ppm", ".tif",
    ".tiff", ".webp",
)  # fmt: skip

# What programs leave behind: as a class it would be trained on.
RUBBISH = (".ipynb_checkpoints", "__MACOSX", "__pycache__")
SYSTEM_FILES = ("thumbs.db", "desktop.ini")


def find_parts(root: Path) -> dict[str, Path]:
    """The folders of the splits that are there; only "train", `root` itself, if none is.

    Raises:
        DataError: there is no such folder, or the splits have other names or lie beside something
            else.
    """
    if not root.is_dir():
        raise DataError(
            f"data.root={root} does not exist. data.root=FOLDER names it; a relative one counts "
            "from where the command is started."
        )
    names = {name for name in _folders(root) if name not in RUBBISH and not name.startswith(".")}
    if "train" not in names and not (names and names <= set(PARTS)):
        if names and {name.casefold() for name in names} <= _LIKE_PARTS:
            raise DataError(
                f"data.root={root} has {listed(sorted(names))}: splits' folders are named train, "
                "val and test, exactly. Rename them."
            )
        return {"train": root}
    if "train" not in names:
        raise DataError(
            f"data.root={root} has {listed(sorted(names))} but no folder train, which it "
            "needs; val and test may be missing."
        )
    if others := names - set(PARTS):
        raise DataError(
            f"data.root={root} has {listed(sorted(others))} beside train. The splits' folders are "
            "named train, val and test: rename or move what is named otherwise. If train is one of "
            "the classes, move all class folders into a new folder of that name."
        )
    return {part: root / part for part in PARTS if part in names}


def find_classes(parts: Mapping[str, Path]) -> tuple[str, ...]:
    """The names of the class folders, sorted, the same in all parts.

    Raises:
        DataError: there are fewer than two, they differ between the parts or by case alone, or
            what a program left lies among them.
    """
    found = {part: _class_names(folder) for part, folder in parts.items()}
    classes = found["train"]
    differences = [
        line
        for part, own in found.items()
        for line in _differences(parts["train"], classes, parts[part], own)
    ]
    if differences:
        raise DataError(
            f"The classes differ from those in {parts['train']}:\n  " + "\n  ".join(differences)
        )
    if len(classes) == 1:
        raise DataError(
            f"{parts['train']} has one class folder only, {listed(classes)}; telling apart takes "
            "two. If the class folders lie deeper, name the folder that they lie in by data.root."
        )
    return tuple(sorted(classes))


def find_pictures(
    root: Path, parts: Mapping[str, Path], classes: Sequence[str]
) -> tuple[dict[str, list[File]], tuple[str, ...]]:
    """The picture files of each part, sorted by class and name, and notes of what is left out.

    A picture is what has a picture's suffix, at any depth of a class folder. Hidden files and
    folders are passed over, and other files counted: lists and licences lie among many pictures.

    Raises:
        DataError: a class folder has no picture, or cannot be read.
    """
    found: dict[str, list[File]] = {}
    others: Counter[str] = Counter()
    empty: list[Path] = []
    for part, folder in parts.items():
        found[part] = []
        for label, name in enumerate(classes):
            paths = list(_files(folder / name))
            pictures = [path for path in paths if _suffix(path) in SUFFIXES]
            others.update(_suffix(path) for path in paths if _suffix(path) not in SUFFIXES)
            found[part] += sorted(_file(root, path, label) for path in pictures)
            if not pictures:
                empty.append(folder / name)
    if empty:
        raise DataError(
            "Class folders without a picture:\n  "
            + listed(empty, "\n  ")
            + f"\nFill or remove them. A picture's name ends in {', '.join(SUFFIXES)}."
        )
    return found, _notes(parts, others)


def _differences(train: Path, classes: set[str], folder: Path, own: set[str]) -> Iterator[str]:
    """A line for each kind of difference between a part's classes and those of train."""
    by_look = {_look(name): name for name in classes - own}
    alike = {name: by_look[_look(name)] for name in own - classes if _look(name) in by_look}
    for name, wanted in sorted(alike.items()):
        yield (
            f"{folder} has {_spelled(name)} where {train} has {_spelled(wanted)}: they look the "
            "same, but their Unicode characters differ (NFC and NFD), as between a Mac and other "
            f"systems. Rename it: mv {_spelled(folder / name)} {_spelled(folder / wanted)}"
        )
    for verb, names in (
        ("lacks", classes - own - set(alike.values())), ("has besides", own - classes - set(alike))
    ):  # fmt: skip
        if names:
            yield f"{folder} {verb} {listed(sorted(names))}"


def _look(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _spelled(name: object) -> str:
    """As a shell (bash, zsh) takes it, each character beyond ASCII by its number."""
    characters = []
    for c in str(name):
        if c.isascii():
            characters.append(f"\\{c}" if c in "\\'" else c)
        else:
            characters.append(f"\\u{ord(c):04x}" if ord(c) < 0x10000 else f"\\U{ord(c):08x}")
    return f"$'{''.join(characters)}'"


def _class_names(folder: Path) -> set[str]:
    names = _folders(folder)
    if rubbish := [name for name in RUBBISH if name in names]:
        raise DataError(
            f"{folder / rubbish[0]} lies among the class folders, and is no class: a program left "
            f"it there. Remove it: rm -r '{folder / rubbish[0]}'"
        )
    names = {name for name in names if not name.startswith(".")}
    if not names:
        raise DataError(
            f"{folder} has no class folders. Pictures of each class go into a folder of their own "
            f"there; its name is the name of the class."
        )
    alike: dict[str, str] = {}
    for name in sorted(names):
        if any(unicodedata.category(c) in ("Cc", "Cs") for c in name):  # Cs: bytes, not UTF-8
            raise DataError(f"{folder}: the name of the class folder {name!r} is no plain text.")
        other = alike.setdefault(unicodedata.normalize("NFC", name.casefold()), name)
        if other != name:
            raise DataError(
                f"{folder} has the class folders {other!r} and {name!r}, whose names hardly "
                "differ. Make them one, or rename one."
            )
    return names


def _folders(folder: Path) -> set[str]:
    """The names of the folders in it, links to folders included."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if _is_folder(entry)}
    except OSError as error:
        raise DataError(_unreadable(error)) from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Raises DataError for a link that leads nowhere and looks like a folder's, not hidden and
    without a suffix: on a drive that is not there now, it would be a class."""
    if entry.is_symlink() and entry.name[0] != "." and not _suffix(entry.name):
        try:
            os.stat(entry)
        except OSError as error:
            raise DataError(
                f"{printable(entry.path)}: is a link to {printable(os.readlink(entry))}, which "
                f"cannot be reached: {error.strerror}. Mount the drive that it leads to, mend the "
                "link, or remove it: what lies there could be a class."
            ) from error
    return os.path.isdir(entry)


def _files(folder: Path) -> Iterator[str]:
    """The paths of all files in it at any depth, but for hidden ones and those of the system. Links
    to folders are followed, each folder once, but not upwards, to where other classes lie."""
    seen = {str(above) for above in Path(os.path.realpath(folder)).parents}
    for path, subfolders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        real = os.path.realpath(path)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(n for n in subfolders if n[0] != "." and n not in RUBBISH)
        yield from (
            os.path.join(path, name)
            for name in names
            if name[0] != "." and name.lower() not in SYSTEM_FILES
        )


def _refuse(error: OSError) -> None:
    raise DataError(_unreadable(error)) from error


def _unreadable(error: OSError) -> str:
    return f"{printable(error.filename)}: this folder cannot be read: {error.strerror}."


def _file(root: Path, path: str, label: int) -> File:
    name = path[len(os.path.join(root, "")) :].replace(os.sep, "/")
    try:
        found = os.stat(path)
    except OSError:  # such as a link to nowhere; reading it will say what is wrong
        return File(name, label, -1, -1, -1)
    return File(name, label, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _notes(parts: Mapping[str, Path], others: Counter[str]) -> tuple[str, ...]:
    notes = []
    if others:
        kinds = listed(f"{n:,} {suffix or 'without one'}" for suffix, n in others.most_common())
        notes.append(
            f"{others.total():,} files in the class folders are left out, since their suffix is no "
            f"picture's: {kinds}"
        )
    for folder in parts.values():
        beside = [name for name in os.listdir(folder) if _suffix(name) in SUFFIXES]
        if num := sum(name[0] != "." and os.path.isfile(folder / name) for name in beside):
            notes.append(f"{num:,} pictures in {folder} lie in no class folder and are left out")
    return tuple(notes)


def listed(items: Iterable[object], separator: str = ", ") -> str:
    """The first ten, printable, and how many more."""
    names = [printable(item) for item in items]
    more = [f"and {len(names) - 10:,} more"] if len(names) > 10 else []
    return separator.join(names[:10] + more)

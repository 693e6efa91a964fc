"""Images in one folder per class: which folders are splits, which are classes, what is in them.

root/<class>/...                       all splits are carved out of it, or
root/{train,val,test}/<class>/...      what is missing of val and test is carved out of train
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from data.image_folder.names import check_names, differences, join_first_ten
from data.image_folder.packing import File, file_at
from data.images.file_types import claims_to_be_an_image, kinds, suffix_of
from data.images.ignored_files import Passed, has_suffix, is_data, walk
from data.types import DataError, count, printable

PARTS = ("train", "val", "test")
SYNONYMS = {
    "train": ("train", "training", "training_set", "train_set"),
    "val": ("val", "valid", "validation", "validation_set", "val_set", "dev"),
    "test": ("test", "testing", "test_set"),
}
_PART_OF = {name: part for part, names in SYNONYMS.items() for name in names}


def find_parts(root: Path, needs_train: bool = True) -> tuple[dict[str, Path], tuple[str, ...]]:
    """The folders of the splits that are there, only "train", `root` itself, if none is; and notes
    of what was made of them.

    Splits' folders have the names of `SYNONYMS`, in small or capital letters. An unlabelled test
    folder, with images straight in it, is left out.

    Raises:
        DataError: there is no such folder, or the splits lie beside something else.
    """
    if not root.is_dir():
        raise DataError(
            f"data.root={root} does not exist. data.root=FOLDER names it; a relative one counts "
            "from where the command is started."
        )
    names = _folders(root)
    if "train" in names:
        others = {name for name in names if name.casefold() not in _PART_OF}
        if others:
            raise DataError(
                f"data.root={root} has {join_first_ten(sorted(others))} beside train. "
                "The splits' folders are named train, val and test: rename or move what is named "
                "otherwise. If train "
                "is one of the classes, move all class folders into a new folder of that name."
            )
    elif not names or any(name.casefold() not in _PART_OF for name in names):
        return {"train": root}, ()
    parts: dict[str, Path] = {}
    for name in sorted(names):
        part = _PART_OF[name.casefold()]
        if part in parts:
            raise DataError(
                f"data.root={root} has {join_first_ten(sorted((parts[part].name, name)))}, both "
                f"names of the {part} split. Make them one, or move one away."
            )
        parts[part] = root / name
    if "train" not in parts and (needs_train or "test" not in parts):
        raise DataError(
            f"data.root={root} has {join_first_ten(sorted(names))} but no folder train, which it "
            "needs; val and test may be missing."
        )
    return _labelled({part: parts[part] for part in PARTS if part in parts})


def _labelled(parts: dict[str, Path]) -> tuple[dict[str, Path], tuple[str, ...]]:
    """Without val or test folders that have images but no class folders, and a note of each."""
    notes = []
    for part, folder in list(parts.items()):
        if part == "train" or _folders(folder):
            continue
        if num := _num_images_in(folder):
            del parts[part]
            notes.append(
                f"{count(num, 'image lies', 'images lie')} in {folder} without class folders: "
                f"{'it has no label' if num == 1 else 'they have no labels'} to measure with and "
                f"{'is' if num == 1 else 'are'} left out; {part} images are taken from train "
                "instead"
            )
    return parts, tuple(notes)


def find_classes(parts: Mapping[str, Path]) -> tuple[str, ...]:
    """The names of the class folders, sorted, the same in all parts.

    Raises:
        DataError: there are fewer than two, they differ between the parts or by case alone, or
            what a program left lies among them.
    """
    found = {part: _class_names(folder) for part, folder in parts.items()}
    first = "train" if "train" in parts else next(iter(parts))
    classes = found[first]
    lines = [
        line
        for part, own in found.items()
        for line in differences(parts[first], classes, parts[part], own)
    ]
    if lines:
        raise DataError(
            f"The classes differ from those in {parts[first]}:\n  " + "\n  ".join(lines)
        )
    if len(classes) == 1:
        raise DataError(
            f"{parts[first]} has one class folder only, {join_first_ten(classes)}; a classifier "
            "needs two. If the class folders lie deeper, name the folder that they lie in by "
            "data.root."
        )
    return tuple(sorted(classes))


def find_images(
    root: Path, parts: Mapping[str, Path], classes: Sequence[str]
) -> tuple[dict[str, list[File]], tuple[str, ...]]:
    """The image files of each part, sorted by class and name, and notes of what is left out.

    What counts, at any depth of a class folder, is told by `data.images.file_types`, what is
    passed over by `data.images.ignored_files`; other files are counted: lists and licences lie
    among many images.

    Raises:
        DataError: a class folder has no image, or cannot be read.
    """
    found: dict[str, list[File]] = {}
    others: Counter[str] = Counter()
    passed = Passed()
    empty: list[tuple[str, Path]] = []
    for part, folder in parts.items():
        _folders(folder, passed)
        found[part] = []
        for label, name in enumerate(classes):
            images = []
            for path in walk(folder / name, _refuse, passed):
                if claims_to_be_an_image(path):
                    images.append(path)
                else:
                    others[suffix_of(path)] += 1
            found[part] += sorted(_file(root, path, label) for path in images)
            if not images:
                empty.append((part, folder / name))
    if empty:
        raise DataError(_of_empty(root, parts, empty))
    if root not in parts.values():
        _folders(root, passed)
    return found, (*_notes(parts, others), *_passed_over(passed))


def _of_empty(root: Path, parts: Mapping[str, Path], empty: Sequence[tuple[str, Path]]) -> str:
    lines = join_first_ten((folder for _, folder in empty), "\n  ")
    if "train" not in parts or any(part == "train" for part, _ in empty):
        return f"Class folders without an image:\n  {lines}\nFill or remove them."
    folders = join_first_ten(sorted({str(parts[part]) for part, _ in empty}))
    return (
        f"Class folders without an image:\n  {lines}\nEach split needs an image of each class. "
        f"Move some there from {parts['train']}; or move {folders} out of {root}: then these "
        "images are drawn from train."
    )


def _class_names(folder: Path) -> set[str]:
    if names := _folders(folder):
        check_names(folder, names)
        return names
    raise DataError(
        f"{folder} has no class folders. Images of each class go into a folder of their own there; "
        "its name is the name of the class."
    )


def _folders(folder: Path, passed: Passed | None = None) -> set[str]:
    """The names of the folders in it that may be data, links to folders included."""
    passed = passed or Passed()
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if _is_folder(entry))
    except OSError as error:
        raise DataError(_unreadable(error)) from error
    return {name for name in names if is_data(folder, name, passed)}


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Raises DataError for a link that leads nowhere and looks like a folder's, not hidden and
    without a suffix: on a drive that is not there now, it would be a class."""
    if entry.is_symlink() and entry.name[0] != "." and not suffix_of(entry.name):
        try:
            os.stat(entry)
        except OSError as error:
            raise DataError(
                f"{printable(entry.path)}: is a link to {printable(os.readlink(entry))}, which "
                f"cannot be reached: {error.strerror}. Mount the drive that it leads to, mend the "
                "link, or remove it: what lies there could be a class."
            ) from error
    return os.path.isdir(entry)


def _refuse(error: OSError) -> None:
    raise DataError(_unreadable(error)) from error


def _unreadable(error: OSError) -> str:
    return f"{printable(error.filename)}: this folder cannot be read: {error.strerror}."


def _file(root: Path, path: str, label: int) -> File:
    return file_at(path, path[len(os.path.join(root, "")) :].replace(os.sep, "/"), label)


def _notes(parts: Mapping[str, Path], others: Counter[str]) -> Iterator[str]:
    if others:
        yield (
            f"{count(others.total(), 'file')} in the class folders "
            f"{'is no image and is' if others.total() == 1 else 'are no images and are'} left out: "
            f"{printable(kinds(others))}"
        )
    for folder in parts.values():
        if num := _num_images_in(folder):
            lie, are = ("lies", "is") if num == 1 else ("lie", "are")
            yield f"{count(num, 'image')} in {folder} {lie} in no class folder and {are} left out"


def _passed_over(passed: Passed) -> Iterator[str]:
    if passed.systems:
        names = (f"{name} ({n:,} times)" if n > 1 else name for name, n in passed.systems.items())
        yield f"passed over, since systems leave such: {join_first_ten(sorted(names))}"
    if passed.own:
        own = join_first_ten(sorted(set(passed.own)))
        yield f"passed over, since this program wrote them: {own}"


def _num_images_in(folder: Path) -> int:
    """Directly in it."""
    beside = [name for name in os.listdir(folder) if has_suffix(name) and name[0] != "."]
    return sum(os.path.isfile(folder / name) for name in beside)

"""Files among people's images that are none of their data: those that systems leave there, and
those that this program writes. Training and predict pass over the same, at every level.

What the program writes is told by what is in a folder, never by its name alone: a class may be
called outputs.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

# In small letters. Hidden ones (.Trash-1000, .DS_Store, .ipynb_checkpoints) need no entry: all
# that begins with a dot is passed over.
SYSTEM_FOLDERS = frozenset((
    "@eadir", "#recycle", "#snapshot",  # Synology
    "@recycle", "@recently-snapshot", "@__thumb",  # QNAP
    "$recycle.bin", "system volume information", "recycler", "found.000",  # Windows
    "lost+found", "lost.dir",  # Linux, Android
    "__macosx", "network trash folder", "temporary items",  # macOS
    "__pycache__",
))  # fmt: skip
SYSTEM_FILES = frozenset((
    "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r", "picasa.ini",
    "zbthumbnail.info",
))  # fmt: skip

# Of data.images.decode.FORMATS, in small letters.
SUFFIXES = (
    ".apng", ".avif", ".avifs", ".bmp", ".gif", ".j2c", ".j2k", ".jfif", ".jp2", ".jpc", ".jpe",
    ".jpeg", ".jpf", ".jpg", ".jpx", ".pbm", ".pfm", ".pgm", ".png", ".pnm", ".ppm", ".tif",
    ".tiff", ".webp",
)  # fmt: skip

# In a folder that predict has made for its annotated copies.
MARK = ".trainer-annotated"

# One of these lies in each folder of a run, a sweep or an evaluation.
_SIGNS = (".hydra", "metrics.jsonl", "multirun.yaml", "sweep.json", "evaluation.json")
_OWN_IMAGES = frozenset(("confusion.png", "mistakes.png"))  # beside evaluation.json
_PARTS_OF_A_RUN = frozenset(("checkpoints", "tensorboard", "evaluation"))
_DATE, _TIME = r"\d{4}-\d\d-\d\d", r"\d\d-\d\d-\d\d(-\d+)?"
_DEEPEST = 5  # outputs/sweeps/<name>/<job>, and one more


@dataclass
class Passed:
    """Names passed over below a folder: how often each name of a system's, and which folders
    of the program's own."""

    systems: Counter[str] = field(default_factory=Counter)
    own: list[str] = field(default_factory=list)


def is_a_systems(name: str) -> bool:
    return name.casefold() in SYSTEM_FOLDERS or name.casefold() in SYSTEM_FILES


def is_own(folder: str | os.PathLike[str], depth: int = 0) -> bool:
    """True if this program has made the folder: for a run, a sweep, an evaluation or annotated
    copies; or to hold nothing but such. A folder that cannot be read is not."""
    folder = os.fspath(folder)
    try:
        return (
            os.path.exists(os.path.join(folder, MARK))
            or (_has_sign(folder) and not _has_images(folder))
            or _is_part_of_a_run(folder)
            or _is_named_by_the_time(folder)
            or _holds_only_own(folder, depth)
        )
    except OSError:
        return False


def _has_sign(folder: str) -> bool:
    return any(os.path.exists(os.path.join(folder, sign)) for sign in _SIGNS)


def _has_images(folder: str) -> bool:
    """Of the user's, directly in it: hydra.run.dir may have named a folder of a class."""
    with os.scandir(folder) as entries:
        return any(has_suffix(e.name) and e.name not in _OWN_IMAGES for e in entries)


def _is_part_of_a_run(folder: str) -> bool:
    above, name = os.path.split(os.path.abspath(folder))
    return name in _PARTS_OF_A_RUN and _has_sign(above)


def _is_named_by_the_time(folder: str) -> bool:
    """As `configs/config.yaml` names them: outputs/<date>/<time>, outputs/sweeps/<date>_<time>. A
    date alone is one if nothing else lies in it, as after a run that never began."""
    *_, above, date, time = ("", "", *Path(os.path.abspath(folder)).parts)
    if above == "outputs" and re.fullmatch(_DATE, date) and re.fullmatch(_TIME, time):
        return True
    if above == "outputs" and date == "sweeps" and re.fullmatch(f"{_DATE}_{_TIME}", time):
        return True
    return date == "outputs" and re.fullmatch(_DATE, time) is not None and not os.listdir(folder)


def _holds_only_own(folder: str, depth: int) -> bool:
    """Folders of our own, at least one, and nothing else but files that are no images. Of a class
    it looks at one file."""
    found = False
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_a_systems(entry.name) or entry.name[0] == ".":
                continue
            if not entry.is_dir():
                if has_suffix(entry.name):
                    return False
            elif depth < _DEEPEST and is_own(entry.path, depth + 1):
                found = True
            else:
                return False
    return found


def has_suffix(name: str) -> bool:
    """True if it is the name of an image."""
    return os.path.splitext(name)[1].lower() in SUFFIXES


def walk(
    folder: str | os.PathLike[str],
    onerror: Callable[[OSError], object],
    passed: Passed | None = None,
) -> Iterator[str]:
    """The paths of all files in it at any depth, but for hidden ones, those of the system and the
    program's own, which are counted in `passed`. Links to folders are followed, each folder once,
    but not upwards, to where other classes lie.

    Args:
        onerror: called where a folder cannot be read.
    """
    passed = passed or Passed()
    seen = {str(above) for above in Path(os.path.realpath(folder)).parents}
    for path, subfolders, names in os.walk(folder, onerror=onerror, followlinks=True):
        real = os.path.realpath(path)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = [n for n in sorted(subfolders) if is_data(path, n, passed)]
        for name in names:
            if is_a_systems(name):
                passed.systems[name] += 1
            elif name[0] != ".":
                yield os.path.join(path, name)


def is_data(parent: str | os.PathLike[str], name: str, passed: Passed) -> bool:
    """True if a folder may be the user's data; what it is else, but for hidden, is counted."""
    if name[0] == ".":
        return False
    if is_a_systems(name):
        passed.systems[name] += 1
        return False
    if is_own(path := os.path.join(parent, name)):
        passed.own.append(path)
        return False
    return True

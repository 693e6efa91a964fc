"""Images decoded once: a file of their bytes, which later runs map into memory.

`3x64x64.pack` holds images of that shape, as `data.image_folder.pack_file` says;
`3x64x64-squash.pack` and `3x64x64-crop80.pack` those that came to it in another way,
`3x64x64-max1000.pack` those of another `data.max_pixels`, see `Reading`. A pack appears whole, by
renaming, or not at all, so that whoever has the old one mapped keeps it. Until then it is called
`3x64x64.tmp`, and its maker holds a lock on it (see `data.locked_files.exclusive`): of two
that start together one packs and the other waits.

What is guaranteed:
    of the images' files   One counts as unchanged without being read if its path, size, inode and
                           the times of its last change (of its content, and of anything) are those
                           that were packed. Where one of these differs, the content decides, by a
                           BLAKE2b of all of it: the same content is copied from the old pack,
                           wherever it lay, any other is decoded. So a file that was written to,
                           replaced or swapped, by mv of it or of a folder above, with its old size
                           and date, is noticed. Not noticed is what leaves all five as they were: a
                           change on a drive that keeps no time of change (FAT), with the date set
                           back, or bits that a disk lost on its own.
    of the pack            Every byte is checked each time that it is opened, before any is used (in
                           threads; 0.07 s for 100 MB a core). A damaged one is made again, from the
                           files alone, and so is one of an earlier version; a line says so.

What is wrong with the machine is not taken for a fault of the images: where memory or threads run
out nothing is kept, and a file that could not be read is tried again.
"""

from __future__ import annotations

import hashlib
import math
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from data.files import replace_durably
from data.image_folder.pack_file import UnusablePackError, read_pack
from data.image_folder.packing import File, Pack, Reading, write_pack
from data.images.decode import UNREAD
from data.images.scaling import UnscaledError
from data.locked_files import exclusive
from data.roots import cache_for, expanded
from data.types import DataError, printable

_NO_THREAD = "can't start new thread"  # Python's words, in a RuntimeError


def packed(root: Path, files: Sequence[File], how: Reading, folder: Path) -> Pack:
    """The images of these files, from the pack in `folder` if it fits them, else packed now.

    Each is read as `predict` reads it. What an older pack, of images that came to the same shape in
    the same way, has of unchanged files is copied.

    Args:
        root: where the files' names begin.
        folder: of the pack; made if it is not there.

    Raises:
        DataError: the pack cannot be written, or memory or threads run out. Nothing half-made is
            left.
    """
    path = folder / f"{'x'.join(map(str, how.shape))}{how.ending}.pack"
    try:
        pack, _ = _open(path, how)
        if pack and _is_current(pack, root, files, how):
            return pack
        busy = f"{path}: another process is packing these images. Waiting."
        with exclusive(path.with_suffix(".tmp"), busy) as file:
            pack, why = _open(path, how)  # another process may have made it meanwhile
            if pack and _is_current(pack, root, files, how):
                return pack
            if why:
                print(f"{printable(path)}: {why}. It is made again.", file=sys.stderr)
            return _made(path, file, root, files, how, pack)
    except OSError as error:
        raise DataError(_unwritten(path, f"{error.strerror}")) from error
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and str(error) != _NO_THREAD:
            raise
        raise DataError(_ran_out(root, error)) from error


def _is_current(pack: Pack, root: Path, files: Sequence[File], how: Reading) -> bool:
    """True if it fits, and the files that could not be read still cannot: their rights, their drive
    or the user may be others now, of which their dates tell nothing."""
    unread = [file for file, reason in pack.bad if reason.startswith(UNREAD)]
    return (
        pack.fits(files)
        and pack.scale == how.scale_for(pack.deep.values())
        and not any(_can_be_read(root / file.name, how) for file in unread)
    )


def _can_be_read(path: Path, how: Reading) -> bool:
    try:
        return not str(how.read(path)).startswith(UNREAD)
    except UnscaledError:
        return True


def _made(
    path: Path, file: BinaryIO, root: Path, files: Sequence[File], how: Reading, old: Pack | None
) -> Pack:
    """A new pack at `path`, written to `file`, which lies beside it. It is looked at through that
    file: another process, with other files, may replace it at once."""
    _check_room(path, len(files) * math.prod(how.shape))
    if not sys.stderr.isatty():  # else there is a bar
        print(f"packing {len(files):,} images into {path}", file=sys.stderr)
    write_pack(file, root, files, how, old)
    pack = _in(file, how)
    replace_durably(path.with_suffix(".tmp"), path)
    return pack


def _open(path: Path, how: Reading) -> tuple[Pack | None, str]:
    """The pack at `path`; or None, and what is wrong with the one that lies there."""
    try:
        with path.open("rb") as file:
            return _in(file, how), ""
    except OSError:
        return None, ""
    except UnusablePackError as error:
        return None, str(error)


def _in(file: BinaryIO, how: Reading) -> Pack:
    """The pack in a file. Raises UnusablePackError, or MemoryError if it is more than this process
    may map."""
    images, index = read_pack(file, how.shape, how.made_by)
    files = [(File(*row), digest) for *row, digest in index["files"]]
    bad = [(File(*row), digest, why) for *row, digest, why in index["bad"]]
    return Pack(
        images,
        [file for file, _ in files],
        [digest for _, digest in files],
        [(file, why) for file, _, why in bad],
        [digest for _, digest, _ in bad],
        index["sums"],
        {name: (low, high) for name, (low, high) in index["deep"].items()},
        tuple(index["scale"]) if index["scale"] else None,
        index["num_flat"],
    )


def _check_room(path: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if num_bytes > free:
        raise DataError(_unwritten(path, f"they need {num_bytes:,} bytes, and {free:,} are free"))


def _unwritten(path: Path, reason: str) -> str:
    return (
        f"{path}: the packed images cannot be written: {reason}.\n"
        "Name another folder for them by data.cache_dir=FOLDER, or take a smaller data.shape."
    )


def _ran_out(root: Path, error: Exception) -> str:
    """Of memory or threads. Nothing tells which image it was, or whether any is to blame."""
    of_memory = isinstance(error, MemoryError)
    what, limit = ("memory", "ulimit -v") if of_memory else ("threads", "ulimit -u")
    return (
        f"data.root={root}: the machine ran out of {what} while these images were packed or "
        f"mapped; nothing half-made is kept. End other programs, raise the limit if there is one "
        f"({limit}), "
        "or let fewer images be read at a time, which are two for each core: `taskset -c 0` "
        "before the command leaves it one core."
    )


def pack_folder(root: Path, cache_dir: str | None) -> tuple[Path, tuple[str, ...]]:
    """Each dataset has a folder of its own, named after where it lies; and notes of it."""
    root = root.resolve()
    name = f"{root.name}-{hashlib.sha256(bytes(root)).hexdigest()[:8]}"
    if cache_dir is None:
        folder, notes = cache_for(Path("packs") / name)
        if (root / ".packed").is_dir():
            notes = (*notes, f"{root / '.packed'} is of an earlier version and can be removed")
        return folder, notes
    folder = expanded("data.cache_dir", cache_dir).resolve()
    if root in (folder, *folder.parents):
        raise DataError(
            f"data.cache_dir={cache_dir} lies in data.root={root}, where folders are classes. "
            "Take a folder outside; null takes the user's cache folder."
        )
    return folder / name, ()

"""CIFAR-10 and CIFAR-100, from the archives for Python or the batches in them.

Krizhevsky, "Learning multiple layers of features from tiny images" (2009). The format, after the
dataset's page (cs.toronto.edu/~kriz/cifar.html): each batch is a Python 2 pickle of a dict with N
labels and `data`, (N, 3072) uint8, a row being 1,024 red, 1,024 green and 1,024 blue values, each
colour row by row.
"""

from __future__ import annotations

import dataclasses
import hashlib
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from data.cifar.batch import Layout, read_class_names, read_split
from data.download.checksums import FETCH_AGAIN, check_md5, check_md5_names, md5_of
from data.download.fetch import fetch
from data.preparation import Preparation
from data.roots import WAY_OUT, reading, resolve_root
from data.types import DataError, Dataset, Fit, Split

MOST_BYTES = 2**30  # of one file; the largest original, CIFAR-100's train, has 155 MB
OR_TAKE_IT = (
    "If it is meant, such as a file that was written again, data.verify=false takes what it holds."
)


KNOWN = (  # after the number of classes and the share
    "known near copies: about {share} % of CIFAR-{number}'s test images have near copies in train "
    "or test (ciFAIR: Barz and Denzler, Do we train on test data?, J. Imaging 6, 2020): the test "
    "figures are too good by some of it"
)


CIFAR10 = Layout(
    num_classes=10,
    archive="cifar-10-python.tar.gz",
    folder="cifar-10-batches-py",
    train=tuple(f"data_batch_{i}" for i in range(1, 6)),
    test="test_batch",
    meta="batches.meta",
    near_copies="3.3",
    labels_key="labels",
    names_key="label_names",
)
CIFAR100 = Layout(
    num_classes=100,
    archive="cifar-100-python.tar.gz",
    folder="cifar-100-python",
    train=("train",),
    test="test",
    meta="meta",
    near_copies="10",
    labels_key="fine_labels",
    names_key="fine_label_names",
)


def load_cifar10(
    *,
    root: str | None,
    download: bool,
    mirrors: Sequence[str],
    archive_md5: str,
    file_md5: Mapping[str, str],
    shape: Sequence[int],
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    hflip: bool,
    val_size: float,
    split_seed: int,
    verify: bool = True,
    fit: Fit = "squash",
    resize: int | None = None,
    folds: int = 0,
    fold: int = 0,
    on_leak: str = "warn",
    fraction: float = 1.0,
) -> Dataset:
    """CIFAR-10, 50,000 and 10,000 colour images of 32 x 32 pixels.

    Args:
        root: folder of the archive or of the batches; None for the default place.
        download: fetch the archive if neither is there.
        mirrors: addresses of folders that have the archive, tried in order.
        archive_md5, file_md5: of the archive, and of each file in it by its name.
        verify: refuse files with other MD5s. False takes what they hold, if images, counts and
            labels fit, and says so in a note; what is downloaded is always held against its MD5.
        The others: `Preparation`.

    Raises:
        DataError: no files and no way to get them, damaged files, or keys that contradict them.
    """
    preparation = Preparation(
        shape, num_classes, mean, std, hflip, val_size, split_seed, fit, resize, folds, fold,
        on_leak, fraction,
    )  # fmt: skip
    source = mirrors if download else None
    md5 = Md5s(archive_md5, file_md5, verify)
    return _load(CIFAR10, preparation, resolve_root(root), source, md5)


def load_cifar100(
    *,
    root: str | None,
    download: bool,
    mirrors: Sequence[str],
    archive_md5: str,
    file_md5: Mapping[str, str],
    shape: Sequence[int],
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    hflip: bool,
    val_size: float,
    split_seed: int,
    verify: bool = True,
    fit: Fit = "squash",
    resize: int | None = None,
    folds: int = 0,
    fold: int = 0,
    on_leak: str = "warn",
    fraction: float = 1.0,
) -> Dataset:
    """CIFAR-100, with its 100 fine labels; arguments and errors: `load_cifar10`."""
    preparation = Preparation(
        shape, num_classes, mean, std, hflip, val_size, split_seed, fit, resize, folds, fold,
        on_leak, fraction,
    )  # fmt: skip
    source = mirrors if download else None
    md5 = Md5s(archive_md5, file_md5, verify)
    return _load(CIFAR100, preparation, resolve_root(root), source, md5)


@dataclass(frozen=True)
class Md5s:
    """Of the archive and of each file; not `verified`, another one is only noted."""

    archive: str
    files: Mapping[str, str]
    verified: bool

    def check(self, place: str, found: str, expected: str) -> None:
        if self.verified:
            check_md5(place, found, expected, OR_TAKE_IT)


def _load(
    layout: Layout,
    preparation: Preparation,
    root: Path,
    mirrors: Sequence[str] | None,
    md5: Md5s,
) -> Dataset:
    """Reads what lies in `root`; fetches the archive from `mirrors` if nothing does."""
    preparation.check_num_classes(layout.num_classes)
    check_md5_names(md5.files, layout.files)
    with reading(root):
        found = _read_folder(layout, root) or _read_archive(layout, root, md5)
        if not found and mirrors is not None:
            otherwise = _otherwise(layout, root, md5.archive)
            fetch(root, {layout.archive: md5.archive}, mirrors, otherwise)
            found = _read_archive(layout, root, md5)
        if not found:
            raise DataError(_not_found(layout, root))
    others = []
    for name, (place, content) in found.items():
        own = hashlib.md5(content, usedforsecurity=False).hexdigest()
        md5.check(place, own, md5.files[name])
        others += [name] if own != md5.files[name].lower() else []
    train = _join([read_split(layout, *found[name]) for name in layout.train])
    test = read_split(layout, *found[layout.test])
    dataset = preparation.dataset(train, test, read_class_names(layout, *found[layout.meta]))
    notes = (*dataset.notes, *_note(layout, len(train), len(test), others))
    known = KNOWN.format(number=layout.num_classes, share=layout.near_copies)
    leaks = dataclasses.replace(dataset.leaks, known=known)
    return dataclasses.replace(dataset, notes=notes, leaks=leaks)


def _note(layout: Layout, num_train: int, num_test: int, others: Sequence[str]) -> list[str]:
    if not others:
        return []
    which = "none of the files is" if len(others) == len(layout.files) else (
        f"{', '.join(others)} {'is' if len(others) == 1 else 'are'} not"
    )  # fmt: skip
    return [
        f"data.verify=false: {which} the original's, by MD5; taken as found: "
        f"{num_train:,} and {num_test:,} images"
    ]


def _read_folder(layout: Layout, root: Path) -> dict[str, tuple[str, bytes]]:
    """Place and content of each file, from `root/layout.folder` or `root`; empty if one lacks."""
    for folder in (root / layout.folder, root):
        paths = {name: folder / name for name in layout.files}
        if all(path.is_file() for path in paths.values()):
            for path in paths.values():
                _check_size(str(path), path.stat().st_size)
            return {name: (str(path), path.read_bytes()) for name, path in paths.items()}
    return {}


def _check_size(place: str, num_bytes: int) -> None:
    """Before it is read into memory."""
    if num_bytes > MOST_BYTES:
        raise DataError(
            f"{place} has {num_bytes:,} bytes, and no file of CIFAR has more than {MOST_BYTES:,}. "
            f"{FETCH_AGAIN}"
        )


def _read_archive(layout: Layout, root: Path, md5: Md5s) -> dict[str, tuple[str, bytes]]:
    """Place and content of each file, from the archive; empty if there is none.

    The files are read into memory and nothing is extracted, so that no member can be written
    anywhere, whatever its name.
    """
    path = root / layout.archive
    if not path.is_file():
        return {}
    if md5.verified:
        md5.check(str(path), md5_of(path), md5.archive)
    names = {f"{layout.folder}/{name}": name for name in layout.files}
    found = {}
    try:
        with tarfile.open(path, "r|gz") as archive:
            for member in archive:
                if member.name in names and (file := archive.extractfile(member)):
                    _check_size(f"{path}: {member.name}", member.size)
                    found[names[member.name]] = (f"{path}: {member.name}", file.read())
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is no tar.gz archive: {error}. {FETCH_AGAIN}") from error
    if missing := [name for name in layout.files if name not in found]:
        raise DataError(f"{path} lacks {', '.join(missing)} in {layout.folder}/. {FETCH_AGAIN}")
    return found


def _otherwise(layout: Layout, root: Path, md5: str) -> str:
    return (
        f"Try again, or put {layout.archive} (MD5 {md5})\ninto {root},\n"
        f"or name the folder that has it by data.root=FOLDER; {WAY_OUT}."
    )


def _not_found(layout: Layout, root: Path) -> str:
    folders = (root / layout.folder, root)
    there = max(([n for n in layout.files if (f / n).is_file()] for f in folders), key=len)
    lacks = [name for name in layout.files if name not in there] if there else ["the files"]
    return (
        f"data.root={root} {'lacks ' + ', '.join(lacks) if root.exists() else 'does not exist'}, "
        f"and data.download=false. Set data.download=true, or put\n"
        f"  {layout.archive}\ninto {root}, or, unpacked,\n  "
        + "\n  ".join(layout.files)
        + f"\ninto {root / layout.folder} (torchvision's layout) or directly into {root},\n"
        f"or name the folder that has them by data.root=FOLDER; {WAY_OUT}."
    )


def _join(parts: list[Split]) -> Split:
    return Split(torch.cat([p.images for p in parts]), torch.cat([p.labels for p in parts]))

"""CIFAR-10 and CIFAR-100, from the archives for Python or the batches in them.

Krizhevsky, "Learning multiple layers of features from tiny images" (2009). The format, after the
set's page (cs.toronto.edu/~kriz/cifar.html): each batch is a Python 2 pickle of a dict with N
labels and `data`, (N, 3072) uint8, a row being 1,024 red, 1,024 green and 1,024 blue values, each
colour row by row.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from data.fetch import fetch
from data.files import (
    FETCH_AGAIN,
    WAY_OUT,
    check_md5,
    check_md5_names,
    md5_of,
    reading,
    resolve_root,
)
from data.prepare import Preparation
from data.types import DataError, Dataset, Split

SIDE = 32
PIXELS = 3 * SIDE * SIDE


@dataclass(frozen=True)
class Layout:
    """Names in the archive, and of the entries of its pickled dicts."""

    num_classes: int
    archive: str
    folder: str
    train: tuple[str, ...]
    test: str
    meta: str
    labels_key: str
    names_key: str

    @property
    def files(self) -> tuple[str, ...]:
        return (*self.train, self.test, self.meta)


CIFAR10 = Layout(
    num_classes=10,
    archive="cifar-10-python.tar.gz",
    folder="cifar-10-batches-py",
    train=tuple(f"data_batch_{i}" for i in range(1, 6)),
    test="test_batch",
    meta="batches.meta",
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
) -> Dataset:
    """CIFAR-10, 50,000 and 10,000 colour pictures of 32 x 32 pixels.

    Args:
        root: folder of the archive or of the batches; None for the default place.
        download: fetch the archive if neither is there.
        mirrors: addresses of folders that have the archive, tried in order.
        archive_md5, file_md5: of the archive, and of each file in it by its name.
        The others: `Preparation`.

    Raises:
        DataError: no files and no way to get them, damaged files, or keys that contradict them.
    """
    preparation = Preparation(shape, num_classes, mean, std, hflip, val_size, split_seed)
    source = mirrors if download else None
    return _load(CIFAR10, preparation, resolve_root(root), source, archive_md5, file_md5)


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
) -> Dataset:
    """CIFAR-100, with its 100 fine labels; arguments and errors: `load_cifar10`."""
    preparation = Preparation(shape, num_classes, mean, std, hflip, val_size, split_seed)
    source = mirrors if download else None
    return _load(CIFAR100, preparation, resolve_root(root), source, archive_md5, file_md5)


def _load(
    layout: Layout,
    preparation: Preparation,
    root: Path,
    mirrors: Sequence[str] | None,
    archive_md5: str,
    file_md5: Mapping[str, str],
) -> Dataset:
    """Reads what lies in `root`; fetches the archive from `mirrors` if nothing does."""
    preparation.check_num_classes(layout.num_classes)
    check_md5_names(file_md5, layout.files)
    with reading(root):
        found = _read_folder(layout, root) or _read_archive(layout, root, archive_md5)
        if not found and mirrors is not None:
            otherwise = _otherwise(layout, root, archive_md5)
            fetch(root, {layout.archive: archive_md5}, mirrors, otherwise)
            found = _read_archive(layout, root, archive_md5)
        if not found:
            raise DataError(_not_found(layout, root))
    for name, (place, content) in found.items():
        check_md5(place, hashlib.md5(content, usedforsecurity=False).hexdigest(), file_md5[name])
    return preparation.dataset(
        _join([_split(layout, *found[name]) for name in layout.train]),
        _split(layout, *found[layout.test]),
        _class_names(layout, *found[layout.meta]),
    )


def _read_folder(layout: Layout, root: Path) -> dict[str, tuple[str, bytes]]:
    """Place and content of each file, from `root/layout.folder` or `root`; empty if one lacks."""
    for folder in (root / layout.folder, root):
        paths = {name: folder / name for name in layout.files}
        if all(path.is_file() for path in paths.values()):
            return {name: (str(path), path.read_bytes()) for name, path in paths.items()}
    return {}


def _read_archive(layout: Layout, root: Path, md5: str) -> dict[str, tuple[str, bytes]]:
    """Place and content of each file, from the archive; empty if there is none.

    The files are read into memory and nothing is extracted, so that no member can be written
    anywhere, whatever its name.
    """
    path = root / layout.archive
    if not path.is_file():
        return {}
    check_md5(str(path), md5_of(path), md5)
    names = {f"{layout.folder}/{name}": name for name in layout.files}
    found = {}
    try:
        with tarfile.open(path, "r|gz") as archive:
            for member in archive:
                if member.name in names and (file := archive.extractfile(member)):
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


class _Unpickler(pickle.Unpickler):
    """Builds NumPy arrays and Python's own containers, and calls nothing else.

    The names below are all that an array's pickle refers to. For any other it gets an error, before
    anything is looked up or imported.
    """

    _ALLOWED: ClassVar[dict[tuple[str, str], Any]] = {
        # One function, by its places in NumPy 1 (the set's own files) and 2 (files packed anew).
        # Any array's reduction leads to it.
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}") from None


def _unpickle(place: str, content: bytes) -> dict[str, Any]:
    """The dict in a batch or meta file.

    Raises:
        DataError: it is no pickle, no dict, or asks for more than arrays and containers.
    """
    try:
        loaded = _Unpickler(io.BytesIO(content), encoding="latin1").load()
    except Exception as error:  # a damaged pickle raises nearly anything
        raise DataError(
            f"{place} is no CIFAR file, a pickle of arrays, lists and text: {error}. {FETCH_AGAIN}"
        ) from error
    if not isinstance(loaded, dict):
        raise DataError(f"{place} holds a {type(loaded).__name__}, expected a dict. {FETCH_AGAIN}")
    return loaded


def _split(layout: Layout, place: str, content: bytes) -> Split:
    """One batch as (N, 3, 32, 32) uint8 and (N,) int64.

    Raises:
        DataError: pixels or labels are not there, of another kind, or do not fit together.
    """
    batch = _unpickle(place, content)
    pixels, labels = batch.get("data"), batch.get(layout.labels_key)
    if not (
        isinstance(pixels, np.ndarray)
        and pixels.dtype == np.uint8
        and pixels.shape[1:] == (PIXELS,)
        and len(pixels) > 0
    ):
        found = f"{pixels.dtype} {pixels.shape}" if isinstance(pixels, np.ndarray) else pixels
        raise DataError(f"{place}: 'data' is {found!r}, expected uint8 (N, {PIXELS}).")
    if not (isinstance(labels, list) and len(labels) == len(pixels)):
        found = f"{len(labels)} values" if isinstance(labels, list) else repr(labels)
        raise DataError(
            f"{place}: {layout.labels_key!r} is {found}, expected {len(pixels)} labels in a list."
        )
    if bad := [x for x in labels if type(x) is not int or not 0 <= x < layout.num_classes]:
        raise DataError(
            f"{place}: {layout.labels_key!r} has {bad[0]!r}, expected whole numbers from 0 to "
            f"{layout.num_classes - 1}."
        )
    images = np.ascontiguousarray(pixels).reshape(-1, 3, SIDE, SIDE)
    return Split(torch.from_numpy(images), torch.tensor(labels))


def _join(parts: list[Split]) -> Split:
    return Split(torch.cat([p.images for p in parts]), torch.cat([p.labels for p in parts]))


def _class_names(layout: Layout, place: str, content: bytes) -> list[str]:
    names = _unpickle(place, content).get(layout.names_key)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{place}: {layout.names_key!r} is {names!r}, expected a list of text.")
    if len(names) != layout.num_classes or len(set(names)) != len(names):
        raise DataError(
            f"{place}: {layout.names_key!r} has {len(names)} names, {len(set(names))} of them "
            f"different; expected {layout.num_classes} different ones."
        )
    return names

"""MNIST, a small part of it that ships with the program, and Fashion-MNIST.

MNIST: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition",
Proc. IEEE 86 (1998). Fashion-MNIST: Xiao, Rasul, Vollgraf, arXiv:1708.07747 (2017).
"""

from __future__ import annotations

import io
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr
from http.client import HTTPException
from pathlib import Path

import numpy as np
import torch

from data.files import TIMEOUT_S, WAY_OUT, resolve_root, scratch_folder
from data.idx import read_idx
from data.prepare import Preparation
from data.types import DataError, Dataset, Split

DIGITS = tuple("0123456789")
FASHION = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def load_mnist_5k(
    *,
    shape: Sequence[int],
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    hflip: bool,
    val_size: float,
    split_seed: int,
) -> Dataset:
    """5,000 digits from the package's own file; see make_mnist_5k.py. The keys: `Preparation`."""
    preparation = Preparation(shape, num_classes, mean, std, hflip, val_size, split_seed)
    preparation.check_num_classes(len(DIGITS))
    with np.load(Path(__file__).with_name("mnist_5k.npz"), allow_pickle=False) as file:
        train = _split(file["train_images"], file["train_labels"])
        test = _split(file["test_images"], file["test_labels"])
    return preparation.dataset(train, test, DIGITS)


def load_mnist(
    *,
    root: str | None,
    download: bool,
    shape: Sequence[int],
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    hflip: bool,
    val_size: float,
    split_seed: int,
) -> Dataset:
    """MNIST, 60,000 and 10,000 digits, from its four files or downloaded.

    Args:
        root: folder of the files; None for the default place.
        download: fetch the files if they are not there.
        The others: `Preparation`.

    Raises:
        DataError: no files and no way to get them, damaged files, or keys that contradict them.
    """
    preparation = Preparation(shape, num_classes, mean, std, hflip, val_size, split_seed)
    preparation.check_num_classes(len(DIGITS))
    train, test = _read_or_fetch("MNIST", resolve_root(root), download)
    return preparation.dataset(train, test, DIGITS)


def load_fashion_mnist(
    *,
    root: str | None,
    download: bool,
    shape: Sequence[int],
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    hflip: bool,
    val_size: float,
    split_seed: int,
) -> Dataset:
    """Fashion-MNIST, 60,000 and 10,000 pictures of clothes; arguments and errors: `load_mnist`."""
    preparation = Preparation(shape, num_classes, mean, std, hflip, val_size, split_seed)
    preparation.check_num_classes(len(FASHION))
    train, test = _read_or_fetch("FashionMNIST", resolve_root(root), download)
    return preparation.dataset(train, test, FASHION)


def _read_or_fetch(name: str, root: Path, download: bool) -> tuple[Split, Split]:
    paths = find_files(root, name)
    if len(paths) < len(FILES):
        if not download:
            raise DataError(_not_found(root, name, paths))
        fetch_idx(root, name)
        paths = find_files(root, name)
    train = _read_split(*(paths[file] for file in FILES[:2]))
    test = _read_split(*(paths[file] for file in FILES[2:]))
    if train.images.shape[1:] != test.images.shape[1:]:
        raise DataError(
            f"{paths[FILES[2]]}: pictures of {tuple(test.images.shape[2:])} pixels, expected "
            f"{tuple(train.images.shape[2:])} as in {paths[FILES[0]]}."
        )
    return train, test


def find_files(root: Path, name: str) -> dict[str, Path]:
    """Those of the four files that are there, by their plain names.

    They lie in `root/name/raw` (torchvision's layout) or in `root` itself, whichever has more of
    them; files of two folders are never mixed, for they may be of two data sets. A plain file goes
    before one with .gz.
    """

    def found_in(folder: Path) -> dict[str, Path]:
        candidates = ((file, folder / (file + end)) for end in (".gz", "") for file in FILES)
        return {file: path for file, path in candidates if path.is_file()}

    return max(found_in(root / name / "raw"), found_in(root), key=len)


def _not_found(root: Path, name: str, paths: dict[str, Path]) -> str:
    state = "does not exist"
    if root.exists():
        state = f"lacks {', '.join(file for file in FILES if file not in paths)}"
    if paths:
        state += f" beside the others in {next(iter(paths.values())).parent}"
    return (
        f"data.root={root} {state}, and data.download=false. Set data.download=true, or\n"
        + _help(root, name)
    )


def _help(root: Path, name: str) -> str:
    return (
        "put these four files, each as it is or with .gz,\n  "
        + "\n  ".join(FILES)
        + f"\ninto {root / name / 'raw'} (torchvision's layout) or directly into {root},\n"
        f"or name the folder that has them by data.root=FOLDER; {WAY_OUT}."
    )


def _read_split(images_path: Path, labels_path: Path) -> Split:
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if len(images) != len(labels):
        raise DataError(
            f"{labels_path}: {len(labels)} labels, expected {len(images)}, the number of pictures "
            f"in {images_path}."
        )
    if labels.max() >= len(DIGITS):
        at = int(labels.argmax())
        raise DataError(f"{labels_path}: label {labels[at]} at position {at}, expected 0 to 9.")
    return _split(images, labels)


def _split(images: np.ndarray, labels: np.ndarray) -> Split:
    """From (N, H, W) and (N,) uint8."""
    return Split(torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels).long())


def fetch_idx(root: Path, name: str) -> None:
    """Downloads the set's files into `root/name/raw`, by torchvision: its mirrors, its checksums.

    It works in a scratch folder; a file of the same name that is there already is kept.

    Raises:
        DataError: no network, no room, or files with a wrong checksum; nothing is left behind.
    """
    from torchvision import datasets  # costs seconds, and only a download needs it

    try:
        with scratch_folder(root) as scratch, _quiet(), _timeout(TIMEOUT_S):
            getattr(datasets, name)(scratch, download=True)
            source, target = scratch / name / "raw", root / name / "raw"
            target.mkdir(parents=True, exist_ok=True)
            for path in source.iterdir():
                if not (target / path.name).exists():
                    os.replace(path, target / path.name)
    except (RuntimeError, OSError, HTTPException) as error:
        reason = str(error).strip()
        raise DataError(
            f"Could not download {name}: {reason}\nTry again, or {_help(root, name)}"
        ) from error


def _quiet() -> redirect_stderr | nullcontext:
    """torchvision's progress bars belong on a terminal and nowhere else."""
    return nullcontext() if sys.stderr.isatty() else redirect_stderr(io.StringIO())


@contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    """torchvision opens its addresses without a timeout; a silent server would hang the run."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)

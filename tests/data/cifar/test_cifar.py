"""CIFAR's files and archives as torchvision reads them."""

from __future__ import annotations

import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision

from data.cifar.load import CIFAR10, CIFAR100, load_cifar100
from data.types import Dataset
from tests.helpers import dataset_files
from tests.helpers.cifar_loading import COMMON, Files, load, sums, write_archive
from tests.helpers.splits import choose_validation


def check_against_torchvision(
    ours: Dataset, layout: Any, reader: Any, root: Path, files: Files, monkeypatch: Any
) -> None:
    """All images, labels and names as torchvision reads them from the unpacked files."""
    digests = sums(files)
    monkeypatch.setattr(reader, "train_list", [[name, digests[name]] for name in layout.train])
    monkeypatch.setattr(reader, "test_list", [[layout.test, digests[layout.test]]])
    monkeypatch.setattr(reader, "meta", {**reader.meta, "md5": digests[layout.meta]})
    train, test = reader(root, train=True), reader(root, train=False)
    in_val = choose_validation(np.array(train.targets), 0.1, 0, train.classes)
    for split, data, targets in (
        (ours.train, train.data[~in_val], np.array(train.targets)[~in_val]),
        (ours.val, train.data[in_val], np.array(train.targets)[in_val]),
        (ours.test, test.data, np.array(test.targets)),
    ):
        assert np.array_equal(split.images.permute(0, 2, 3, 1).numpy(), data)
        assert np.array_equal(split.labels.numpy(), targets)
        assert (split.images.dtype, split.labels.dtype) == (torch.uint8, torch.int64)
    assert list(ours.classes) == train.classes


@pytest.mark.parametrize("source", ["archive", "layout", "flat"])
def test_cifar10_equals_torchvisions_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    files = dataset_files.cifar10_files()
    dataset_files.write(tmp_path / "theirs" / CIFAR10.folder, files)
    root, archive = tmp_path / "ours", b""
    if source == "archive":
        archive = write_archive(root, files)
    else:
        dataset_files.write(root / (CIFAR10.folder if source == "layout" else "."), files)
    before = sorted(root.rglob("*"))
    ours = load(root, files, archive)
    assert sorted(root.rglob("*")) == before  # nothing is extracted
    assert ours.val.labels.bincount().tolist() == [1] * 10
    reader = torchvision.datasets.CIFAR10
    check_against_torchvision(ours, CIFAR10, reader, tmp_path / "theirs", files, monkeypatch)


def test_cifar100_equals_torchvisions_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = dataset_files.cifar100_files(num_train=1000)
    dataset_files.write(tmp_path / CIFAR100.folder, files)
    ours = load_cifar100(
        root=str(tmp_path),
        download=False,
        mirrors=[],
        archive_md5="",
        file_md5=sums(files),
        num_classes=100,
        val_size=0.1,
        **COMMON,
    )
    assert len(ours.classes) == 100
    reader = torchvision.datasets.CIFAR100
    check_against_torchvision(ours, CIFAR100, reader, tmp_path, files, monkeypatch)


def test_generated_files_are_python_2_pickles() -> None:
    """The opcodes by which a reader of the published files can be told: `str` as byte strings."""
    opcodes = {
        op.name for op, _, _ in pickletools.genops(dataset_files.cifar10_files()["test_batch"])
    }
    assert {"PROTO", "SHORT_BINSTRING", "BINSTRING", "GLOBAL", "REDUCE", "BUILD"} <= opcodes
    assert not {"BINUNICODE", "SHORT_BINUNICODE", "SHORT_BINBYTES"} & opcodes


def test_grey_and_small_as_asked(tmp_path: Path) -> None:
    files = dataset_files.cifar10_files()
    dataset_files.write(tmp_path, files)
    small = load(tmp_path, files, shape=[1, 28, 28])
    assert small.shape == (1, 28, 28)
    assert small.mean == pytest.approx((0.299 * 0.49 + 0.587 * 0.48 + 0.114 * 0.45,))


@pytest.mark.parametrize("protocol", [None, 3, 4])
def test_batches_packed_anew_under_numpy_2_are_the_same(
    tmp_path: Path, protocol: int | None
) -> None:
    """NumPy 2 names its own place of `_reconstruct`; None: the set's own bytes with that name."""
    files = dataset_files.cifar10_files()
    dataset_files.write(tmp_path, files)
    expected = load(tmp_path, files)
    old, new = b"cnumpy.core.multiarray\n", b"cnumpy._core.multiarray\n"
    for name in (*CIFAR10.train, CIFAR10.test):
        assert files[name].count(old) == 1
        batch = pickle.loads(files[name], encoding="latin1")
        anew = files[name].replace(old, new) if protocol is None else pickle.dumps(batch, protocol)
        assert protocol or new in anew
        files[name] = anew
    dataset_files.write(tmp_path, files)
    made = load(tmp_path, files)
    for part in ("train", "val", "test"):
        assert torch.equal(getattr(made, part).images, getattr(expected, part).images)
        assert torch.equal(getattr(made, part).labels, getattr(expected, part).labels)

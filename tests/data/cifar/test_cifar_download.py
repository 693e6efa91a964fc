"""CIFAR's archives by download: once, whole or named, and never unasked."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import torch

from data.cifar.load import CIFAR10, CIFAR100, load_cifar100
from data.types import DataError
from tests.helpers import dataset_files
from tests.helpers.cifar_loading import COMMON, load, sums, write_archive
from tests.helpers.mirror import Mirror, serve


def test_archive_is_downloaded_once_and_kept(tmp_path: Path) -> None:
    files = dataset_files.cifar10_files()
    archive = dataset_files.tar_gz(CIFAR10.folder, files)
    with serve(Mirror({CIFAR10.archive: archive})) as address:
        first = load(tmp_path / "new", files, archive, download=True, mirrors=[address])
    assert [path.name for path in (tmp_path / "new").iterdir()] == [CIFAR10.archive]
    second = load(tmp_path / "new", files, archive, download=True)  # from no server
    assert torch.equal(first.train.images, second.train.images)


def test_cifar100_is_downloaded(tmp_path: Path) -> None:
    files = dataset_files.cifar100_files(num_train=1000)
    archive = dataset_files.tar_gz(CIFAR100.folder, files)
    with serve(Mirror({CIFAR100.archive: archive})) as address:
        made = load_cifar100(
            root=str(tmp_path),
            download=True,
            mirrors=[address],
            archive_md5=dataset_files.md5(archive),
            file_md5=sums(files),
            num_classes=100,
            val_size=0.1,
            **COMMON,
        )
    assert len(made.test) == 100
    assert [path.name for path in tmp_path.iterdir()] == [CIFAR100.archive]


def test_failed_download_is_one_short_message_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load(tmp_path / "new", dataset_files.cifar10_files(), download=True)
    message = str(caught.value)
    assert len(message.splitlines()) < 12
    assert message.startswith(f"Could not download {CIFAR10.archive}:\n")
    ways = (dataset_files.md5(b""), str(tmp_path / "new"), "data.root=FOLDER", "data=mnist_5k")
    for part in ("http://127.0.0.1:1/", "refused", *ways):
        assert part in message
    assert list(tmp_path.iterdir()) == []


def test_download_false_never_touches_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def touched(*_: Any, **__: Any) -> Any:
        raise OSError("the network was touched")

    monkeypatch.setattr(socket, "socket", touched)
    files = dataset_files.cifar10_files()
    with pytest.raises(DataError, match=r"data\.download=false"):
        load(tmp_path, files)
    with pytest.raises(DataError, match="the network was touched"):  # the twin
        load(tmp_path, files, download=True)


def test_a_damaged_archive_is_not_repaired_behind_the_users_back(tmp_path: Path) -> None:
    files = dataset_files.cifar10_files()
    archive = write_archive(tmp_path, files)
    (tmp_path / CIFAR10.archive).write_bytes(archive[:-1])
    mirror = Mirror({CIFAR10.archive: archive})
    with serve(mirror) as address:
        with pytest.raises(DataError, match=r"has the MD5 .* expected .* Delete it and fetch it"):
            load(tmp_path, files, archive, download=True, mirrors=[address])
        assert not mirror.asked
        (tmp_path / CIFAR10.archive).unlink()
        load(tmp_path, files, archive, download=True, mirrors=[address])


def test_wrong_num_classes_is_refused_before_any_download(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.num_classes=42: this dataset has 10"):
        load(tmp_path / "new", dataset_files.cifar10_files(), download=True, num_classes=42)
    assert list(tmp_path.iterdir()) == []

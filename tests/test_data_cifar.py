from __future__ import annotations

import io
import os
import pickle
import pickletools
import socket
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import data_files
import numpy as np
import pytest
import torch
import torchvision
from data_mirror import Mirror, serve

from data.cifar import CIFAR10, CIFAR100, load_cifar10, load_cifar100
from data.prepare import choose_validation
from data.types import DataError, Dataset

Files = dict[str, bytes]
COMMON: dict[str, Any] = {
    "mean": [0.49, 0.48, 0.45],
    "std": [0.25, 0.24, 0.26],
    "hflip": True,
    "split_seed": 0,
    "shape": [3, 32, 32],
}


def sums(files: Files) -> dict[str, str]:
    return {name: data_files.md5(content) for name, content in files.items()}


def load(root: Path, files: Files, archive: bytes = b"", **changes: Any) -> Dataset:
    """CIFAR-10 from `root`, with the checksums of these files and this archive."""
    keys = {
        "root": str(root),
        "download": False,
        "mirrors": ["http://127.0.0.1:1/"],
        "archive_md5": data_files.md5(archive),
        "file_md5": sums(files),
        "num_classes": 10,
        "val_size": 0.1,
        **COMMON,
    }
    return load_cifar10(**{**keys, **changes})


def write_archive(root: Path, files: Files, folder: str = CIFAR10.folder) -> bytes:
    archive = data_files.tar_gz(folder, files)
    root.mkdir(parents=True, exist_ok=True)
    (root / CIFAR10.archive).write_bytes(archive)
    return archive


def check_against_torchvision(
    ours: Dataset, layout: Any, reader: Any, root: Path, files: Files, monkeypatch: Any
) -> None:
    """All pictures, labels and names as torchvision reads them from the unpacked files."""
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
    files = data_files.cifar10_files()
    data_files.write(tmp_path / "theirs" / CIFAR10.folder, files)
    root, archive = tmp_path / "ours", b""
    if source == "archive":
        archive = write_archive(root, files)
    else:
        data_files.write(root / (CIFAR10.folder if source == "layout" else "."), files)
    before = sorted(root.rglob("*"))
    ours = load(root, files, archive)
    assert sorted(root.rglob("*")) == before  # nothing is extracted
    assert ours.val.labels.bincount().tolist() == [1] * 10
    reader = torchvision.datasets.CIFAR10
    check_against_torchvision(ours, CIFAR10, reader, tmp_path / "theirs", files, monkeypatch)


def test_cifar100_equals_torchvisions_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = data_files.cifar100_files(num_train=1000)
    data_files.write(tmp_path / CIFAR100.folder, files)
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
    opcodes = {op.name for op, _, _ in pickletools.genops(data_files.cifar10_files()["test_batch"])}
    assert {"PROTO", "SHORT_BINSTRING", "BINSTRING", "GLOBAL", "REDUCE", "BUILD"} <= opcodes
    assert not {"BINUNICODE", "SHORT_BINUNICODE", "SHORT_BINBYTES"} & opcodes


# Checksums


@pytest.mark.parametrize("name", CIFAR10.files)
@pytest.mark.parametrize("packed", [False, True])
def test_each_file_is_checked_unpacked_and_packed(tmp_path: Path, name: str, packed: bool) -> None:
    files = data_files.cifar10_files()
    other = {**files, name: data_files.cifar10_files(seed=1)[name] + b" "}
    archive = b""
    if packed:
        archive = write_archive(tmp_path, other)
    else:
        data_files.write(tmp_path, other)
    load(tmp_path, other, archive)
    with pytest.raises(DataError) as caught:
        load(tmp_path, files, archive)
    message = str(caught.value)
    assert f"{name} has the MD5 {data_files.md5(other[name])}" in message
    assert f"expected {data_files.md5(files[name])}" in message


def test_archive_is_checked_before_it_is_read(tmp_path: Path) -> None:
    files = data_files.cifar10_files()
    archive = write_archive(tmp_path, files)
    load(tmp_path, files, archive)
    (tmp_path / CIFAR10.archive).write_bytes(archive[:-100])
    with pytest.raises(DataError, match=f"{CIFAR10.archive} has the MD5 .* expected"):
        load(tmp_path, files, archive)


def test_file_md5_must_name_the_files(tmp_path: Path) -> None:
    files = data_files.cifar10_files()
    data_files.write(tmp_path, files)
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
            lambda a: data_files.tar_gz("elsewhere", data_files.cifar10_files()),
            "lacks data_batch_1",
        ),
        (
            lambda a: data_files.tar_gz(
                CIFAR10.folder,
                {k: v for k, v in data_files.cifar10_files().items() if k != "test_batch"},
            ),
            "lacks test_batch in cifar-10-batches-py/",
        ),
    ],
)
def test_damaged_archive_is_named(
    tmp_path: Path, damage: Callable[[bytes], bytes], message: str
) -> None:
    files = data_files.cifar10_files()
    archive = write_archive(tmp_path, files)
    load(tmp_path, files, archive)
    bad = damage(archive)
    (tmp_path / CIFAR10.archive).write_bytes(bad)
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path, files, bad)
    assert str(caught.value).startswith(str(tmp_path / CIFAR10.archive))


def test_archive_cannot_write_or_point_outside(tmp_path: Path) -> None:
    files = data_files.cifar10_files()
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
    ],
)
def test_a_pickle_can_call_nothing(
    tmp_path: Path, name: str, hostile: Callable[[str], bytes]
) -> None:
    canary = tmp_path / "canary"
    files = data_files.cifar10_files()
    data_files.write(tmp_path, files)
    load(tmp_path, files)
    files[name] = hostile(str(canary))
    data_files.write(tmp_path, files)
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
        ({"labels": [0] * 19}, "'labels' is 19 values, expected 20 labels"),
        ({"labels": 7}, "'labels' is 7"),
        ({"data": GREY}, r"'data' is 'uint8 \(20, 1024\)', expected uint8 \(N, 3072\)"),
        ({"data": [1, 2]}, r"'data' is \[1, 2\]"),
        ({"data": np.zeros((0, 3072), np.uint8)}, r"'data' is 'uint8 \(0, 3072\)'"),
    ],
)
def test_wrong_content_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    sound = {"labels": [i % 10 for i in range(20)], "data": np.zeros((20, 3072), np.uint8)}
    files = data_files.cifar10_files()
    for batch in (sound, {**sound, **changes}):
        files["data_batch_2"] = data_files.Python2Pickle().dump(batch)
        data_files.write(tmp_path, files)
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
        (data_files.cifar10_files()["batches.meta"][:-30], "is no CIFAR file"),
        (data_files.Python2Pickle().dump([1, 2]), "holds a list, expected a dict"),
        (data_files.Python2Pickle().dump({}), "'label_names' is None, expected a list of text"),
        (data_files.Python2Pickle().dump({"label_names": ["a", "b"]}), "has 2 names"),
        (data_files.Python2Pickle().dump({"label_names": ["a"] * 10}), "10 names, 1 of them diff"),
        (data_files.Python2Pickle().dump({"label_names": [1] * 10}), "expected a list of text"),
    ],
)
def test_wrong_meta_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    files = {**data_files.cifar10_files(), "batches.meta": content}
    data_files.write(tmp_path, files)
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path, files)
    assert str(caught.value).startswith(str(tmp_path / "batches.meta"))


# No files, and downloads


def test_missing_files_without_download_name_all_ways_out(tmp_path: Path) -> None:
    files = data_files.cifar10_files()
    for root, state in ((tmp_path / "nowhere", "does not exist"), (tmp_path, "lacks the files")):
        with pytest.raises(DataError) as caught:
            load(root, files)
        message = str(caught.value)
        assert message.startswith(f"data.root={root} {state}, and data.download=false")
        for part in (CIFAR10.archive, *files, str(root / CIFAR10.folder), "data=mnist_5k"):
            assert part in message
    assert list(tmp_path.iterdir()) == []


def test_archive_is_downloaded_once_and_kept(tmp_path: Path) -> None:
    files = data_files.cifar10_files()
    archive = data_files.tar_gz(CIFAR10.folder, files)
    with serve(Mirror({CIFAR10.archive: archive})) as address:
        first = load(tmp_path / "new", files, archive, download=True, mirrors=[address])
    assert [path.name for path in (tmp_path / "new").iterdir()] == [CIFAR10.archive]
    second = load(tmp_path / "new", files, archive, download=True)  # from no server
    assert torch.equal(first.train.images, second.train.images)


def test_cifar100_is_downloaded(tmp_path: Path) -> None:
    files = data_files.cifar100_files(num_train=1000)
    archive = data_files.tar_gz(CIFAR100.folder, files)
    with serve(Mirror({CIFAR100.archive: archive})) as address:
        made = load_cifar100(
            root=str(tmp_path),
            download=True,
            mirrors=[address],
            archive_md5=data_files.md5(archive),
            file_md5=sums(files),
            num_classes=100,
            val_size=0.1,
            **COMMON,
        )
    assert len(made.test) == 100
    assert [path.name for path in tmp_path.iterdir()] == [CIFAR100.archive]


def test_failed_download_is_one_short_message_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load(tmp_path / "new", data_files.cifar10_files(), download=True)
    message = str(caught.value)
    assert len(message.splitlines()) < 12
    assert message.startswith(f"Could not download {CIFAR10.archive}:\n")
    ways = (data_files.md5(b""), str(tmp_path / "new"), "data.root=FOLDER", "data=mnist_5k")
    for part in ("http://127.0.0.1:1/", "refused", *ways):
        assert part in message
    assert list(tmp_path.iterdir()) == []


def test_download_false_never_touches_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def touched(*_: Any, **__: Any) -> Any:
        raise OSError("the network was touched")

    monkeypatch.setattr(socket, "socket", touched)
    files = data_files.cifar10_files()
    with pytest.raises(DataError, match=r"data\.download=false"):
        load(tmp_path, files)
    with pytest.raises(DataError, match="the network was touched"):  # the twin
        load(tmp_path, files, download=True)


def test_a_damaged_archive_is_not_repaired_behind_the_users_back(tmp_path: Path) -> None:
    files = data_files.cifar10_files()
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
    with pytest.raises(DataError, match=r"data\.num_classes=42: this data set has 10"):
        load(tmp_path / "new", data_files.cifar10_files(), download=True, num_classes=42)
    assert list(tmp_path.iterdir()) == []


def test_grey_and_small_as_asked(tmp_path: Path) -> None:
    files = data_files.cifar10_files()
    data_files.write(tmp_path, files)
    small = load(tmp_path, files, shape=[1, 28, 28])
    assert small.shape == (1, 28, 28)
    assert small.mean == pytest.approx((0.299 * 0.49 + 0.587 * 0.48 + 0.114 * 0.45,))

"""Packed pictures: made once, noticed when stale, whole or not there, shared by processes."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from picture_files import as_nobody, write_picture

import data.pack
from data.pack import File, Pack, _mapped, packed
from data.pictures import read_picture
from data.types import DataError

SHAPE = (3, 8, 10)


def file_of(root: Path, name: str, label: int = 0) -> File:
    found = (root / name).stat()
    return File(name, label, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def files_of(root: Path) -> list[File]:
    """All, the label being the number of the folder."""
    folders = sorted(path for path in root.iterdir() if path.name[0] != ".")
    return [
        file_of(root, f"{folder.name}/{path.name}", label)
        for label, folder in enumerate(folders)
        for path in sorted(folder.iterdir())
    ]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for i in range(6):
        write_picture(tmp_path / "root" / "ab"[i % 2] / f"{i}.png", seed=i)
    return tmp_path / "root"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each file is read, by its name."""
    counted: Counter[str] = Counter()

    def read(path: Path, *args: Any, **options: Any) -> np.ndarray:
        counted[path.name] += 1
        return read_picture(path, *args, **options)

    monkeypatch.setattr(data.pack, "read_picture", read)
    return counted


def pack_of(root: Path, shape: tuple[int, int, int] = SHAPE, folder: str = ".packed") -> Pack:
    return packed(root, files_of(root), shape, root / folder)


def check(pack: Pack, root: Path, shape: tuple[int, int, int] = SHAPE) -> None:
    """It has what reading each file now gives."""
    files = files_of(root)
    expected = [read_picture(root / file.name, shape, resize=min(shape[1:])) for file in files]
    assert pack.images.dtype == torch.uint8
    np.testing.assert_array_equal(pack.images.numpy(), np.stack(expected))
    assert pack.files == [[f.name, f.label, f.size, f.mtime_ns] for f in files]
    assert pack.bad == []


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_pictures_are_read_once(root: Path, reads: Counter[str]) -> None:
    check(pack_of(root), root)
    assert set(reads.values()) == {1}
    assert len(reads) == 6
    made = (root / ".packed" / "3x8x10.pack").stat()
    assert names_in(root / ".packed") == ["3x8x10.pack"]
    reads.clear()
    check(pack_of(root), root)
    assert not reads
    assert (root / ".packed" / "3x8x10.pack").stat() == made


def test_the_file_is_as_described(root: Path) -> None:
    pack = pack_of(root)
    content = (root / ".packed" / "3x8x10.pack").read_bytes()
    length = int.from_bytes(content[-8:], "little")
    index = json.loads(content[-8 - length : -8])
    assert content[: -8 - length] == pack.images.numpy().tobytes()
    assert index["shape"] == [3, 8, 10]
    assert index["files"] == pack.files


def test_files_that_changed_are_read_again_and_the_others_copied(
    root: Path, reads: Counter[str]
) -> None:
    old = pack_of(root)
    before = old.images.clone()

    def check_reads(*names: str) -> None:
        reads.clear()
        check(pack_of(root), root)
        assert reads == Counter(names)

    write_picture(root / "a" / "new.png", seed=100)
    check_reads("new.png")
    write_picture(root / "a" / "0.png", seed=101)
    check_reads("0.png")
    os.utime(root / "b" / "1.png", ns=(0, 1_000_000_001))
    check_reads("1.png")
    (root / "b" / "3.png").unlink()
    check_reads()
    (root / "b" / "5.png").rename(root / "b" / "moved.png")
    check_reads("moved.png")
    (root / "_").mkdir()  # an earlier class: all labels change, no picture does
    write_picture(root / "_" / "x.png", seed=102)
    check_reads("x.png")
    check_reads()
    assert torch.equal(old.images, before)  # who has the first one mapped still does


def test_the_order_of_the_files_is_that_of_the_pictures(root: Path, reads: Counter[str]) -> None:
    images, files = pack_of(root).images, files_of(root)
    reads.clear()
    backwards = packed(root, files[::-1], SHAPE, root / ".packed")
    assert torch.equal(backwards.images, images.flip(0))
    assert not reads


def test_packs_of_several_shapes_lie_side_by_side(root: Path, reads: Counter[str]) -> None:
    for shape in (SHAPE, (1, 8, 10), (3, 10, 8)):
        check(pack_of(root, shape), root, shape)
    reads.clear()
    for shape in (SHAPE, (1, 8, 10), (3, 10, 8)):
        check(pack_of(root, shape), root, shape)
    assert not reads
    assert names_in(root / ".packed") == ["1x8x10.pack", "3x10x8.pack", "3x8x10.pack"]


def test_packing_is_told_where_no_bar_is(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack_of(root)
    assert capsys.readouterr().err == f"packing 6 pictures into {root}/.packed/3x8x10.pack\n"
    pack_of(root)
    assert capsys.readouterr().err == ""


def test_without_posix_locks(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data.pack, "fcntl", None)
    check(pack_of(root), root)
    assert names_in(root / ".packed") == ["3x8x10.pack"]


def test_another_version_reads_all_again(
    root: Path, reads: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pack_of(root)
    monkeypatch.setattr(data.pack, "MADE_BY", "1, Pillow 1.1.7")
    reads.clear()
    check(pack_of(root), root)
    assert len(reads) == 6


def test_a_damaged_pack_is_made_again(root: Path) -> None:
    path = root / ".packed" / "3x8x10.pack"
    pack_of(root)
    whole = path.read_bytes()
    length = int.from_bytes(whole[-8:], "little")
    for content in (
        b"", b"x", whole[:-1], whole[1:], whole[: len(whole) // 2], whole + b"x", bytes(500),
        b"\xff" * 500, whole[: -8 - length] + b"[" * length + whole[-8:], b"[]" + b"\2" + bytes(7),
    ):  # fmt: skip
        path.write_bytes(content)
        check(pack_of(root), root)
        assert path.read_bytes() == whole


def test_what_cannot_be_read_is_noted_until_it_changes(root: Path, reads: Counter[str]) -> None:
    pack_of(root)
    (root / "a" / "2.png").write_bytes(b"no picture")
    for _ in range(2):
        pack = pack_of(root)
        assert [(file.name, reason[:13]) for file, reason in pack.bad] == [
            ("a/2.png", "not a picture")
        ]
        assert [name for name, *_ in pack.files] == [
            "a/0.png", "a/4.png", "b/1.png", "b/3.png", "b/5.png"
        ]  # fmt: skip
    assert reads["2.png"] == 2  # once as it was, once as it is
    (root / "a" / "2.png").chmod(0o600)
    pack_of(root)
    assert reads["2.png"] == 3  # it may have become readable
    write_picture(root / "a" / "2.png", seed=2)
    check(pack_of(root), root)


def test_nothing_but_bad_files(root: Path) -> None:
    for file in files_of(root):
        (root / file.name).write_bytes(b"")
    for _ in range(2):
        pack = pack_of(root)
        assert pack.images.shape == (0, *SHAPE)
        assert len(pack.bad) == 6


def test_a_map_is_read_only_and_shared(root: Path) -> None:
    pack = pack_of(root)
    lines = Path("/proc/self/maps").read_text().splitlines()
    ours = [line.split()[1] for line in lines if str(root / ".packed" / "3x8x10.pack") in line]
    assert pack.images.numel()
    assert set(ours) == {"r--s"}


def test_more_than_memory_can_be_mapped(tmp_path: Path) -> None:
    """All pages that there are, twice; a private map to write to would be refused."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    count = 2 * total // 2**20 + 1024
    with (tmp_path / "large").open("w+b") as file:
        file.truncate(count * 2**20)  # a hole: no disk is used
        file.seek(-1, os.SEEK_END)
        file.write(b"\7")
        file.flush()
        images = _mapped(file, (count, 1, 1024, 1024))
    assert images[-1].sum() == 7


class StopNow(BaseException):
    """As a handler of SIGTERM raises it."""


@pytest.mark.parametrize("error", [KeyboardInterrupt, StopNow])
def test_a_signal_ends_packing_and_nothing_is_left(
    root: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def slow_read(*args: Any, **options: Any) -> np.ndarray:
        time.sleep(0.1)
        return read_picture(*args, **options)

    def stop(number: int, frame: Any) -> None:
        raise error

    monkeypatch.setattr(data.pack, "read_picture", slow_read)
    files = files_of(root) * 1000  # ten minutes' work
    num_threads = threading.active_count()
    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        start = time.monotonic()
        with pytest.raises(error):
            packed(root, files, SHAPE, root / "new" / ".packed")
        assert time.monotonic() - start < 0.5 + 1.0
    finally:
        signal.signal(signal.SIGALRM, before)
    assert threading.active_count() == num_threads
    assert names_in(root) == ["a", "b"]


def test_a_full_disk_leaves_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """First the space is looked at; then the system itself refuses to write."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 8, 1439))
    with pytest.raises(DataError) as caught:
        pack_of(root)
    for word in (str(root / ".packed" / "3x8x10.pack"), "1,440 bytes", "1,439 are free",
                 "data.cache_dir"):  # fmt: skip
        assert word in str(caught.value)
    assert names_in(root) == ["a", "b"]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 8, 1440))

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(DataError, match=os.strerror(errno.EFBIG)) as caught:
            pack_of(root)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(root / ".packed" / "3x8x10.pack") in str(caught.value)
    assert names_in(root) == ["a", "b"]
    check(pack_of(root), root)


def test_a_folder_that_cannot_be_written_to(root: Path) -> None:
    with (
        as_nobody(root),
        pytest.raises(DataError, match=r"3x8x10\.pack.*Permission denied[\s\S]*data\.cache_dir"),
    ):
        pack_of(root)
    assert names_in(root) == ["a", "b"]
    check(pack_of(root), root)
    with as_nobody(root):
        check(pack_of(root), root)  # reading what is packed takes no writing


def test_a_file_where_the_folder_should_be(root: Path) -> None:
    (root / ".packed").write_text("mine")
    with pytest.raises(DataError, match=r"data\.cache_dir"):
        pack_of(root)
    assert (root / ".packed").read_text() == "mine"


PACKING = """
import sys, time
from pathlib import Path
import data.pack
from data.pictures import read_picture
sys.path.insert(0, "tests")
from test_data_pack import SHAPE, files_of

def read(*args, **options):
    print("read", flush=True)
    time.sleep(float(sys.argv[2]))
    return read_picture(*args, **options)

data.pack.read_picture = read
root = Path(sys.argv[1])
pack = data.pack.packed(root, files_of(root), SHAPE, root / ".packed")
print("sum", pack.images.sum().item(), flush=True)
"""


def start_packing(root: Path, seconds: float) -> subprocess.Popen[str]:
    """In a process of its own, so many seconds a picture."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PACKING, str(root), str(seconds)],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def is_waiting(process: subprocess.Popen[str]) -> bool:
    assert process.stderr
    return "Waiting" in process.stderr.readline()


@pytest.mark.slow
def test_of_two_processes_one_packs_and_the_other_waits(root: Path) -> None:
    processes = [start_packing(root, 1.0) for _ in range(2)]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert sorted(out.count("read") for out, _ in outputs) == [0, 6]
    expected = f"sum {pack_of(root).images.sum().item()}"
    assert all(out.splitlines()[-1] == expected for out, _ in outputs)
    assert names_in(root / ".packed") == ["3x8x10.pack"]


@pytest.mark.slow
def test_who_waits_takes_over_from_one_that_was_killed(root: Path) -> None:
    first = start_packing(root, 60)
    assert first.stdout
    assert first.stdout.readline() == "read\n"
    second = start_packing(root, 0)
    assert is_waiting(second)
    assert names_in(root / ".packed") == ["3x8x10.tmp"]
    first.kill()
    out, err = second.communicate(timeout=60)
    assert second.returncode == 0
    assert err == f"packing 6 pictures into {root}/.packed/3x8x10.pack\n"
    assert out.count("read") == 6
    first.communicate()
    assert names_in(root / ".packed") == ["3x8x10.pack"]
    check(pack_of(root), root)

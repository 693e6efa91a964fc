"""Packing that is stopped, has no room or meets another process: a whole pack or none."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import data.image_folder.pack
import data.image_folder.packing
from data.image_folder.pack import packed
from data.images.decode import read_image
from data.types import DataError
from tests.helpers.commands import ROOT
from tests.helpers.image_files import as_nobody
from tests.helpers.packs import SHAPE, Reading, check, files_of, names_in, pack_of


class StopNow(BaseException):
    """As a handler of SIGTERM raises it."""


@pytest.mark.parametrize("error", [KeyboardInterrupt, StopNow])
def test_a_signal_ends_packing_and_nothing_is_left(
    root: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def slow_read(*args: Any, **options: Any) -> np.ndarray:
        time.sleep(0.1)
        return read_image(*args, **options)

    def stop(number: int, frame: Any) -> None:
        raise error

    monkeypatch.setattr(data.image_folder.packing, "read_image", slow_read)
    files = files_of(root) * 1000  # ten minutes' work
    num_threads = threading.active_count()
    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        start = time.monotonic()
        with pytest.raises(error):
            packed(root, files, Reading(SHAPE), root / "new" / ".packed")
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
import os, sys, time
from pathlib import Path
import data.image_folder.pack
import data.image_folder.packing
from data.images.decode import read_image
sys.path.insert(0, "tests")
from tests.helpers.packs import SHAPE, Reading, files_of

def read(*args, **options):
    os.write(1, b"read\\n")  # in one piece: several threads read
    time.sleep(float(sys.argv[2]))
    return read_image(*args, **options)

data.image_folder.packing.read_image = read
root = Path(sys.argv[1])
pack = data.image_folder.pack.packed(root, files_of(root), Reading(SHAPE), root / ".packed")
print("sum", pack.images.sum().item(), flush=True)
"""


def start_packing(root: Path, seconds: float) -> subprocess.Popen[str]:
    """In a process of its own, so many seconds an image."""
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
    assert err == f"packing 6 images into {root}/.packed/3x8x10.pack\n"
    assert out.count("read") == 6
    first.communicate()
    assert names_in(root / ".packed") == ["3x8x10.pack"]
    check(pack_of(root), root)

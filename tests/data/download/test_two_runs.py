"""Two runs that fetch the same file at once, and the first of them killed."""

from __future__ import annotations

import errno
import fcntl
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import data.download.fetch
import data.locked_files
from data.types import DataError
from tests.helpers.commands import ROOT
from tests.helpers.dataset_files import md5
from tests.helpers.mirror import CONTENT, Mirror, check_arrived, get, serve, wait_until

HALF = len(CONTENT) // 2

HOLD = """
import fcntl, sys
file = open(sys.argv[1], "ab", buffering=0)
fcntl.flock(file, fcntl.LOCK_EX)
file.write(open(sys.argv[2], "rb").read())
print("locked", flush=True)
sys.stdin.read()
"""


@contextmanager
def holder(part: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has locked the part and written half of it."""
    part.parent.mkdir()
    half = part.parent.with_name("half")
    half.write_bytes(CONTENT[:HALF])
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(part), str(half)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def meanwhile(part: Path, action: Any) -> Iterator[None]:
    """Does it in another thread once the main one waits for the lock on the part."""
    waits = threading.Event()

    def print_busy(*args: Any, **options: Any) -> None:
        print(*args, **options)
        waits.set()

    data.locked_files.print = print_busy  # type: ignore[attr-defined]

    def act() -> None:
        try:
            wait_until(waits.is_set)
        finally:
            action()

    thread = threading.Thread(target=act)
    thread.start()
    try:
        yield
    finally:
        thread.join()
        del data.locked_files.print  # type: ignore[attr-defined]


def test_the_part_of_a_run_that_is_killed_is_taken_over_at_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    part = tmp_path / "new" / "file.part"
    mirror = Mirror({"file": CONTENT})
    with serve(mirror) as address, holder(part) as other, meanwhile(part, other.kill):
        get(part.parent, address)
        assert other.wait() == -signal.SIGKILL
    check_arrived(part.parent)
    assert mirror.ranges_asked() == [f"bytes={HALF}-"]
    waits = f"Another run is fetching {part.with_suffix('')}; waiting for it.\n"
    assert capfd.readouterr() == ("", waits)


@pytest.mark.parametrize("arrived", [CONTENT, b"another"], ids=["the same", "another"])
def test_the_file_that_another_run_has_fetched_is_verified(tmp_path: Path, arrived: bytes) -> None:
    path, part = tmp_path / "new" / "file", tmp_path / "new" / "file.part"

    def finish() -> None:
        part.write_bytes(arrived)
        part.rename(path)
        other.kill()

    with holder(part) as other, meanwhile(part, finish):
        if arrived == CONTENT:
            get(path.parent)
        else:
            with pytest.raises(DataError, match=rf"{path} has the MD5 .*, expected .*Delete it"):
                get(path.parent)
    assert [path.name for path in path.parent.iterdir()] == ["file"]
    assert path.read_bytes() == arrived


def test_a_run_that_fails_may_take_the_folder_from_under_one_that_waits(tmp_path: Path) -> None:
    part = tmp_path / "new" / "file.part"

    def give_up() -> None:
        part.unlink()
        part.parent.rmdir()
        other.kill()

    with (
        serve(Mirror({"file": CONTENT})) as address,
        holder(part) as other,
        meanwhile(part, give_up),
    ):
        get(part.parent, address)
    check_arrived(part.parent)


def test_a_drive_without_locks_still_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with serve(Mirror({"file": CONTENT})) as address:
        get(tmp_path / "new", address)
    check_arrived(tmp_path / "new")


FETCH = """
import sys
from pathlib import Path
from data.download.fetch import fetch
fetch(Path(sys.argv[1]), {"file": sys.argv[2]}, sys.argv[3:], "Or do without.")
"""


def start_fetch(folder: Path, address: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", FETCH, str(folder), md5(CONTENT), address],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True])
def test_two_processes_at_once(tmp_path: Path, killed: bool) -> None:
    """The first gets half and stalls; the second waits. Then the first is killed, or goes on."""
    part = tmp_path / "new" / "file.part"
    mirror = Mirror({"file": CONTENT}, faults=[("wait" if not killed else "stall", HALF)])
    with serve(mirror) as address:
        first = start_fetch(part.parent, address)
        wait_until(lambda: part.exists() and part.stat().st_size == HALF)
        second = start_fetch(part.parent, address)
        assert second.stderr is not None
        assert "waiting" in second.stderr.readline()
        if killed:
            first.kill()
        else:
            mirror.go_on.set()
        assert second.communicate(timeout=60) == ("", "")
        assert first.communicate(timeout=60) == ("", "")
        assert (first.wait(), second.wait()) == (-signal.SIGKILL if killed else 0, 0)
    check_arrived(part.parent)
    assert mirror.ranges_asked() == ([None, f"bytes={HALF}-"] if killed else [None])

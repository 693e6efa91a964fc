"""The part of a download on disk: signals, full disks, broken-off renames."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import data.download.fetch
import data.download.partial_file
from data.download.partial_file import locked_partial_file
from data.types import DataError
from tests.helpers.mirror import CONTENT, Mirror, check_arrived, get, serve, wait_until

HALF = len(CONTENT) // 2


# Order and endings


def test_synced_then_renamed_then_the_folder_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def note_sync(descriptor: int) -> None:
        done.append(f"sync {os.readlink(f'/proc/self/fd/{descriptor}')}")
        fsync(descriptor)

    def note_rename(old: Path, new: Path) -> None:
        done.append(f"rename {old} {new}")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", note_rename)
    with locked_partial_file(tmp_path / "file") as part:
        part.append(CONTENT)
        part.finish()
    path = tmp_path / "file"
    assert done == [f"sync {path}.part", f"rename {path}.part {path}", f"sync {tmp_path}"]
    check_arrived(tmp_path)


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_failing_at_the_end_leaves_what_the_next_run_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    with serve(Mirror({"file": CONTENT})) as address:
        with monkeypatch.context() as patch:
            patch.setattr(os, function, fail)
            with pytest.raises(DataError, match=r"file cannot be written: .*Input/output error"):
                get(tmp_path, address)
        assert [path.name for path in tmp_path.iterdir()] == ["file.part"]
    get(tmp_path)  # from no server
    check_arrived(tmp_path)


def test_what_was_made_and_not_filled_is_removed(tmp_path: Path) -> None:
    for target in (tmp_path / "a" / "b" / "file", tmp_path / "file"):
        with locked_partial_file(target) as part:
            assert part.path.exists()
        with pytest.raises(KeyboardInterrupt), locked_partial_file(target):
            raise KeyboardInterrupt
        assert list(tmp_path.iterdir()) == []
    with locked_partial_file(tmp_path / "a" / "b" / "file") as part:
        part.append(b"something")
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "b", "file.part"]


@pytest.mark.parametrize("place", ["file/new", "x" * 300])
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with serve(Mirror({"file": CONTENT})) as address:
        with pytest.raises(DataError, match=r"(?s)cannot be written: .*\nOr do without\.$"):
            get(tmp_path / place, address)
        assert [path.name for path in tmp_path.iterdir()] == ["file"]
        get(tmp_path / "new", address)


class Alarm(Exception):  # noqa: N818
    pass


def ring(*_: Any) -> None:
    raise Alarm


@pytest.mark.parametrize("after", [0, HALF])
@pytest.mark.parametrize(("number", "kind"), [("SIGINT", KeyboardInterrupt), ("SIGUSR1", Alarm)])
def test_a_signal_ends_it_at_once(tmp_path: Path, number: str, kind: Any, after: int) -> None:
    mirror = Mirror({"file": CONTENT}, faults=[("stall", after)])
    folder, main = tmp_path / "new", threading.main_thread().ident
    assert main is not None
    part = folder / "file.part"

    def interrupt() -> None:
        wait_until(lambda: len(mirror.asked) == 1 and part.stat().st_size == after)
        signal.pthread_kill(main, getattr(signal, number))

    before = signal.signal(signal.SIGUSR1, ring)
    # Whoever runs tests in the background of a shell has SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    other = threading.Thread(target=interrupt)
    try:
        with serve(mirror) as address:
            other.start()
            begin = time.monotonic()
            with pytest.raises(kind):
                get(folder, address)
            assert time.monotonic() - begin < data.download.fetch.TIMEOUT_S / 2
            left = {path.name: path.stat().st_size for path in tmp_path.rglob("*.part")}
            assert left == ({"file.part": after} if after else {})
            assert folder.exists() == bool(after)
            get(folder, address)
    finally:
        other.join()
        signal.signal(signal.SIGUSR1, before)
    check_arrived(folder)
    assert mirror.ranges_asked() == [None, f"bytes={after}-" if after else None]


# Full disks


def test_no_room_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = SimpleNamespace(free=len(CONTENT) - 1)
    mirrors = Mirror({"file": CONTENT}), Mirror({"file": CONTENT})
    with serve(mirrors[0]) as one, serve(mirrors[1]) as other, monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: free)
        with pytest.raises(DataError) as caught:
            get(tmp_path / "new", one, other)
        message = str(caught.value)
        assert message.startswith(f"No room for {tmp_path / 'new' / 'file'}: 300,000 bytes more")
        for part in ("299,999 are free", "data.root=", "data=mnist_5k"):
            assert part in message
        assert list(tmp_path.iterdir()) == []
        assert not mirrors[1].asked  # another mirror cannot help
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / "file.part").write_bytes(CONTENT[:1])
        get(tmp_path / "new", one)  # the twin: for the rest there is room
    check_arrived(tmp_path / "new")


@contextmanager
def file_size_limit(num_bytes: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_takes_no_more_is_named_and_freed(tmp_path: Path) -> None:
    with serve(Mirror({"file": CONTENT})) as address:
        with file_size_limit(100_001), pytest.raises(DataError) as caught:
            get(tmp_path / "new", address)
        assert list(tmp_path.iterdir()) == []
        with file_size_limit(len(CONTENT)):
            get(tmp_path / "new", address)
    path = tmp_path / "new" / "file.part"
    assert str(caught.value).startswith(f"{path} cannot be written: File too large; at least ")
    check_arrived(tmp_path / "new")

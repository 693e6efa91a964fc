"""A machine at its end is no fault of the images: packing ends, or they are tried again."""

from __future__ import annotations

import os
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import data.image_folder.pack
import data.image_folder.packing
from data.image_folder.pack import packed
from data.images.decode import read_image
from data.types import DataError
from tests.helpers.commands import ROOT, run_trainer
from tests.helpers.image_files import (
    as_nobody,
    as_written,
    composed,
    load,
    refused,
    write_classes,
    write_image,
)
from tests.helpers.packs import (
    SHAPE,
    Reading,
    check,
    files_of,
    names_in,
    pack_of,
)


@pytest.mark.parametrize(
    ("error", "words"),
    [(MemoryError(), "ran out of memory"), (RuntimeError("can't start new thread"), "of threads")],
    ids=["memory", "threads"],
)
def test_a_machine_at_its_end_is_told_once_and_nothing_is_kept(
    root: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    def read(path: Path, *args: Any, **options: Any) -> np.ndarray:
        if path.name == "3.png":
            raise error
        return read_image(path, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(data.image_folder.packing, "read_image", read)
        with pytest.raises(DataError) as caught:
            pack_of(root)
    message = str(caught.value)
    assert words in message
    assert str(root) in message
    assert "ulimit" in message
    assert names_in(root) == ["a", "b"]
    check(pack_of(root), root)


def test_threads_that_cannot_be_started(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the pool itself, from the third on."""
    start, started = threading.Thread.start, []

    def refuse(thread: threading.Thread) -> None:
        started.append(thread)
        if len(started) > 2:
            raise RuntimeError("can't start new thread")
        start(thread)

    num_threads = threading.active_count()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        patch.setattr(data.image_folder.packing, "num_cores", lambda: 4)
        with pytest.raises(DataError, match="ran out of threads"):
            packed(root, files_of(root) * 10, Reading(SHAPE), root / ".packed")
    assert threading.active_count() == num_threads
    assert names_in(root) == ["a", "b"]


def test_other_errors_of_the_program_are_not_dressed_up(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*args: Any, **options: Any) -> np.ndarray:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(data.image_folder.packing, "read_image", read)
    with pytest.raises(RuntimeError, match="no such kernel"):
        pack_of(root)
    assert names_in(root) == ["a", "b"]


def test_a_pack_larger_than_may_be_mapped(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory again: it must not be packed again and again."""

    def refuse(*args: Any, **options: Any) -> None:
        raise OSError(12, "Cannot allocate memory")

    pack_of(root)
    with monkeypatch.context() as patch:
        patch.setattr(np, "memmap", refuse)
        with pytest.raises(DataError, match="ran out of memory"):
            pack_of(root)
    check(pack_of(root), root)


# Files that could not be read


def test_what_could_not_be_read_is_read_when_it_can_be(
    root: Path, reads: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A drive that fails for a while: the files' dates tell nothing of it."""
    unread = {"1.png", "4.png"}
    counting = data.image_folder.packing.read_image

    def read(path: Path, *args: Any, **options: Any) -> np.ndarray:
        if path.name in unread:
            reads[path.name] += 1
            raise DataError(f"{path}: it cannot be read: Input/output error.")
        return counting(path, *args, **options)

    def bad_now() -> list[str]:
        reads.clear()
        return [file.name for file, _ in pack_of(root).bad]

    monkeypatch.setattr(data.image_folder.packing, "read_image", read)
    (root / "a" / "2.png").write_bytes(b"no image")
    path = root / ".packed" / "3x8x10.pack"
    assert bad_now() == ["a/2.png", "a/4.png", "b/1.png"]
    made = as_written(path)
    for _ in range(2):
        assert bad_now() == ["a/2.png", "a/4.png", "b/1.png"]
        assert set(reads) == {"1.png", "4.png"}
    assert as_written(path) == made  # not written again while they still cannot be read
    unread.remove("1.png")
    assert bad_now() == ["a/2.png", "a/4.png"]
    assert set(reads) == {"1.png", "4.png"}  # the others are copied, the bad one is known
    assert path.stat() != made
    unread.clear()
    assert bad_now() == ["a/2.png"]
    write_image(root / "a" / "2.png")
    check(pack_of(root), root)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to be root, to be somebody else, too")
def test_what_another_user_could_not_read_is_no_bad_image_of_mine(
    tmp_path: Path, reads: Counter[str]
) -> None:
    root, cache = write_classes(tmp_path / "root"), tmp_path / "cache"
    cache.mkdir()
    cache.chmod(0o777)
    composed()
    for name in ("dog/03.png", "dog/04.png"):
        (root / name).chmod(0)
    (root / "owl" / "05.png").write_bytes(b"no image")
    with as_nobody(root):
        for _ in range(2):
            message = refused(root, cache_dir=str(cache))
            assert message.startswith("3 of 30 images cannot be used")
            assert "dog/03.png: it cannot be read: Permission denied." in message
    reads.clear()
    assert refused(root, cache_dir=str(cache)).startswith("1 of 30")
    assert set(reads) == {"03.png", "04.png"}  # no other, and not the one that is no image
    with as_nobody(root):  # what is packed can be had by all
        assert len(load(root, cache_dir=str(cache), on_bad_image="skip").classes) == 3


@pytest.mark.slow
def test_on_the_command_line(tmp_path: Path) -> None:
    """Exit code 2 and one message, of which the last line says the way out."""
    root = write_classes(tmp_path / "root", per_class=5)
    (tmp_path / "sitecustomize.py").write_text(
        "import data.image_folder.pack\n\n\n"
        "def read(*args, **options):\n    raise MemoryError\n\n\n"
        "data.image_folder.packing.read_image = read\n"
    )
    words = ["data=image_folder", f"data.root={root}", "data.val_size=0.3", "data.test_size=0.3"]
    done = run_trainer(*words, cwd=tmp_path, PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert done.returncode == 2
    assert done.output.count("ran out of memory") == 1
    assert "Traceback" not in done.output
    assert names_in(root) == ["cat", "dog", "owl"]

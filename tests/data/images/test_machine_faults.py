"""What is the machine's fault and not the image's: no memory, a failing disk."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import data.images.decode
from data.images.decode import read_image
from data.types import DataError
from tests.helpers.commands import Finished, TrainedRun
from tests.helpers.digit_files import rows_of

Dispatch = Callable[..., Finished]
SIDE = 40  # of the image that the machine cannot take


def fail(monkeypatch: pytest.MonkeyPatch, error: BaseException, step: str = "fitted") -> None:
    """This step of reading raises it, of images that are SIDE pixels wide."""
    original: Any = getattr(data.images.decode, step)

    def failing(*args: Any, **options: Any) -> Any:
        made = original(*args, **options)
        if SIDE in (np.asarray(made).shape[1], np.asarray(args[0]).shape[1]):
            raise error
        return made

    monkeypatch.setattr(data.images.decode, step, failing)


def written(path: Path, side: int = SIDE) -> Path:
    Image.fromarray(np.full((side, side), 9, np.uint8)).save(path)
    return path


def test_no_memory_is_not_called_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, shape = written(tmp_path / "a.png"), (1, 28, 28)
    for error, found in (
        (MemoryError(), MemoryError), (ValueError("odd"), DataError), (IndexError(), DataError),
    ):  # fmt: skip
        with monkeypatch.context() as patch:
            fail(patch, error)
            with pytest.raises(found) as caught:
                read_image(file, shape, resize=28)
            assert (caught.value is error) == (found is MemoryError)
    assert (read_image(file, shape, resize=28) == 9).all()


def test_a_decoder_without_memory_may_have_some_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """libjpeg's failed malloc comes out of Pillow as an OSError without a number."""
    file = written(tmp_path / "a.png")
    for words, said in (
        ("out of memory error when reading image file", "it cannot be read: "),
        ("broken data stream when reading image file", "damaged or cut off"),
    ):
        with monkeypatch.context() as patch:
            fail(patch, OSError(words))
            with pytest.raises(DataError, match=f"a.png: {said}"):
                read_image(file, (1, 28, 28), resize=28)


def test_the_systems_errors_have_a_beginning_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By which they are told from damage, that would be the same at the next try."""
    file = written(tmp_path / "a.png")
    for error, beginning in (
        (OSError(errno.EIO, os.strerror(errno.EIO)), "it cannot be read: Input/output error."),
        (OSError("broken data stream"), "damaged or cut off (broken data stream)."),
    ):
        with monkeypatch.context() as patch:
            fail(patch, error)
            with pytest.raises(DataError) as caught:
                read_image(file, (1, 28, 28), resize=28)
        assert str(caught.value) == f"{file}: {beginning}"


def test_predict_goes_on_after_an_image_that_memory_does_not_take(
    default_run: TrainedRun, dispatch: Dispatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, side in (("a.png", 28), ("b.png", SIDE), ("c.png", 28)):
        written(Path(name), side)
    words = ("predict", str(default_run.best), "a.png", "b.png", "c.png", "--json")
    sound = rows_of(dispatch(*words))
    assert [list(row) for row in sound] == [["file", "top"]] * 3
    fail(monkeypatch, MemoryError(), "squashed")  # as the digits of the training came to their size
    done = dispatch(*words)
    assert done.returncode == 1
    first, second, third = rows_of(done)
    assert (first, third) == (sound[0], sound[2])
    assert second["file"] == "b.png"
    assert "more memory than there is" in second["error"]
    assert done.stderr.splitlines()[-1] == "1 of 3 images failed."


def test_predict_goes_on_after_a_copy_that_memory_does_not_take(
    default_run: TrainedRun, dispatch: Dispatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainer.evaluation import plots

    written(Path("a.png")), written(Path("b.png"), 28)
    original = plots.annotated

    def failing(image: Image.Image, top: Any) -> Image.Image:
        if image.width == SIDE:
            raise MemoryError
        return original(image, top)

    monkeypatch.setattr(plots, "annotated", failing)
    done = dispatch("predict", str(default_run.best), "a.png", "b.png", "-o", "out", "--json")
    assert done.returncode == 1
    first, second = rows_of(done)
    assert "more memory than there is" in first["error"]
    assert "top" in second
    assert [path.name for path in Path("out").glob("[!.]*")] == ["b.png"]


def test_what_systems_leave_in_a_folder_is_passed_over(
    default_run: TrainedRun, dispatch: Dispatch
) -> None:
    Path("in/sub/__MACOSX").mkdir(parents=True)
    rubbish = ("in/Thumbs.db", "in/sub/desktop.ini", "in/sub/Desktop.INI", "in/.DS_Store",
               "in/sub/__MACOSX/x.png")  # fmt: skip
    for name in rubbish:
        Path(name).write_bytes(b"no image")
    written(Path("in/a.png")), written(Path("in/sub/b.png"))
    predict = ("predict", str(default_run.best), "--json", "--top-k=1")
    for words, found in (
        (["in"], ["in/a.png", "in/sub/b.png"]), (["in/*"], ["in/a.png", "in/sub/b.png"]),
        (["in/sub/*"], ["in/sub/b.png"]),
    ):  # fmt: skip
        done = dispatch(*predict, *words)
        assert done.returncode == 0, done.output
        assert [row["file"] for row in rows_of(done)] == found
    Path("in/notes.txt").write_bytes(b"no image")
    other = dispatch(*predict, "in")
    assert other.returncode == 0, other.output
    assert "1 file is no image and is passed over" in other.stderr
    named = dispatch(*predict, "in/a.png", "in/Thumbs.db")  # the twin
    assert named.returncode == 1
    assert "not an image" in named.stdout
    empty = dispatch(*predict, "in/sub/__MACOSX/../../.DS_Store")  # named as well
    assert empty.returncode == 1

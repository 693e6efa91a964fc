"""Files that cannot be decoded, or only with too much memory: each is named with its reason."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.images.decode import read_image
from data.types import DataError
from tests.helpers.decoded import COLOUR, GREY, H, W, read, saved, three


def broken(tmp_path: Path) -> dict[str, tuple[Path, str]]:
    """Name -> file and what is said of it."""
    made: dict[str, tuple[bytes, str]] = {
        "empty.png": (b"", "the file is empty"),
        "text.jpg": (b"These are words.\n", "not an image: it is text"),
        "page.png": (b"<!DOCTYPE html><html></html>", "not an image: it is a web page"),
        "lfs.png": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        "phone.jpg": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "it is a HEIC photograph"),
        "document.jpg": (b"%PDF-1.7\n", "it is a PDF document"),
        "zeros.jpg": (bytes(600), "nothing but zeros"),
        "noise.jpg": (b"\xd1\x02\x93\x88\x00\x17", "not an image, or damaged"),
        "program.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
    }
    for suffix in ("png", "jpg", "gif", "tif", "bmp", "webp", "jp2"):
        whole = saved(tmp_path / f"whole.{suffix}", COLOUR).read_bytes()
        made[f"cut.{suffix}"] = whole[: len(whole) * 6 // 10], "damaged"
    result = {}
    for name, (content, words) in made.items():
        (tmp_path / name).write_bytes(content)
        result[name] = tmp_path / name, words
    result["nan.tif"] = saved(tmp_path / "nan.tif", np.array([[np.nan]], np.float32)), "NaN"
    result["missing.png"] = tmp_path / "missing.png", "No such file"
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    result["loop.png"] = tmp_path / "loop.png", "cannot be read"
    os.mkfifo(tmp_path / "pipe.png")
    result["pipe.png"] = tmp_path / "pipe.png", "not a file"
    result["folder.png"] = tmp_path, "not a file"
    return result


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    for name, (path, words) in broken(tmp_path).items():
        with pytest.raises(DataError) as caught:
            read(path)
        message = str(caught.value)
        assert message.startswith(f"{path}: "), message
        assert words in message.removeprefix(str(path)), (name, message)
        assert len(message.splitlines()) == 1


def test_bombs_are_refused_before_they_are_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = saved(tmp_path / "a.png", GREY)
    for limit in (H * W - 1, H * W // 2 - 1):
        with pytest.raises(DataError, match=r"too large to be decoded.*data\.max_pixels"):
            read_image(file, (3, H, W), H, max_pixels=limit)
    whole = read_image(file, (3, H, W), H, max_pixels=H * W)
    np.testing.assert_array_equal(whole.transpose(1, 2, 0), three(GREY))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)  # Pillow's own limit plays no part
    np.testing.assert_array_equal(read(file), three(GREY))
    assert Image.MAX_IMAGE_PIXELS == 1
    monkeypatch.setattr("data.images.decode.LARGE", H * W - 1)
    np.testing.assert_array_equal(read(file), three(GREY))
    monkeypatch.setattr("data.images.decode.free_bytes", lambda device: 9 * H * W - 1)
    with pytest.raises(DataError, match=r"cannot be read: its .* GB of memory are free"):
        read(file)


@pytest.mark.slow
def test_importing_changes_nothing_of_pillow() -> None:
    code = ("from PIL import Image; n = Image.MAX_IMAGE_PIXELS; import data.images.decode;"
            "assert Image.MAX_IMAGE_PIXELS == n and n")  # fmt: skip
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_strip_that_resizing_would_blow_up_is_refused(tmp_path: Path) -> None:
    file = saved(tmp_path / "a.png", np.zeros((1, 60_000), np.uint8))
    with pytest.raises(DataError, match=r"too long a strip.* Only predict takes it"):
        read_image(file, (1, 224, 224), resize=256)
    assert read_image(file, (1, 224, 224), resize=256, fit="squash").shape == (1, 224, 224)

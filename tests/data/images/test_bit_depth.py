"""TIFFs of every depth: as they are meant, by NumPy on the numbers that were written, or refused in
words; and large ones in little memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import data.images.bit_depth
from data.images.bit_depth import Depth, grey_in_8_bits, to_8_bits
from data.images.decode import read_image
from data.types import DataError
from tests.helpers.tiff_files import PACKED, write_tiff

H, W = 12, 20


def read(path: Path, channels: int = 1, shape: tuple[int, int] = (H, W)) -> np.ndarray:
    """(H, W) of grey, (H, W, 3) of colours; nothing is resized."""
    image = read_image(path, (channels, *shape), resize=min(shape))
    return image[0] if channels == 1 else image.transpose(1, 2, 0)


def numbers(dtype: str, shape: tuple[int, ...] = (H, W)) -> np.ndarray:
    """All over the type's range, its ends included; fractions in 0..1."""
    rng = np.random.default_rng(0)
    if dtype[1] == "f":
        return rng.random(shape).astype(dtype)
    ends = np.iinfo(dtype)
    made = rng.integers(ends.min, ends.max, shape, endpoint=True).astype(dtype)
    made.flat[:2] = ends.min, ends.max
    return made


def stretched(pixels: np.ndarray) -> np.ndarray:
    values = pixels.astype(np.float64)
    return np.rint((values - values.min()) * 255 / (values.max() - values.min()))


GREY = [
    ("<u2", 1, lambda p: p >> 8), (">u2", 1, lambda p: p >> 8),
    ("<u2", 0, lambda p: 255 - (p >> 8)),
    ("<i2", 1, stretched), (">i2", 1, stretched), ("<i4", 1, stretched), (">i4", 1, stretched),
    ("<u4", 1, stretched), ("<u1", 1, lambda p: p), (">u1", 0, lambda p: 255 - p),
    ("<f4", 1, lambda p: np.rint(p * 255.0)), (">f4", 1, lambda p: np.rint(p * 255.0)),
    ("<f4", 0, lambda p: 255 - np.rint(p * 255.0)), (">f4", 0, lambda p: 255 - np.rint(p * 255.0)),
]  # fmt: skip


@pytest.mark.parametrize("compression", [1, PACKED])
@pytest.mark.parametrize(("dtype", "photometric", "expected"), GREY)
def test_grey_is_what_its_numbers_mean(  # type: ignore[no-untyped-def]
    tmp_path: Path, dtype: str, photometric: int, expected, compression: int
) -> None:
    pixels = numbers(dtype)
    file = write_tiff(
        tmp_path / "a.tif", pixels, photometric, order=dtype[0], compression=compression
    )
    if compression == PACKED and dtype[0] == ">" and dtype[1] in "if":
        assert f"{8 * pixels.itemsize}-bit numbers with a sign or fractions" in refused(file)
        # The reason: Pillow swaps the bytes twice. Once it does not, these can be read.
        assert not np.array_equal(np.asarray(Image.open(file)), pixels)
        return
    np.testing.assert_array_equal(read(file), expected(pixels))
    three = np.repeat(expected(pixels)[..., None], 3, axis=2)
    np.testing.assert_array_equal(read(file, channels=3), three)


def test_by_hand(tmp_path: Path) -> None:
    """0 is white: 0 becomes 255. 4,000,000,000 is the greatest here, and no number below 0."""
    white = write_tiff(tmp_path / "w.tif", np.array([[0, 256, 65535]], "<u2"), 0)
    assert read(white, shape=(1, 3)).tolist() == [[255, 254, 0]]
    black = write_tiff(tmp_path / "b.tif", np.array([[0, 256, 65535]], "<u2"), 1)
    assert read(black, shape=(1, 3)).tolist() == [[0, 1, 255]]
    large = write_tiff(tmp_path / "l.tif", np.array([[0, 2 * 10**9, 4 * 10**9]], "<u4"))
    assert read(large, shape=(1, 3)).tolist() == [[0, 128, 255]]
    small = write_tiff(tmp_path / "s.tif", np.array([[0, 256, 65535]], "<u4"))
    assert read(small, shape=(1, 3)).tolist() == [[0, 1, 255]]


def test_12_bits_fill_the_range(tmp_path: Path) -> None:
    """Three bytes hold two numbers: 0xFFF and 0x80F, then 0 and 0x010."""
    content = bytes([0xFF, 0xF8, 0x0F, 0x00, 0x00, 0x10])
    file = write_tiff(tmp_path / "a.tif", np.zeros((1, 4), "<u2"), num_bits=12, content=content)
    assert read(file, shape=(1, 4)).tolist() == [[0xFF, 0x80, 0, 1]]


@pytest.mark.parametrize("order", ["<", ">"])
def test_channels_in_planes_are_right_or_refused(tmp_path: Path, order: str) -> None:
    deep, plain = numbers(f"{order}u2", (H, W, 3)), numbers("u1", (H, W, 3))
    packed = write_tiff(tmp_path / "p.tif", deep, 2, planar=True, compression=PACKED)
    np.testing.assert_array_equal(read(packed, channels=3), deep >> 8)
    mixed = write_tiff(tmp_path / "m.tif", deep, 2)
    np.testing.assert_array_equal(read(mixed, channels=3), deep >> 8)
    eight = write_tiff(tmp_path / "e.tif", plain, 2, planar=True, order=order)
    np.testing.assert_array_equal(read(eight, channels=3), plain)
    unpacked = write_tiff(tmp_path / "u.tif", deep, 2, planar=True)
    assert "16-bit numbers" in refused(unpacked)
    assert "each channel in a plane of its own" in refused(unpacked)
    for compression in (1, PACKED):
        grey_alpha = write_tiff(
            tmp_path / "a.tif",
            plain[..., :2],
            extra=[2],
            planar=True,
            compression=compression,
            order=order,
        )
        assert "each channel in a plane of its own" in refused(grey_alpha)


def test_transparent_grey_lies_on_black(tmp_path: Path) -> None:
    """Alpha of kind 2 is to be multiplied with the colour, of kind 1 it has been already."""
    grey, alpha = np.array([[200, 90, 0, 255]]), np.array([[255, 128, 77, 51]])
    expected = np.rint(grey * alpha / 255)
    for kind, stored in ((2, grey), (1, expected)):
        pixels = np.dstack([stored, alpha]).astype("u1")
        file = write_tiff(tmp_path / f"{kind}.tif", pixels, extra=[kind])
        assert np.abs(read(file, shape=(1, 4)) - expected).max() <= 1


def refused(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: "), message
    assert "a TIFF" in message
    assert "which is not read; save it as a " in message
    assert message.endswith("PNG of 8 or 16 bits.")
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("dtype", "channels", "photometric", "words"),
    [
        ("i1", 1, 1, "8-bit numbers with a sign"), ("i1", 3, 2, "of a kind"), ("f8", 1, 1, "kind"),
        ("f4", 3, 2, "of a kind"), ("f2", 1, 1, "of a kind"), ("u4", 3, 2, "of a kind"),
        ("u4", 1, 0, "of a kind"), ("i2", 1, 0, "of a kind"), ("u8", 1, 1, "of a kind"),
        ("c8", 1, 1, "of a kind"), ("u2", 1, 32803, "of a kind"), ("u1", 1, 34892, "of a kind"),
    ],
)  # fmt: skip
def test_what_is_not_read_is_refused(
    tmp_path: Path, order: str, dtype: str, channels: int, photometric: int, words: str
) -> None:
    shape = (H, W, channels) if channels > 1 else (H, W)
    file = write_tiff(tmp_path / "a.tif", np.zeros(shape, order + dtype), photometric, order=order)
    assert words in refused(file)


def test_big_endian_kinds_that_are_not_read(tmp_path: Path) -> None:
    for name, pixels, photometric in (
        ("long", numbers(">u4"), 1), ("white", numbers(">u2"), 0),
    ):  # fmt: skip
        file = write_tiff(tmp_path / f"{name}.tif", pixels, photometric)
        refused(file)
        write_tiff(file, pixels.astype(pixels.dtype.newbyteorder("<")), photometric)  # the twin
        assert read(file).std() > 0


def test_an_unknown_compression_is_refused(tmp_path: Path) -> None:
    refused(write_tiff(tmp_path / "a.tif", numbers("<u2"), compression=34887))


def test_a_damaged_tiff_may_be_called_damaged(tmp_path: Path) -> None:
    """A beginning without its directory; a directory that gives no width."""
    file = write_tiff(tmp_path / "a.tif", numbers("<u1"))
    whole = file.read_bytes()
    read(file)
    width, other = b"\x00\x01\x04\x00", b"\xf0\x00\x04\x00"  # its tag, and one in its stead
    assert whole.count(width) == 1
    for damaged in (whole[:200], whole.replace(width, other)):
        file.write_bytes(damaged)
        assert "damaged" in refused(file)


@pytest.mark.parametrize(
    ("dtype", "depth"),
    [("<u2", Depth()), ("<i4", Depth()), ("<f4", Depth()), ("<u2", Depth(inverted=True))],
)
def test_bands_are_scaled_as_the_whole(
    monkeypatch: pytest.MonkeyPatch, dtype: str, depth: Depth
) -> None:
    """The least and the greatest value lie in other bands than most."""
    pixels = numbers(dtype)
    whole = to_8_bits(pixels)
    monkeypatch.setattr(data.images.bit_depth, "_BAND", 5 * W + 3)  # 5, 5 and 2 rows
    found = np.asarray(grey_in_8_bits(Image.fromarray(pixels), depth))
    np.testing.assert_array_equal(found, 255 - whole if depth.inverted else whole)


@pytest.mark.parametrize("place", [0, -1])
def test_one_nan_in_any_band_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    monkeypatch.setattr(data.images.bit_depth, "_BAND", W)
    pixels = numbers("<f4")
    file = write_tiff(tmp_path / "a.tif", pixels)
    read(file)
    pixels.flat[place] = np.nan
    with pytest.raises(DataError, match="NaN or infinite"):
        read(write_tiff(file, pixels))


@pytest.mark.parametrize("dtype", ["<u2", "<f4", "<i4"])
def test_a_large_image_takes_less_than_its_own_memory_beside_it(tmp_path: Path, dtype: str) -> None:
    """In Python and NumPy, where copies in float64 took twelve times as much."""
    pixels = np.tile(numbers(dtype, (1, 4000)), (6000, 1))
    file = write_tiff(tmp_path / "a.tif", pixels)
    tracemalloc.start()
    small = read(file, shape=(64, 64))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert small.std() > 0
    assert peak < pixels.nbytes

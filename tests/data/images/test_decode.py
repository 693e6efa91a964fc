"""Every kind of image file has one outcome, worked out here without Pillow's conversions."""

from __future__ import annotations

import struct
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import functional as TF

from data.images.bit_depth import to_8_bits
from data.images.decode import read_image
from tests.helpers.decoded import COLOUR, GREY, H, W, read, saved, three

ALPHA = COLOUR[..., 1]


def mode_of(file: Path) -> str:
    with Image.open(file) as image:
        return image.mode


def luma(colour: np.ndarray) -> np.ndarray:
    """ITU-R BT.601, section 2.5.1."""
    return colour.astype(float) @ [0.299, 0.587, 0.114]


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "ppm", "webp"])
def test_colour_is_taken_as_it_is(tmp_path: Path, suffix: str) -> None:
    options = {"lossless": True} if suffix == "webp" else {}
    np.testing.assert_array_equal(read(saved(tmp_path / f"a.{suffix}", COLOUR, **options)), COLOUR)


def test_the_content_counts_and_not_the_suffix(tmp_path: Path) -> None:
    file = saved(tmp_path / "a.png", COLOUR).rename(tmp_path / "a.jpg")
    np.testing.assert_array_equal(read(file), COLOUR)


def test_grey_is_repeated_and_colour_becomes_grey(tmp_path: Path) -> None:
    grey, colour = saved(tmp_path / "g.png", GREY), saved(tmp_path / "c.png", COLOUR)
    np.testing.assert_array_equal(read(grey), three(GREY))
    np.testing.assert_array_equal(read(grey, channels=1)[..., 0], GREY)
    assert np.abs(read(colour, channels=1)[..., 0] - luma(COLOUR)).max() <= 0.51


def test_transparent_parts_lie_on_black(tmp_path: Path) -> None:
    rgba = saved(tmp_path / "rgba.png", np.dstack([COLOUR, ALPHA]))
    expected = COLOUR * (ALPHA[..., None] / 255)
    assert np.abs(read(rgba) - expected).max() <= 0.51
    assert np.abs(read(rgba, channels=1)[..., 0] - luma(expected)).max() <= 1.01
    grey_alpha = saved(tmp_path / "la.png", np.dstack([GREY, ALPHA]))
    assert np.abs(read(grey_alpha) - three(GREY * (ALPHA / 255))).max() <= 0.51


def test_what_would_vanish_lies_on_the_opposite(tmp_path: Path) -> None:
    """Black lines on nothing: on white. White ones: on black. With predict's --invert, which asks
    for white, the other way round."""
    alpha = np.zeros((H, W), np.uint8)
    alpha[::3], alpha[1::3] = 255, 100
    for value, background, behind in (
        (0, 0, 255), (20, 0, 255), (60, 0, 0), (255, 0, 0), (255, 255, 0), (0, 255, 255),
    ):  # fmt: skip
        file = saved(tmp_path / "a.png", np.dstack([np.full((H, W, 3), value, np.uint8), alpha]))
        found = read_image(file, (1, H, W), H, background=background)[0]
        expected = (alpha * float(value) + (255.0 - alpha) * behind) / 255
        assert np.abs(found - expected).max() <= 1, (value, background)
    nothing = saved(tmp_path / "n.png", np.zeros((H, W, 4), np.uint8))
    assert (read(nothing) == 0).all()


def test_one_transparent_colour(tmp_path: Path) -> None:
    file = saved(tmp_path / "a.png", COLOUR, transparency=tuple(COLOUR[3, 4].tolist()))
    expected = COLOUR.copy()
    expected[(COLOUR[3, 4] == COLOUR).all(axis=2)] = 0
    np.testing.assert_array_equal(read(file), expected)


@pytest.mark.parametrize("transparency", [None, 2, bytes([255, 128, 0, 255])])
def test_palettes(tmp_path: Path, transparency: int | bytes | None) -> None:
    colours = np.array([[255, 0, 0], [0, 200, 0], [0, 0, 90], [10, 20, 30]], np.uint8)
    index = (np.arange(H * W, dtype=np.uint8) % 4).reshape(H, W)
    image = Image.frombytes("P", (W, H), index.tobytes())
    image.putpalette(colours.tobytes())
    options = {} if transparency is None else {"transparency": transparency}
    image.save(tmp_path / "a.png", **options)
    alpha = np.full(4, 255.0)
    if transparency is not None:
        alpha = np.array(list(transparency) if isinstance(transparency, bytes)
                         else [255, 255, 0, 255])  # fmt: skip
    expected = (colours * alpha[:, None] / 255)[index]
    assert np.abs(read(tmp_path / "a.png") - expected).max() <= 0.51


def test_one_bit(tmp_path: Path) -> None:
    bits = GREY > 127
    file = saved(tmp_path / "a.png", bits)
    assert mode_of(file) == "1"
    np.testing.assert_array_equal(read(file), three(bits * np.uint8(255)))
    np.testing.assert_array_equal(read(file, channels=1)[..., 0], bits * np.uint8(255))


def test_cmyk_means_what_its_inks_leave(tmp_path: Path) -> None:
    inks = np.random.default_rng(1).integers(0, 256, (H, W, 4), dtype=np.uint8)
    Image.frombytes("CMYK", (W, H), inks.tobytes()).save(tmp_path / "a.tif")
    ink = inks / 255
    expected = 255 * (1 - ink[..., :3]) * (1 - ink[..., 3:])
    assert np.abs(read(tmp_path / "a.tif") - expected).max() <= 1.01
    grey = read(tmp_path / "a.tif", channels=1)[..., 0]
    assert np.abs(grey - luma(expected)).max() <= 1.51


@pytest.mark.parametrize(("suffix", "dtype"), [("png", "<u2"), ("tif", "<u2"), ("tif", ">u2")])
def test_16_bits_keep_the_high_byte(tmp_path: Path, suffix: str, dtype: str) -> None:
    deep = np.random.default_rng(2).integers(0, 65536, (H, W)).astype(dtype)
    file = saved(tmp_path / f"a.{suffix}", deep)
    assert mode_of(file).startswith("I")
    np.testing.assert_array_equal(read(file, channels=1)[..., 0], deep >> 8)
    np.testing.assert_array_equal(read(file), three((deep >> 8).astype(np.uint8)))


def test_16_bits_a_colour_keep_the_high_byte(tmp_path: Path) -> None:
    deep = np.random.default_rng(3).integers(0, 65536, (H, W, 3)).astype(">u2")
    lines = b"".join(b"\0" + line.tobytes() for line in deep)
    chunks = {b"IHDR": struct.pack(">IIBBBBB", W, H, 16, 2, 0, 0, 0), b"IDAT": zlib.compress(lines),
              b"IEND": b""}  # fmt: skip
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks.items()
    ))  # fmt: skip
    np.testing.assert_array_equal(read(tmp_path / "a.png"), deep >> 8)


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 1.2, 254.8]], np.float32), [0, 1, 255]),
        (np.array([[-1.0, 0.0, 3.0]], np.float32), [0, 64, 255]),
        (np.array([[-7.0, -7.0]], np.float32), [0, 0]),
        (np.array([[0, 256, 65535]], np.int32), [0, 1, 255]),
        (np.array([[0, 100_000, 200_000]], np.int32), [0, 128, 255]),
    ],
)
def test_deep_pixels_are_scaled_by_their_range(
    tmp_path: Path, pixels: np.ndarray, expected: list[int]
) -> None:
    assert to_8_bits(pixels).tolist() == [expected]
    file = saved(tmp_path / "a.tif", pixels)
    assert read(file, 1, 1, len(expected))[0, :, 0].tolist() == expected


def test_exif_turns_images_upright(tmp_path: Path) -> None:
    """EXIF 2.3, tag 0x0112: what the stored image needs to be looked at."""
    needed = {1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud,
              5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a, -1),
              7: lambda a: np.rot90(a.swapaxes(0, 1), 2), 8: np.rot90}  # fmt: skip
    for orientation, upright in needed.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        file = saved(tmp_path / f"{orientation}.png", COLOUR, exif=exif)
        expected = upright(COLOUR)
        np.testing.assert_array_equal(read(file, 3, *expected.shape[:2]), expected)


def test_damaged_exif_harms_nothing(tmp_path: Path) -> None:
    file = saved(tmp_path / "a.png", COLOUR, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")
    np.testing.assert_array_equal(read(file), COLOUR)


def test_threads_that_read_at_a_time_leave_the_filters_of_warnings_alone(tmp_path: Path) -> None:
    """Here every warning is an error: none gets through, and afterwards each does again."""
    exif = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"
    files = [saved(tmp_path / f"{i}.png", COLOUR, exif=exif) for i in range(8)]
    before = list(warnings.filters)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            images = list(pool.map(read, files * 40))
    finally:
        sys.setswitchinterval(interval)
    assert all(np.array_equal(image, COLOUR) for image in images)
    assert warnings.filters == before
    with pytest.raises(UserWarning):
        warnings.warn("still heard", stacklevel=1)


def test_animations_give_their_first_image(tmp_path: Path) -> None:
    first, second = (Image.fromarray(np.full((H, W), v, np.uint8)) for v in (40, 200))
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    assert (read(tmp_path / "a.gif") == 40).all()


@pytest.mark.parametrize(
    ("size", "shape", "resize"),
    [
        ((33, 50), (3, 24, 24), 28),
        ((50, 33), (3, 24, 24), 28),
        ((9, 10), (3, 24, 24), 28),
        ((61, 60), (1, 24, 20), 28),
        ((24, 100), (3, 24, 24), 24),
    ],
)
def test_other_sizes_are_resized_and_cropped_as_torchvision_does(
    tmp_path: Path, size: tuple[int, int], shape: tuple[int, int, int], resize: int
) -> None:
    pixels = np.random.default_rng(4).integers(0, 256, (*size, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).convert("L" if shape[0] == 1 else "RGB")
    image.save(tmp_path / "a.png")
    theirs = TF.center_crop(TF.resize(image, resize), list(shape[1:]))
    ours = read_image(tmp_path / "a.png", shape, resize)
    np.testing.assert_array_equal(
        ours, np.asarray(theirs).reshape(*shape[1:], -1).transpose(2, 0, 1)
    )
    squashed = read_image(tmp_path / "a.png", shape, resize, fit="squash")
    theirs = TF.resize(image, list(shape[1:]))
    # As a set's images are resized, which rounds once; Pillow rounds after each side.
    np.testing.assert_allclose(
        squashed.astype(int), np.asarray(theirs).reshape(*shape[1:], -1).transpose(2, 0, 1), atol=1
    )
    assert not np.array_equal(ours, squashed)


def test_the_crop_is_covered_where_resize_is_too_small_for_it(tmp_path: Path) -> None:
    file = saved(tmp_path / "a.png", np.full((30, 30), 200, np.uint8))
    assert (read_image(file, (1, 16, 40), resize=16) == 200).all()


def test_half_transparency_does_not_bleed_in_resizing(tmp_path: Path) -> None:
    """White beside invisible red: composited first, no red can come up at the edge."""
    rgba = np.zeros((32, 32, 4), np.uint8)
    rgba[:, :16], rgba[:, 16:] = (255, 255, 255, 255), (255, 0, 0, 0)
    red, green, _ = read_image(saved(tmp_path / "a.png", rgba), (3, 9, 9), resize=9)
    np.testing.assert_array_equal(red, green)

"""What stands beside the pixels never makes an image unreadable, and EXIF's orientation alone
changes it. What is wrong with the pixels still is damage."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from data.images.decode import read_image
from data.images.metadata import exif_of, orientation_of
from data.types import DataError

H, W = 12, 20
COLOUR = np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)


def exif(*entries: tuple[int, int, int, bytes], after: bytes = b"", order: str = "<") -> bytes:
    magic = b"II*\0\x08\0\0\0" if order == "<" else b"MM\0*\0\0\0\x08"
    body = b"".join(struct.pack(order + "HHI", *entry[:3]) + entry[3] for entry in entries)
    return b"Exif\0\0" + magic + struct.pack(order + "H", len(entries)) + body + bytes(4) + after


UPRIGHT = (0x112, 3, 1, b"\6\0\0\0")
SIDE_DATA = {
    "negative rational": exif((0x100, 8, 1, struct.pack("<hH", -5, 0)), UPRIGHT,
                              (0x11A, 10, 1, struct.pack("<I", 50)),
                              after=struct.pack("<ii", -72, -1)),
    "text for a number": exif((0x100, 2, 4, b"abc\0"), UPRIGHT, (0x11A, 3, 1, b"\1\0\0\0")),
    "an offset beyond the end": exif((0x10F, 2, 900, b"\xff\xff\0\0"), UPRIGHT),
    "an unknown kind": exif((0x10F, 99, 1, bytes(4)), UPRIGHT),
    "an enormous count": exif((0x10F, 5, 2**32 - 1, bytes(4)), UPRIGHT),
    "cut off after it": exif(UPRIGHT, (0x11A, 5, 1, bytes(4)))[:-9],
    "a resolution of nothing": exif(UPRIGHT, (0x11A, 5, 1, struct.pack("<I", 40)),
                                    (0x128, 3, 1, b"\2\0\0\0"), after=bytes(16)),
    "a directory in itself": exif(UPRIGHT, (0x8769, 4, 1, struct.pack("<I", 8))),
}  # fmt: skip


def turned() -> np.ndarray:
    return np.rot90(COLOUR, -1)


def read(path: Path, shape: tuple[int, ...] = (W, H)) -> np.ndarray:
    height, width = shape[:2]
    return read_image(path, (3, height, width), min(shape[:2])).transpose(1, 2, 0)


@pytest.mark.parametrize("kind", SIDE_DATA)
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_strange_exif_beside_an_orientation(tmp_path: Path, kind: str, suffix: str) -> None:
    plain = tmp_path / f"plain.{suffix}"
    options = {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(COLOUR).save(plain, **options)
    without = read(plain, (H, W))
    file = tmp_path / f"a.{suffix}"
    Image.fromarray(COLOUR).save(file, exif=SIDE_DATA[kind], **options)
    np.testing.assert_array_equal(read(file), np.rot90(without, -1))


def png_with(*chunks: tuple[bytes, bytes], crc: bool = True, after: bool = False) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(COLOUR).save(buffer, "PNG")
    png = buffer.getvalue()
    at = png.index(b"IEND" if after else b"IDAT") - 4
    made = b"".join(
        struct.pack(">I", len(data)) + name + data
        + struct.pack(">I", zlib.crc32(name + data) ^ (not crc)) for name, data in chunks
    )  # fmt: skip
    return png[:at] + made + png[at:]


LONG = zlib.compress(b"x" * 80_000_000, 9)
CHUNKS = {
    "a long zTXt": (b"zTXt", b"prompt\0\0" + LONG),
    "a long iTXt": (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + LONG),
    "a long tEXt": (b"tEXt", b"workflow\0" + b"{" * 3_000_000),
    "a broken profile": (b"iCCP", b"name\0\7broken"),
    "no zlib in a profile": (b"iCCP", b"name\0\0broken"),
    "an empty profile": (b"iCCP", b""),
    "an unknown way of packing": (b"zTXt", b"a\0\x09broken"),
    "a short gamma": (b"gAMA", b"\0"),
    "a short resolution": (b"pHYs", b"\0"),
    "short whites": (b"cHRM", b"\0\0"),
    "an animation of nothing": (b"acTL", b""),
    "a frame out of order": (b"fcTL", bytes(26)),
    "broken EXIF": (b"eXIf", b"MM\0*\0\0\0\x08\xff\xff"),
    "what nobody knows": (b"zzZz", b"any"),
}


@pytest.mark.parametrize("crc", [True, False])
@pytest.mark.parametrize("after", [True, False])
@pytest.mark.parametrize("kind", CHUNKS)
def test_chunks_beside_the_pixels(tmp_path: Path, kind: str, crc: bool, after: bool) -> None:
    (tmp_path / "a.png").write_bytes(png_with(CHUNKS[kind], crc=crc, after=after))
    np.testing.assert_array_equal(read(tmp_path / "a.png", (H, W)), COLOUR)


def test_transparency_is_no_side_data(tmp_path: Path) -> None:
    colour = COLOUR[3, 4].astype(">u2").tobytes()
    (tmp_path / "a.png").write_bytes(png_with((b"tRNS", colour)))
    expected = COLOUR.copy()
    expected[(COLOUR[3, 4] == COLOUR).all(axis=2)] = 0
    np.testing.assert_array_equal(read(tmp_path / "a.png", (H, W)), expected)


@pytest.mark.parametrize("way", ["eXIf", "raw profile", "packed profile", "xmp", "packed xmp"])
def test_each_way_to_say_the_orientation_in_a_png(tmp_path: Path, way: str) -> None:
    raw = exif(UPRIGHT)
    text = b"\nexif\n%8d\n%s\n" % (len(raw), raw.hex().encode())
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    chunk = {
        "eXIf": (b"eXIf", raw[6:]), "raw profile": (b"tEXt", b"Raw profile type exif\0" + text),
        "packed profile": (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text)),
        "xmp": (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp),
        "packed xmp": (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(xmp)),
    }[way]  # fmt: skip
    (tmp_path / "a.png").write_bytes(png_with(chunk))
    np.testing.assert_array_equal(read(tmp_path / "a.png"), turned())


def jpeg_with(*segments: tuple[int, bytes], after: bytes = b"", mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(COLOUR).convert(mode).save(buffer, "JPEG")
    jpeg = buffer.getvalue()
    made = b"".join(b"\xff" + bytes([m]) + struct.pack(">H", len(d) + 2) + d for m, d in segments)
    return jpeg[:2] + made + jpeg[2:] + after


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize(
    "segments",
    [
        [(0xE2, b"ICC_PROFILE\0\1\5broken")], [(0xE2, b"MPF\0broken")], [(0xFE, b"a" * 65_000)],
        [(0xED, b"Photoshop 3.0\0" + b"8BIM\x03\xed\0\0\0\0\0\2ab")], [(0xE1, b"Exif\0\0")],
        [(0xE1, b"http://ns.adobe.com/xap/1.0/\0<<<")], [(0xE3, b""), (0xEF, b"any")],
    ],
)  # fmt: skip
def test_segments_beside_the_pixels(
    tmp_path: Path, segments: list[tuple[int, bytes]], mode: str
) -> None:
    plain = tmp_path / "plain.jpg"
    plain.write_bytes(jpeg_with(mode=mode))
    with Image.open(plain) as image:
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(read(plain, (H, W)), expected)
    for after in (b"", b"\0" * 5000, b"MotionPhoto_Data" + plain.read_bytes()):
        (tmp_path / "a.jpg").write_bytes(jpeg_with(*segments, after=after, mode=mode))
        np.testing.assert_array_equal(read(tmp_path / "a.jpg", (H, W)), expected)


def test_of_several_images_in_a_jpeg_the_first_counts(tmp_path: Path) -> None:
    first, second = Image.fromarray(COLOUR), Image.fromarray(255 - COLOUR)
    first.save(tmp_path / "a.mpo", save_all=True, append_images=[second])
    first.save(tmp_path / "a.jpg")
    np.testing.assert_array_equal(
        read(tmp_path / "a.mpo", (H, W)), read(tmp_path / "a.jpg", (H, W))
    )


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_is_turned_once_and_its_other_tags_do_not_matter(
    tmp_path: Path, orientation: int
) -> None:
    tags = {0x112: orientation, 0x8769: 2**31}  # its EXIF would lie far behind the end
    for name, extra in (("plain", {0x112: orientation}), ("odd", tags)):
        Image.fromarray(COLOUR).save(tmp_path / f"{name}.tif", tiffinfo=extra)
    Image.fromarray(COLOUR).save(tmp_path / "a.png", exif=exif_of(orientation))
    shape = (W, H) if orientation > 4 else (H, W)
    expected = read(tmp_path / "a.png", shape)
    for name in ("plain", "odd"):
        np.testing.assert_array_equal(read(tmp_path / f"{name}.tif", shape), expected)


def test_orientation_by_hand() -> None:
    assert orientation_of(exif(UPRIGHT)) == 6
    assert orientation_of(exif((0x112, 3, 1, b"\0\3\0\0"), order=">")) == 3
    assert orientation_of(exif((0x112, 4, 1, b"\x08\0\0\0"))) == 8
    wrong, text = exif((0x112, 3, 1, b"\x09\0\0\0")), exif((0x112, 2, 4, b"abc\0"))
    for nothing in (b"", b"Exif\0\0", exif(), wrong, text, exif(UPRIGHT)[:20]):
        assert orientation_of(nothing) == 1


def cut(content: bytes) -> bytes:
    return content[: len(content) * 2 // 3]


def flipped(name: bytes) -> Callable[[bytes], bytes]:
    def flip(content: bytes) -> bytes:
        at = content.index(name) + 5
        return content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :]

    return flip


@pytest.mark.parametrize("damage", [cut, flipped(b"IDAT"), flipped(b"IHDR"), flipped(b"tRNS")])
def test_damaged_pixels_are_damage(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("a", "b", zip=True)
    buffer = io.BytesIO()
    Image.fromarray(COLOUR).save(buffer, "PNG", pnginfo=info, transparency=(1, 2, 3))
    sound = buffer.getvalue()
    (tmp_path / "a.png").write_bytes(sound)
    np.testing.assert_array_equal(read(tmp_path / "a.png", (H, W)), COLOUR)
    (tmp_path / "a.png").write_bytes(damage(sound))
    with pytest.raises(DataError, match=r"damaged|not an image"):
        read(tmp_path / "a.png", (H, W))


def test_a_cut_jpeg_is_damage_whatever_stands_before(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(cut(jpeg_with((0xE1, exif(UPRIGHT)))))
    with pytest.raises(DataError, match="damaged or cut off"):
        read(tmp_path / "a.jpg", (H, W))

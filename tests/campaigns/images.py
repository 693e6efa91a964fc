"""Mutated images of every format and mutated IDX files: the pixels that Pillow or the format gives,
or an error; never others, never a crash, never much memory.

    python -m tests.campaigns.images [MINUTES] [SEED]

Each turn writes a small image in each format (and IDX files, plain and gzipped), damages it (bytes
flipped, removed, repeated; cut off) and reads it in this process as a training does. What is read
is compared with what Pillow alone reads of the same bytes, that of an IDX file with a parser of its
own. That the program refuses what Pillow reads is allowed, and counted. A file that kills the
process ends the campaign: it lies in the folder that is named at the start.
"""

from __future__ import annotations

import gzip
import io
import math
import random
import resource
import struct
import sys
import tempfile
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from data.idx import read_idx
from data.images.decode import FORMATS, read_image
from data.types import DataError

H, W = 24, 36
Make = Callable[[np.random.Generator], bytes]


def saved(kind: str, mode: str, **options: object) -> Make:
    def make(rng: np.random.Generator) -> bytes:
        smooth = np.add.outer(np.arange(H) * 5, np.arange(W) * 3)[..., None]
        pixels = (smooth + rng.integers(0, 60, (H, W, 4))).astype(np.uint8)
        if mode == "I;16":
            image = Image.fromarray((pixels[..., 0].astype("u2") << 8) | pixels[..., 1])
        else:
            image = Image.fromarray(pixels, "RGBA").convert(mode)
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        return buffer.getvalue()

    return make


FILES: dict[str, Make] = {
    "png": saved("PNG", "RGB"), "png grey": saved("PNG", "L"), "png palette": saved("PNG", "P"),
    "png alpha": saved("PNG", "RGBA"), "png 16": saved("PNG", "I;16"),
    "jpeg": saved("JPEG", "RGB"), "jpeg grey": saved("JPEG", "L"),
    "jpeg progressive": saved("JPEG", "RGB", progressive=True), "jpeg cmyk": saved("JPEG", "CMYK"),
    "gif": saved("GIF", "P"), "bmp": saved("BMP", "RGB"), "ppm": saved("PPM", "RGB"),
    "webp": saved("WEBP", "RGB"), "webp lossless": saved("WEBP", "RGBA", lossless=True),
    "tiff": saved("TIFF", "RGB"), "tiff packed": saved("TIFF", "RGB", compression="tiff_lzw"),
    "tiff 16": saved("TIFF", "I;16"), "jpeg2000": saved("JPEG2000", "RGB"),
    "avif": saved("AVIF", "RGB"),
}  # fmt: skip


def idx(rng: np.random.Generator) -> bytes:
    shape = tuple(int(n) for n in rng.integers(1, 12, 3))
    content = rng.integers(0, 256, math.prod(shape)).astype(np.uint8).tobytes()
    return struct.pack(">BBBB3I", 0, 0, 8, 3, *shape) + content


def mutated(content: bytes, rng: random.Random) -> bytes:
    out = bytearray(content)
    if rng.random() < 0.15:
        return bytes(out[: rng.randrange(len(out))])
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        at = rng.randrange(len(out)) if rng.random() < 0.6 else rng.randrange(min(100, len(out)))
        kind = rng.randrange(6)
        if kind < 3:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 3:
            out[at : at + 4] = struct.pack(
                rng.choice("<>") + "I", rng.choice((0, 1, 2**31, 2**32 - 1))
            )
        elif kind == 4:
            del out[at : at + rng.choice((1, 4, 40))]
        else:
            out[at:at] = out[at : at + rng.choice((1, 4, 40))]
        if not out:
            break
    return bytes(out)


def by_pillow(content: bytes) -> np.ndarray | None:
    """(3, H, W), where Pillow reads it as plain 8-bit colour or grey; None if it does not, or if
    what becomes of the pixels is a rule of ours (alpha, depth, orientation, other sizes)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=FORMATS) as file:
                if file.size != (W, H) or file.mode not in ("RGB", "L", "1", "P"):
                    return None
                file.load()
                if file.has_transparency_data or file.getexif().get(0x112, 1) != 1:
                    return None
                return np.asarray(file.convert("RGB")).transpose(2, 0, 1)
    except Exception:
        return None


def check_image(path: Path, content: bytes) -> str:
    """What came of it. Raises AssertionError for wrong pixels."""
    try:
        ours = read_image(path, (3, H, W), H)
    except DataError as error:
        is_plain = str(error).startswith(f"{path}: ") and len(str(error)) < 600
        return "refused" if is_plain else "refused without its name or at great length"
    assert ours.shape == (3, H, W)
    theirs = by_pillow(content)
    if theirs is None:
        return "read, by a rule of ours"
    assert np.array_equal(ours, theirs), "other pixels than Pillow's"
    return "read as by Pillow"


def check_idx(path: Path, content: bytes) -> str:
    try:
        ours = read_idx(path, 3)
    except DataError:
        return "refused"
    if path.suffix == ".gz":
        unpack = zlib.decompressobj(31)
        content = unpack.decompress(content)
        assert unpack.eof, "gzip without its end"
    shape = struct.unpack(">3I", content[4:16])
    assert content[:4] == b"\0\0\x08\3"
    assert ours.shape == shape
    assert ours.tobytes() == content[16:], "other bytes than the file's"
    return "read"


def main(minutes: float, seed: int) -> int:
    rng, numpy_rng = random.Random(seed), np.random.default_rng(seed)
    folder = Path(tempfile.mkdtemp(prefix="image_campaign_"))
    print(f"files lie in {folder}; {minutes:g} minutes, seed {seed}", flush=True)
    kinds = {**FILES, "idx": idx, "idx gzipped": lambda r: gzip.compress(idx(r), mtime=0)}
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in kinds}
    end, wrong = time.monotonic() + 60 * minutes, 0
    while time.monotonic() < end:
        for kind, make in kinds.items():
            path = folder / ("a.gz" if kind == "idx gzipped" else "a.img")
            content = mutated(make(numpy_rng), rng)
            path.write_bytes(content)
            check = check_idx if kind.startswith("idx") else check_image
            try:
                counts[kind][check(path, content)] += 1
            except Exception as error:  # what is looked for
                wrong += 1
                kept = folder / f"wrong_{wrong}_{kind.replace(' ', '_')}"
                kept.write_bytes(content)
                print(f"{kept}: {type(error).__name__}: {error}", flush=True)
    for kind, counted in counts.items():
        print(f"{kind:<18}", ", ".join(f"{n:,} {what}" for what, n in sorted(counted.items())))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    total = sum(counted.total() for counted in counts.values())
    print(f"{total:,} files, {wrong} wrong outcomes, peak memory {peak:.2f} GB")
    return 1 if wrong else 0


if __name__ == "__main__":
    words = sys.argv[1:]
    sys.exit(main(float(words[0]) if words else 5, int(words[1]) if len(words) > 1 else 0))

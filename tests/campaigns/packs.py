"""Damage packs of images in every way that disks and people have: is it always seen?

    python -m tests.campaigns.packs [--copies 1000] [--seed 0]

After each damage the set is loaded again. Either the pack is made again, or what was damaged is
the same byte for byte; in any case each image is what reading its file gives, and the pack on the
disk is whole again. Nothing else may happen: no wrong pixel, no exception.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import io
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from data.image_folder.pack import packed
from data.image_folder.packing import File, Reading, file_at
from data.images.decode import read_image

SHAPE = (3, 12, 12)
NUM_IMAGES = 24

Damage = Callable[[bytes, bytes, random.Random], bytes]


def flips(pack: bytes, other: bytes, chooser: random.Random) -> bytes:
    damaged = bytearray(pack)
    for _ in range(chooser.randint(1, 4)):
        damaged[chooser.randrange(len(pack))] ^= 1 << chooser.randrange(8)
    return bytes(damaged)


def flips_at_the_end(pack: bytes, other: bytes, chooser: random.Random) -> bytes:
    """In the checksum of the index, its length, or the word that ends a pack."""
    damaged = bytearray(pack)
    damaged[-chooser.randint(1, 48)] ^= 1 << chooser.randrange(8)
    return bytes(damaged)


def cut(pack: bytes, other: bytes, chooser: random.Random) -> bytes:
    return pack[: chooser.randrange(len(pack))]


def tail_of_zeros(pack: bytes, other: bytes, chooser: random.Random) -> bytes:
    kept = chooser.randrange(len(pack) - 1)
    return pack[:kept] + bytes(len(pack) - kept)


def images_swapped(pack: bytes, other: bytes, chooser: random.Random) -> bytes:
    size = int(np.prod(SHAPE))
    a, b = sorted(chooser.sample(range(NUM_IMAGES), 2))
    images = [pack[i * size : (i + 1) * size] for i in range(NUM_IMAGES)]
    images[a], images[b] = images[b], images[a]
    return b"".join(images) + pack[NUM_IMAGES * size :]


def index_of_another(pack: bytes, other: bytes, chooser: random.Random) -> bytes:
    """The images of this pack under the index of another of the same shape, or the reverse."""
    at = NUM_IMAGES * int(np.prod(SHAPE))
    return pack[:at] + other[at:] if chooser.random() < 0.5 else other[:at] + pack[at:]


def another(pack: bytes, other: bytes, chooser: random.Random) -> bytes:
    """The pack of another folder with the same names."""
    return other


def added(pack: bytes, other: bytes, chooser: random.Random) -> bytes:
    at = chooser.randrange(len(pack))
    return pack[:at] + chooser.randbytes(chooser.randint(1, 600)) + pack[at:]


DAMAGES: dict[str, Damage] = {
    "bits flipped": flips,
    "bits flipped in the last bytes": flips_at_the_end,
    "cut off": cut,
    "tail of zeros": tail_of_zeros,
    "two images swapped": images_swapped,
    "the index of another pack": index_of_another,
    "another folder's pack": another,
    "bytes added": added,
}


def write_images(root: Path, seed: int) -> list[File]:
    for i in range(NUM_IMAGES):
        path = root / "ab"[i % 2] / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng([seed, i]).integers(0, 256, (14, 15, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    names = sorted(str(path.relative_to(root)) for path in root.glob("*/*.png"))
    return [file_at(root / name, name, "ab".index(name[0])) for name in names]


def campaign(folder: Path, copies: int, seed: int) -> dict[str, Counter[str]]:
    """How many damaged packs of each kind were made again, or had no damage. Works in `folder`.
    Raises AssertionError with what was wrong."""
    roots = [folder / "one", folder / "other"]
    files = [write_images(root, number) for number, root in enumerate(roots)]
    place = folder / "packs" / "{}x{}x{}.pack".format(*SHAPE)
    contents = []
    for root, own in zip(roots, files, strict=True):
        packed(root, own, Reading(SHAPE), place.parent)
        contents.append(place.read_bytes())
    pack, other = contents
    expected = np.stack([read_image(roots[0] / f.name, SHAPE, resize=12) for f in files[0]])
    found = {name: Counter[str]() for name in DAMAGES}
    for number in range(copies):
        chooser = random.Random(f"{seed} {number}")
        name = list(DAMAGES)[number % len(DAMAGES)]
        damaged = DAMAGES[name](pack, other, chooser)
        place.write_bytes(damaged)
        made = packed(roots[0], files[0], Reading(SHAPE), place.parent)
        assert np.array_equal(made.images.numpy(), expected), f"{name}: wrong pixels"
        assert made.files == files[0], f"{name}: wrong files"
        assert place.read_bytes() == pack, f"{name}: the pack is not whole again"
        found[name]["unharmed" if damaged == pack else "made again"] += 1
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--copies", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stderr(io.StringIO()):
        found = campaign(Path(name), args.copies, args.seed)
    print(f"{datetime.date.today()}: {args.copies} copies, seed {args.seed}, in "
          f"{time.monotonic() - began:.0f} s\n")  # fmt: skip
    print("| damage | made again | harmed nothing | wrong |\n| --- | --- | --- | --- |")
    for kind, ends in found.items():
        print(f"| {kind} | {ends['made again']} | {ends['unharmed']} | 0 |")


if __name__ == "__main__":
    main()

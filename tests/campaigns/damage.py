"""Damage checkpoints in every way that disks, networks and people have: is it always seen?

    python -m tests.campaigns.damage [--copies 500] [--seed 0]

Each copy of a full state or of the best weights is refused with one message that names the file,
or it reads as what was written, bit for bit (a flipped bit in a time stamp of the archive harms
nothing). Nothing else may happen: no wrong tensor, no other exception.
"""

from __future__ import annotations

import argparse
import datetime
import io
import random
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.helpers import processes
from trainer import checkpoints
from trainer.errors import UserError

WORDS = ("data=synthetic", "data.num_train=48", "data.val_size=0.34", "data.num_test=20",
         "data.shape=[1,4,4]", "model.hidden=[8]", "batch_size=8", "epochs=2")  # fmt: skip

Damage = Callable[[bytes, random.Random], bytes]


def cut(content: bytes, chooser: random.Random) -> bytes:
    """The download broke off."""
    return content[: chooser.randrange(len(content))]


def zero_tail(content: bytes, chooser: random.Random) -> bytes:
    """The power failed before the last blocks were on the disk."""
    kept = chooser.randrange(len(content))
    return content[:kept] + bytes(len(content) - kept)


def flips(content: bytes, chooser: random.Random, first: int = 0, last: int | None = None) -> bytes:
    """One to eight bits between two places."""
    damaged = bytearray(content)
    for _ in range(chooser.randint(1, 8)):
        damaged[chooser.randrange(first, last or len(content))] ^= 1 << chooser.randrange(8)
    return bytes(damaged)


def flips_in_pickle(content: bytes, chooser: random.Random) -> bytes:
    first = content.index(b"data.pkl")
    return flips(content, chooser, first, content.index(b"PK\x03\x04", first))


def flips_in_directory(content: bytes, chooser: random.Random) -> bytes:
    """The zip archive's list of its entries."""
    return flips(content, chooser, content.index(b"PK\x01\x02"))


def swapped_blocks(content: bytes, chooser: random.Random) -> bytes:
    size = 512
    one, other = sorted(chooser.sample(range(len(content) // size), 2))
    blocks = [content[at : at + size] for at in range(0, len(content), size)]
    blocks[one], blocks[other] = blocks[other], blocks[one]
    return b"".join(blocks)


def missing_block(content: bytes, chooser: random.Random) -> bytes:
    at = chooser.randrange(len(content) - 512)
    return content[:at] + content[at + 512 :]


def right_sums(content: bytes, chooser: random.Random) -> bytes:
    """Flipped bits inside the entries of an archive that is whole: damaged before it was written,
    or on purpose."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    name = chooser.choice([name for name, part in parts.items() if part])
    if chooser.random() < 0.5:
        name = next(name for name in parts if name.endswith("/data.pkl"))
    parts[name] = flips(parts[name], chooser)
    into = io.BytesIO()
    with zipfile.ZipFile(into, "w", zipfile.ZIP_STORED) as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    return into.getvalue()


def web_page(content: bytes, chooser: random.Random) -> bytes:
    return b"<!DOCTYPE html><html><title>404 Not Found</title></html>" + bytes(chooser.randrange(9))


def lfs_pointer(content: bytes, chooser: random.Random) -> bytes:
    return b"version https://git-lfs.github.com/spec/v1\noid sha256:%064x\n" % chooser.getrandbits(
        9
    )


DAMAGES: dict[str, Damage] = {
    "cut off": cut,
    "tail of zeros": zero_tail,
    "bits flipped anywhere": flips,
    "bits flipped in the description": flips_in_pickle,
    "bits flipped in the archive's directory": flips_in_directory,
    "bits flipped, sums made right": right_sums,
    "blocks swapped": swapped_blocks,
    "a block missing": missing_block,
    "a web page": web_page,
    "a Git LFS pointer": lfs_pointer,
}


def campaign(files: list[Path], copies: int, seed: int) -> dict[str, Counter[str]]:
    """How many copies of each kind of damage were refused, or read as they were written. Works in
    the first file's folder. Raises AssertionError with the copy, which is left there."""
    sound = [(file.read_bytes(), checkpoints.digest(checkpoints.read(file))) for file in files]
    found = {name: Counter[str]() for name in DAMAGES}
    copy = files[0].with_name("damaged.pth")
    for number in range(copies):
        chooser = random.Random(f"{seed} {number}")
        name = list(DAMAGES)[number % len(DAMAGES)]
        content, digest = chooser.choice(sound)
        copy.write_bytes(DAMAGES[name](content, chooser))
        try:
            entries = checkpoints.read(copy)
        except UserError as error:
            message = str(error)
            assert message.startswith(f"{copy}: "), message
            assert "\n" not in message, message
            assert "weights_only" not in message, message
            found[name]["refused"] += 1
        else:
            assert checkpoints.digest(entries) == digest, f"{copy}: {name}: read, and wrong"
            found[name]["unharmed"] += 1
    copy.unlink()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--copies", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        processes.train(Path(name), *WORDS)
        folder = Path(name) / "run" / "checkpoints"
        began = time.monotonic()
        files = [checkpoints.states_in(folder)[-1], folder / "best.pth"]
        found = campaign(files, args.copies, args.seed)
    print(f"{datetime.date.today()}: {args.copies} copies, seed {args.seed}, in "
          f"{time.monotonic() - began:.0f} s\n")  # fmt: skip
    print("| damage | refused | harmed nothing | wrong |\n| --- | --- | --- | --- |")
    for name, ends in found.items():
        print(f"| {name} | {ends['refused']} | {ends['unharmed']} | 0 |")


if __name__ == "__main__":
    main()

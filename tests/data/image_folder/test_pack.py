"""Packed images: made once, noticed when stale, mapped and not copied."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
from collections import Counter
from pathlib import Path

import pytest
import torch

import data.image_folder.pack
import data.image_folder.packing
from data.image_folder.pack import packed
from data.image_folder.pack_file import mapped
from tests.helpers.image_files import as_written, write_image
from tests.helpers.packs import (
    SHAPE,
    Reading,
    check,
    files_of,
    names_in,
    pack_of,
)


def test_images_are_read_once(root: Path, reads: Counter[str]) -> None:
    check(pack_of(root), root)
    assert set(reads.values()) == {1}
    assert len(reads) == 6
    made = as_written(root / ".packed" / "3x8x10.pack")
    assert names_in(root / ".packed") == ["3x8x10.pack"]
    reads.clear()
    check(pack_of(root), root)
    assert not reads
    assert as_written(root / ".packed" / "3x8x10.pack") == made


def test_the_file_is_as_described(root: Path) -> None:
    pack = pack_of(root)
    content = (root / ".packed" / "3x8x10.pack").read_bytes()
    assert content[-8:] == b"trnpack3"
    length = int.from_bytes(content[-16:-8], "little")
    written = content[-48 - length : -48]
    assert content[-48:-16] == hashlib.sha256(written).digest()
    index = json.loads(written)
    images = pack.images.numpy().tobytes()
    assert content[: -48 - length] == images
    assert index["sums"] == [hashlib.sha256(images).hexdigest()]
    assert index["shape"] == [3, 8, 10]
    digests = [hashlib.blake2b((root / file.name).read_bytes(), digest_size=16).hexdigest()
               for file in pack.files]  # fmt: skip
    assert index["files"] == [[*file, d] for file, d in zip(pack.files, digests, strict=True)]


def test_files_that_changed_are_read_again_and_the_others_copied(
    root: Path, reads: Counter[str]
) -> None:
    old = pack_of(root)
    before = old.images.clone()

    def check_reads(*names: str) -> None:
        reads.clear()
        check(pack_of(root), root)
        assert reads == Counter(names)

    write_image(root / "a" / "new.png", seed=100)
    check_reads("new.png")
    write_image(root / "a" / "0.png", seed=101)
    check_reads("0.png")
    os.utime(root / "b" / "1.png", ns=(0, 1_000_000_001))
    check_reads()  # another date, the same content
    (root / "b" / "3.png").unlink()
    check_reads()
    (root / "b" / "5.png").rename(root / "b" / "moved.png")
    check_reads()
    (root / "_").mkdir()  # an earlier class: all labels change, no image does
    write_image(root / "_" / "x.png", seed=102)
    check_reads("x.png")
    check_reads()
    assert torch.equal(old.images, before)  # who has the first one mapped still does


def test_the_order_of_the_files_is_that_of_the_images(root: Path, reads: Counter[str]) -> None:
    images, files = pack_of(root).images, files_of(root)
    reads.clear()
    backwards = packed(root, files[::-1], Reading(SHAPE), root / ".packed")
    assert torch.equal(backwards.images, images.flip(0))
    assert not reads


def test_packs_of_several_shapes_lie_side_by_side(root: Path, reads: Counter[str]) -> None:
    for shape in (SHAPE, (1, 8, 10), (3, 10, 8)):
        check(pack_of(root, shape), root, shape)
    reads.clear()
    for shape in (SHAPE, (1, 8, 10), (3, 10, 8)):
        check(pack_of(root, shape), root, shape)
    assert not reads
    assert names_in(root / ".packed") == ["1x8x10.pack", "3x10x8.pack", "3x8x10.pack"]


def test_packing_is_told_where_no_bar_is(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack_of(root)
    assert capsys.readouterr().err == f"packing 6 images into {root}/.packed/3x8x10.pack\n"
    pack_of(root)
    assert capsys.readouterr().err == ""


def test_without_locks(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    check(pack_of(root), root)
    assert names_in(root / ".packed") == ["3x8x10.pack"]


def test_another_version_reads_all_again(
    root: Path, reads: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pack_of(root)
    monkeypatch.setattr(data.image_folder.packing, "MADE_BY", "1, Pillow 1.1.7")
    reads.clear()
    check(pack_of(root), root)
    assert len(reads) == 6


def test_a_damaged_pack_is_made_again(root: Path) -> None:
    path = root / ".packed" / "3x8x10.pack"
    pack_of(root)
    whole = path.read_bytes()
    length = int.from_bytes(whole[-16:-8], "little")
    for content in (
        b"", b"x", whole[:-1], whole[1:], whole[: len(whole) // 2], whole + b"x", bytes(500),
        b"\xff" * 500, whole[: -48 - length] + b"[" * length + whole[-48:],
        b"[]" + b"\2" + bytes(7),
    ):  # fmt: skip
        path.write_bytes(content)
        check(pack_of(root), root)
        assert path.read_bytes() == whole


def test_what_cannot_be_read_is_noted_until_it_changes(root: Path, reads: Counter[str]) -> None:
    pack_of(root)
    (root / "a" / "2.png").write_bytes(b"no image")
    for _ in range(2):
        pack = pack_of(root)
        assert [(file.name, reason[:12]) for file, reason in pack.bad] == [
            ("a/2.png", "not an image")
        ]
        assert [file.name for file in pack.files] == [
            "a/0.png", "a/4.png", "b/1.png", "b/3.png", "b/5.png"
        ]  # fmt: skip
    assert reads["2.png"] == 2  # once as it was, once as it is
    (root / "a" / "2.png").chmod(0o600)
    pack_of(root)
    assert reads["2.png"] == 2  # no image still
    write_image(root / "a" / "2.png", seed=2)
    check(pack_of(root), root)


def test_nothing_but_bad_files(root: Path) -> None:
    for file in files_of(root):
        (root / file.name).write_bytes(b"")
    for _ in range(2):
        pack = pack_of(root)
        assert pack.images.shape == (0, *SHAPE)
        assert len(pack.bad) == 6


def test_a_map_is_read_only_and_shared(root: Path) -> None:
    pack = pack_of(root)
    lines = Path("/proc/self/maps").read_text().splitlines()
    ours = [line.split()[1] for line in lines if str(root / ".packed" / "3x8x10.pack") in line]
    assert pack.images.numel()
    assert set(ours) == {"r--s"}


def test_more_than_memory_can_be_mapped(tmp_path: Path) -> None:
    """All pages that there are, twice; a private map to write to would be refused."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    count = 2 * total // 2**20 + 1024
    with (tmp_path / "large").open("w+b") as file:
        file.truncate(count * 2**20)  # a hole: no disk is used
        file.seek(-1, os.SEEK_END)
        file.write(b"\7")
        file.flush()
        images = mapped(file, (count, 1, 1024, 1024))
    assert images[-1].sum() == 7

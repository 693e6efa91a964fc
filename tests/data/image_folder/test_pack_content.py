"""Content decides where size and date cannot; and no damaged byte of a pack is used."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import data.image_folder.pack
import data.image_folder.packing
from data.types import Dataset, Split
from tests.campaigns.packs import campaign
from tests.helpers.packs import SHAPE, Reading, check, counting_reads, files_of, pack_of


def times_of(path: Path) -> tuple[int, int]:
    return path.stat().st_atime_ns, path.stat().st_mtime_ns


def write_bitmaps(root: Path) -> list[Path]:
    """All of one size and date."""
    files = []
    for i in range(6):
        path = root / "ab"[i % 2] / f"{i // 2}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (10, 8), (40 * i, 10, 10)).save(path)
        os.utime(path, ns=(10**18, 10**18))
        files.append(path)
    return files


def test_two_class_folders_swapped_by_mv(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write_bitmaps(root)
    before = pack_of(root).images.clone()
    (root / "a").rename(root / "x")
    (root / "b").rename(root / "a")
    (root / "x").rename(root / "b")
    after = pack_of(root)
    assert not torch.equal(after.images, before)
    check(after, root)


@pytest.mark.parametrize("how", ["replaced", "written to", "copied over"])
def test_a_file_replaced_by_another_of_its_size_and_date(tmp_path: Path, how: str) -> None:
    root = tmp_path / "root"
    file = write_bitmaps(root)[0]
    check(pack_of(root), root)
    times, size = times_of(file), file.stat().st_size
    new = tmp_path / "new.bmp"
    Image.new("RGB", (10, 8), (0, 250, 0)).save(new)
    if how == "replaced":
        os.utime(new, ns=times)
        os.replace(new, file)
    elif how == "written to":
        file.write_bytes(new.read_bytes())
    else:
        os.utime(new, ns=times)
        shutil.copy2(new, file)
    os.utime(file, ns=times)
    assert (file.stat().st_size, times_of(file)[1]) == (size, times[1])
    pack = pack_of(root)
    check(pack, root)
    assert pack.images[0, 1].eq(250).all()


def test_what_was_only_touched_or_moved_is_not_decoded_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin: another inode and other times, the same content."""
    pack_of(root)
    reads = counting_reads(monkeypatch)
    for path in sorted(root.glob("*/*.png")):
        copy = path.with_suffix(".new")
        shutil.copy(path, copy)
        os.replace(copy, path)
    (root / "a").rename(root / "c")
    check(pack_of(root), root)
    assert not reads


def test_a_flipped_byte_of_a_pack_is_told_and_all_is_made_again(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = root / ".packed" / "3x8x10.pack"
    pack_of(root)
    whole = path.read_bytes()
    num_pixels = 6 * int(np.prod(SHAPE))
    for place in (0, num_pixels - 1, num_pixels + 5, len(whole) - 41, len(whole) - 12):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        capsys.readouterr()
        check(pack_of(root), root)
        told = capsys.readouterr().err.splitlines()
        assert told[0].startswith(f"{path}: it is damaged")
        assert told[0].endswith("It is made again.")
        assert path.read_bytes() == whole
    pack_of(root)
    assert capsys.readouterr().err == ""  # the twin


def test_the_images_of_one_pack_under_the_index_of_another(root: Path) -> None:
    path = root / ".packed" / "3x8x10.pack"
    pack_of(root)
    whole = path.read_bytes()
    num_pixels = 6 * int(np.prod(SHAPE))
    path.write_bytes(whole[num_pixels // 2 : num_pixels] + whole[: num_pixels // 2]
                     + whole[num_pixels:])  # fmt: skip
    check(pack_of(root), root)
    assert path.read_bytes() == whole


def test_a_pack_of_the_earlier_format_is_made_again(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = root / ".packed" / "3x8x10.pack"
    path.parent.mkdir()
    index = b'{"made_by": "2, Pillow 1", "shape": [3, 8, 10], "files": [], "bad": []}'
    path.write_bytes(index + len(index).to_bytes(8, "little"))
    check(pack_of(root), root)
    assert "an earlier version of this program made it. It is made again." in (
        capsys.readouterr().err
    )


def test_a_file_that_changes_while_it_is_packed_is_looked_at_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = data.image_folder.packing.read_image

    def change(path: Path, *args: object, **options: object) -> np.ndarray:
        found = read(path, *args, **options)  # type: ignore[arg-type]
        if path.name == "3.png":
            Image.new("RGB", (20, 26), (1, 2, 3)).save(path)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(data.image_folder.packing, "read_image", change)
        files = files_of(root)
        data.image_folder.pack.packed(root, files, Reading(SHAPE), root / ".packed")
    check(pack_of(root), root)


@pytest.mark.slow
def test_the_campaign_in_small(tmp_path: Path) -> None:
    found = campaign(tmp_path, copies=120, seed=1)
    assert sum(ends.total() for ends in found.values()) == 120
    assert all(ends["made again"] for ends in found.values())


# Fingerprints


def dataset(images: torch.Tensor) -> Dataset:
    labels = torch.arange(len(images)) % 2
    part = Split(images[:1200], labels[:1200])
    rest = Split(images[1200:], labels[1200:])
    return Dataset(part, rest, rest, ("a", "b"), (0.5,), (0.5,))


def test_one_changed_byte_of_any_image_changes_the_fingerprint() -> None:
    images = torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (1296, 1, 6, 6), dtype=np.uint8)
    )
    expected, sampled = dataset(images).fingerprint, dataset(images).sampled_fingerprint
    unnoticed = 0
    chooser = random.Random(0)
    for _ in range(20):
        changed = images.clone()
        changed[chooser.randrange(1296), 0, chooser.randrange(6), 3] ^= 1
        made = dataset(changed)
        assert made.fingerprint != expected
        assert not made.has_fingerprint(expected)
        unnoticed += made.sampled_fingerprint == sampled
    assert unnoticed > 5  # the twin: so it was before
    same = dataset(images.clone())
    assert same.has_fingerprint(expected)
    assert same.has_fingerprint(sampled)  # as an earlier version's checkpoint has it
    assert not dataset(255 - images).has_fingerprint(sampled)

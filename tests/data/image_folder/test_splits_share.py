"""One pack for all splits of a folder, however they are drawn; nothing is copied out of it."""

from __future__ import annotations

import hashlib
import os
import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

import data.image_folder.pack
import data.image_folder.packing
from data.image_folder.class_folders import find_classes, find_images, find_parts
from data.image_folder.pack_file import mapped
from data.image_folder.split import carved
from data.loading.batches import Batches, own_pictures
from data.types import Dataset, Split
from tests.helpers.batches_parts import CPU, plain, same
from tests.helpers.commands import run_trainer
from tests.helpers.image_files import (
    PARTS,
    as_written,
    images_of,
    load,
    pack_folder,
    read,
    splits_of,
    write_classes,
    write_parts,
)

OTHERS = ({"split_seed": 1}, {"val_size": 0.3}, {"test_size": 0.2, "val_size": 0.2}, {})


def expected_files(root: Path, part: str) -> list[Path]:
    """Of a split, in its order: the class's name, then the file's."""
    folders, _ = find_parts(root)
    classes = find_classes(folders)
    found, _ = find_images(root, folders, classes)
    split_of = carved(found, {"test": 0.1, "val": 0.1}, 0, classes)
    files = [file for own in found.values() for file in own]
    return [root / f.name for f, own in zip(files, split_of, strict=True) if own == part]


@pytest.mark.parametrize("parts", [(), ("train",), ("train", "test"), ("train", "val"), PARTS])
def test_each_split_has_its_own_images_in_their_order(
    tmp_path: Path, parts: tuple[str, ...]
) -> None:
    root = write_parts(tmp_path, *parts) if parts else write_classes(tmp_path)
    made = load(root)
    for part, split in splits_of(made).items():
        files = expected_files(root, part)
        assert torch.equal(images_of(split), torch.stack([read(file) for file in files]))
        assert [made.classes[label] for label in split.labels] == [f.parent.name for f in files]
        # What has a folder of its own is read as it lies; the rest by way of its rows.
        assert (split.rows is None) == (part in parts and (part != "train" or parts == PARTS))


def test_all_splits_share_one_map(tmp_path: Path) -> None:
    made = load(write_classes(tmp_path))
    assert len({s.images.untyped_storage().data_ptr() for s in splits_of(made).values()}) == 1
    rows = torch.cat([split.rows for split in splits_of(made).values() if split.rows is not None])
    assert sorted(rows.tolist()) == list(range(30))
    assert made.num_bytes == made.train.images.nbytes == 30 * 3 * 12 * 16


def test_another_split_reads_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_classes(tmp_path)
    prints = {load(root).fingerprint}
    made = as_written(pack_folder(root) / "3x12x16.pack")
    monkeypatch.setattr(data.image_folder.packing, "read_image", None)
    capsys.readouterr()
    prints |= {load(root, **keys).fingerprint for keys in OTHERS}
    assert as_written(pack_folder(root) / "3x12x16.pack") == made
    assert capsys.readouterr().err == ""
    assert len(prints) == 4  # the twin: they are other splits


def test_a_pack_does_not_depend_on_the_split_that_it_was_made_for(tmp_path: Path) -> None:
    root = write_classes(tmp_path)
    digests = set()
    for keys in OTHERS:
        load(root, **keys)
        digests.add(hashlib.sha256((pack_folder(root) / "3x12x16.pack").read_bytes()).digest())
        (pack_folder(root) / "3x12x16.pack").unlink()
    assert len(digests) == 1


def test_runs_with_other_splits_at_once_share_the_pack(tmp_path: Path) -> None:
    root = write_classes(tmp_path)
    load(root)
    made = as_written(pack_folder(root) / "3x12x16.pack")
    with ThreadPoolExecutor(4) as pool:
        sets: list[Dataset] = list(pool.map(lambda seed: load(root, split_seed=seed), range(12)))
    assert as_written(pack_folder(root) / "3x12x16.pack") == made
    for seed, one in enumerate(sets):
        assert one.fingerprint == load(root, split_seed=seed).fingerprint


@pytest.mark.slow
def test_a_sweep_over_splits_packs_once(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "root")
    done = run_trainer("--multirun", "data=image_folder", f"data.root={root}", "model=mlp",
                       "data.shape=[3,12,12]", "epochs=1", "data.split_seed=0,1,2",
                       cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.output
    assert done.output.count("packing 30 images") == 1


# Batches of such a split


def pair(tmp_path: Path) -> tuple[Split, Split]:
    """A split of 12 images by rows out of a mapped file of 40, and the same by itself."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (40, 3, 6, 6), generator=generator, dtype=torch.uint8)
    np.save(tmp_path / "images.npy", images.numpy())
    mapped = torch.from_numpy(np.load(tmp_path / "images.npy", mmap_mode="r+"))
    rows = torch.randperm(40, generator=generator)[:12]
    labels = torch.arange(12)
    return Split(mapped, labels, rows), Split(images[rows], labels)


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_rows_give_the_bits_of_a_split_by_itself(
    tmp_path: Path, resident: bool, shuffle: bool, num_workers: int
) -> None:
    by_rows, alone = pair(tmp_path)
    assert by_rows.num_bytes == alone.num_bytes == alone.images.nbytes

    def batches(split: Split) -> Batches:
        return Batches(split, 5, plain(3), CPU, shuffle=shuffle, seed=3, resident=resident,
                       num_workers=num_workers)  # fmt: skip

    for epoch, start in ((0, 0), (1, 0), (1, 2)):
        ours, theirs = (batches(split).epoch(epoch, start) for split in (by_rows, alone))
        assert same(ours, theirs)
    assert len(batches(by_rows)) == 3


def test_a_resident_split_on_the_cpu_copies_nothing(tmp_path: Path) -> None:
    by_rows, alone = pair(tmp_path)
    for split in (by_rows, alone):
        batches = Batches(split, 5, plain(3), CPU)
        assert batches.images.data_ptr() == split.images.data_ptr()


def test_another_device_gets_only_the_splits_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_rows, alone = pair(tmp_path)
    monkeypatch.setattr("data.loading.batches._CHUNK", 5)
    assert torch.equal(own_pictures(by_rows, CPU), alone.images)
    assert own_pictures(alone, CPU).data_ptr() == alone.images.data_ptr()
    for split in (by_rows, alone):
        there = Batches(split, 5, plain(3), torch.device("meta"))
        assert (there.images.shape, there.rows) == (alone.images.shape, None)


def test_a_set_larger_than_memory_is_split_without_a_copy(tmp_path: Path) -> None:
    """A hole of twice the memory as the file, of which each split reads some images."""
    total = os.sysconf("SC_PHYS_PAGES") * resource.getpagesize()
    count = 2 * total // 2**20 + 1024
    with (tmp_path / "large").open("w+b") as file:
        file.truncate(count * 2**20)
        images = mapped(file, (count, 1, 1024, 1024))
    every_fifth = torch.arange(0, count, 5)
    split = Split(images, torch.zeros(len(every_fifth), dtype=torch.int64), every_fifth)
    assert split.num_bytes == len(every_fifth) * 2**20
    for resident in (True, False):
        batches = Batches(split, 2, plain(), CPU, shuffle=True, resident=resident)
        inputs, _ = next(iter(batches.epoch()))
        assert inputs.shape == (2, 1, 1024, 1024)

"""Deep grey of a set: one range for all of it, kept with the pack and the checkpoint, the same for
training, evaluate and predict; and what is said of images that show nearly nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.image_folder.pack import packed
from data.images.decode import read_image
from data.images.scaling import range_of_set, scaled
from data.types import DataError
from tests.helpers.commands import TrainedRun, run_trainer, train
from tests.helpers.image_files import load
from tests.helpers.packs import SHAPE, Reading, files_of
from tests.helpers.tiff_files import write_tiff


def test_the_range_by_hand() -> None:
    assert range_of_set([(0, 4000), (7, 3000)]) == (0, 4095)
    assert range_of_set([(0, 200), (0, 31)]) == (0, 255)
    assert range_of_set([(0, 256)]) == (0, 511)
    assert range_of_set([(0, 65535)]) == (0, 65535)
    assert range_of_set([(29_000, 31_000)]) == (29_000, 31_000)  # an eighth of 32,767 is 4,096
    assert range_of_set([(0, 5)]) == (0, 5)
    assert range_of_set([(-5, 4000)]) == (-5, 4000)
    assert range_of_set([(0.0, 0.5), (0.1, 1.0)]) == (0, 1)
    assert range_of_set([(0.0, 200.5)]) == (0, 255)
    assert range_of_set([(0.0, 300.0)]) == (0.0, 300.0)


def test_scaling_by_hand() -> None:
    deep = np.array([[0, 16, 2048, 4095, 9999]], "u2")
    assert scaled(deep, (0, 4095)).tolist() == [[0, 1, 128, 255, 255]]
    assert scaled(deep, (0, 65535)).tolist() == [[0, 0, 8, 15, 39]]
    assert scaled(np.array([[29_000, 30_000, 31_000]], "u2"), (29_000, 31_000)).tolist() == [
        [0, 128, 255]
    ]
    assert scaled(np.array([[-1.0, 0.5, 1.0]], "f4"), (0, 1)).tolist() == [[0, 128, 255]]
    assert scaled(np.array([[7, 7]], "u2"), (7, 7)).tolist() == [[0, 0]]
    assert scaled(np.array([[-5, 4000]], "i4"), (-5, 4000)).tolist() == [[0, 255]]


def write_deep(root: Path, most: int, per_class: int = 30, size: int = 16) -> Path:
    """Two classes: bright on the left or on the right; numbers from 0 to `most` in 16 bits."""
    rng = np.random.default_rng(0)
    for label, name in enumerate("ab"):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(per_class):
            pixels = rng.integers(0, most // 2, (size, size)).astype("u2")
            half = slice(0, size // 2) if label == 0 else slice(size // 2, size)
            pixels[:, half] += np.uint16(most // 2)
            pixels.flat[0] = most if i == 0 else pixels.flat[0]
            Image.fromarray(pixels).save(root / name / f"{i:02}.png")
    return root


@pytest.mark.parametrize(("most", "shift"), [(4095, 4), (255, 0), (65535, 8), (1023, 2)])
def test_each_bit_that_is_used_counts(tmp_path: Path, most: int, shift: int) -> None:
    root = write_deep(tmp_path / "set", most)
    pack = packed(root, files_of(root), Reading((1, 16, 16)), tmp_path / "cache")
    assert pack.scale == (0, max(255, most))
    for file, image in zip(pack.files, pack.images, strict=True):
        deep = np.asarray(Image.open(root / file.name))
        np.testing.assert_array_equal(image[0].numpy(), deep >> shift)
    assert pack.num_flat == 0


def test_what_is_not_deep_is_not_touched_and_order_is_kept(tmp_path: Path) -> None:
    root = write_deep(tmp_path / "set", 4095, per_class=4)
    for i in (1, 3):
        plain = np.random.default_rng(i).integers(0, 256, (16, 16)).astype("u1")
        Image.fromarray(plain).save(root / "a" / f"{i:02}.png")
    (root / "a" / "02.png").write_bytes(b"no image")
    pack = packed(root, files_of(root), Reading((1, 16, 16)), tmp_path / "cache")
    assert [file.name for file, _ in pack.bad] == ["a/02.png"]
    for file, image in zip(pack.files, pack.images, strict=True):
        pixels = np.asarray(Image.open(root / file.name))
        expected = pixels if pixels.dtype == np.uint8 else pixels >> 4
        np.testing.assert_array_equal(image[0].numpy(), expected)
    assert len(pack.deep) == 5


def test_the_pack_is_made_again_where_the_range_changes_and_only_there(tmp_path: Path) -> None:
    root, cache = write_deep(tmp_path / "set", 4095, per_class=4), tmp_path / "cache"

    def pack(**keys: object):  # type: ignore[no-untyped-def]
        return packed(root, files_of(root), Reading((1, 16, 16), **keys), cache)  # type: ignore[arg-type]

    first = pack().images.clone()
    given = pack(pixel_range=(0, 4095))
    assert torch.equal(given.images, first)
    other = pack(pixel_range=(0, 65535))
    assert other.scale == (0, 65535)
    assert torch.equal(other.images, first >> 4)
    assert torch.equal(pack().images, first)
    brighter = np.full((16, 16), 40_000, "u2")
    Image.fromarray(brighter).save(root / "b" / "99.png")
    grown = pack()
    assert grown.scale == (0, 65535)
    assert torch.equal(grown.images[:-1], first >> 4)
    (root / "b" / "99.png").unlink()
    assert torch.equal(pack().images, first)


def test_declared_depths_need_no_set(tmp_path: Path) -> None:
    """A TIFF's MaxSampleValue, a PGM's greatest value."""
    deep = np.random.default_rng(0).integers(0, 900, (12, 20)).astype("u2")
    pgm = tmp_path / "a.pgm"
    pgm.write_bytes(b"P5 20 12 1023 " + deep.astype(">u2").tobytes())
    expected = np.rint(deep * (65535 / 1023)).astype(int) >> 8
    found = read_image(pgm, (1, 12, 20), 12, scale="ask")[0]
    assert np.abs(found - expected).max() <= 1
    tiff = tmp_path / "a.tif"
    Image.fromarray(deep).save(tiff, tiffinfo={281: 1023})
    np.testing.assert_array_equal(read_image(tiff, (1, 12, 20), 12, scale="ask")[0], deep >> 2)
    write_tiff(tiff, deep)
    np.testing.assert_array_equal(read_image(tiff, (1, 12, 20), 12, scale=(0, 4095))[0], deep >> 4)


def test_the_set_says_so(tmp_path: Path) -> None:
    root = write_deep(tmp_path / "set", 4095)
    keys = {"shape": [1, 16, 16], "cache_dir": str(tmp_path / "cache"), "mean": [0.5],
            "std": [0.5]}  # fmt: skip
    made = load(root, **keys)
    assert made.pixel_range == (0, 4095)
    assert any("60 of 60 images are grey of more than 8 bits" in note and "0 to 4,095" in note
               for note in made.notes)  # fmt: skip
    assert not any("nearly one colour" in note for note in made.notes)
    dark = load(root, pixel_range=[0, 65535], **keys)
    assert any("60 of 60 images are nearly one colour" in note for note in dark.notes)
    for wrong in ([5, 5], [7, 1]):
        with pytest.raises(DataError, match=r"data\.pixel_range"):
            load(root, pixel_range=wrong, **keys)


def test_a_limit_of_pixels_can_be_raised(tmp_path: Path) -> None:
    root = write_deep(tmp_path / "set", 255, per_class=4)
    files, folder = files_of(root), tmp_path / "cache"
    small = packed(root, files, Reading(SHAPE, max_pixels=255), folder)
    assert len(small.bad) == 8
    assert "data.max_pixels" in small.bad[0][1]
    assert packed(root, files, Reading(SHAPE, max_pixels=256), folder).bad == []


@pytest.fixture(scope="module")
def deep_run(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """12 bits in 16, trained on."""
    folder = tmp_path_factory.mktemp("deep")
    write_deep(folder / "set", 4095)
    return train(
        folder, "data=image_folder", "data.root=set", "data.shape=[1,16,16]", "data.mean=[0.5]",
        "data.std=[0.3]", "model=mlp", "model.hidden=[16]", "epochs=8", "batch_size=8",
        "tensorboard=false", f"data.cache_dir={folder / 'cache'}",
    )  # fmt: skip


@pytest.mark.slow
def test_training_evaluate_and_predict_see_the_same(deep_run: TrainedRun, tmp_path: Path) -> None:
    """And a set of which the test alone is dark: scaled by itself it would look otherwise."""
    assert deep_run.summary["test_accuracy"] > 0.9, deep_run.command.output
    assert "0 to 4,095" in deep_run.command.output
    entries = torch.load(deep_run.best, weights_only=True)
    assert entries["pixel_range"] == [0, 4095]
    root = deep_run.folder.parent / "set"
    dark = tmp_path / "dark"
    for name in "ab":
        (dark / name).mkdir(parents=True)
        for file in sorted((root / name).iterdir())[1:]:
            pixels = np.asarray(Image.open(file))
            Image.fromarray((pixels // 4).astype("u2")).save(dark / name / file.name)
    for images in (root, dark):
        done = run_trainer("predict", str(deep_run.best), str(images), "--json", cwd=tmp_path)
        assert done.returncode == 0, done.output
        said = {Path(r["file"]).relative_to(images).as_posix(): r["top"][0]
                for r in map(json.loads, done.stdout.splitlines())}  # fmt: skip
        right = np.mean([top["class"] == name.split("/")[0] for name, top in said.items()])
        if images == root:
            assert right > 0.9
            continue
        # The same accuracy as evaluate measures on that folder, whatever it is.
        shutil.rmtree(tmp_path / "train", ignore_errors=True)
        whole = tmp_path / "whole" / "test"
        shutil.copytree(images, whole)
        shutil.copytree(images, tmp_path / "whole" / "train")
        done = run_trainer(
            "evaluate", str(deep_run.best), "data=image_folder", f"data.root={tmp_path / 'whole'}",
            f"data.cache_dir={tmp_path / 'cache'}", "-o", "out", cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.output
        evaluated = json.loads((tmp_path / "out" / "evaluation.json").read_text())
        assert evaluated["accuracy"] == pytest.approx(right, abs=1e-6)
        assert evaluated["data"]["pixel_range"] == [0, 4095]


@pytest.mark.slow
def test_an_older_checkpoint_has_no_range(deep_run: TrainedRun, tmp_path: Path) -> None:
    from trainer import checkpoints

    entries = torch.load(deep_run.best, weights_only=True)
    del entries["pixel_range"]
    old = tmp_path / "old.pth"
    write = getattr(checkpoints, "write", None)
    if write is None:
        pytest.skip("checkpoints cannot be written from Python yet")
    write(old, entries)
    file = next((deep_run.folder.parent / "set" / "a").iterdir())
    done = run_trainer("predict", str(old), str(file), cwd=tmp_path)
    assert done.returncode == 0, done.output

"""evaluate of a folder or another set sees, to the last bit, what predict sees: the checkpoint says
how images come to the model's shape."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from data.image_folder.packing import Reading
from data.images.decode import read_image
from data.preparation import cropped
from data.resizing import to_shape
from data.types import DataError
from tests.helpers.commands import ROOT, Finished, TrainedRun, train
from tests.helpers.image_files import write_classes
from trainer import checkpoints
from trainer.inference import evaluate, evaluation_data

Dispatch = Callable[..., Finished]
QUICK = ("epochs=2", "limit_batches=20", "tensorboard=false", "device=cpu")


def rows_of(done: Finished) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def evaluated(dispatch: Dispatch, path: Path, *words: str) -> dict[str, Any]:
    out = f"out{len(list(Path().glob('out*')))}"
    done = dispatch("evaluate", str(path), *words, "-o", out, "num_threads=1")
    assert done.returncode == 0, done.output
    assert "in predict, it is" not in done.output  # a difference is not told, but gone
    results: dict[str, Any] = json.loads(Path(out, "evaluation.json").read_text())
    return results


def assert_predict_agrees(dispatch: Dispatch, path: Path, folder: Path) -> dict[str, Any]:
    """evaluate of the folder against predict of its files: how many are right, and of each of the
    mistakes which class, and how sure. Returns evaluate's results."""
    found = evaluated(dispatch, path, str(folder))
    done = dispatch("predict", str(path), str(folder), "--json", "--top-k", "1", "num_threads=1")
    assert done.returncode == 0, done.output
    said = {str(Path(row["file"]).relative_to(folder)): row["top"][0] for row in rows_of(done)}
    right = sum(name.partition("/")[0] == top["class"] for name, top in said.items())
    assert found["num_images"] == len(said)
    assert found["accuracy"] == right / len(said)
    assert len(found["mistakes"]) == min(evaluate.NUM_MISTAKES, len(said) - right)
    for one in found["mistakes"]:
        top = said[one["file"]]
        assert top["class"] == one["predicted"]
        assert one["probability"] == pytest.approx(top["probability"], rel=1e-6)
    return found


def seen_in(path: Path, *words: str) -> tuple[torch.Tensor, list[str | None]]:
    """The images that evaluate gives to the model, and their files."""
    entries = checkpoints.read(path)
    values = dict(word.split("=", 1) for word in words)
    config = evaluate.configured(entries, values, flip=False)
    test = evaluation_data.load(config["data"], entries, values).test
    return test.own_images(), [test.file_at(i) for i in range(len(test))]


def write_digits(folder: Path, every: int) -> Path:
    with np.load(ROOT / "data" / "mnist_5k.npz") as file:
        images, labels = file["test_images"], file["test_labels"]
    for i in range(0, len(images), every):
        place = folder / str(labels[i])
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[i]).save(place / f"{i:04}.png")
    return folder


@pytest.mark.slow
def test_a_stretched_set_as_a_folder(tmp_path: Path, dispatch: Dispatch) -> None:
    """All of the test split as files: evaluate of the set, of the folder, and predict are one."""
    run = train(tmp_path, *QUICK, "data.shape=[1,16,28]")
    folder = write_digits(tmp_path / "digits", every=1)
    of_set = evaluated(dispatch, run.best)
    of_folder = assert_predict_agrees(dispatch, run.best, folder)
    assert of_folder["accuracy"] == of_set["accuracy"] > 0.3
    assert of_folder["loss"] == pytest.approx(of_set["loss"], rel=1e-6)
    images, names = seen_in(run.best, "data=image_folder", f"data.root={folder}")
    assert all(name is not None for name in names)
    numbers = [int(Path(str(name)).stem) for name in names]
    assert torch.equal(images, seen_in(run.best)[0][numbers])
    cropped = np.stack([read_image(folder / str(n), (1, 16, 28), 16) for n in names[:20]])
    assert (images[:20].numpy() != cropped).any()  # the twin: a crop shows other pixels


@pytest.mark.slow
def test_another_resize_than_the_side(tmp_path: Path, dispatch: Dispatch) -> None:
    """Trained so, and imported so; evaluated as a folder, and as a set that is stretched in its own
    trainings."""
    own = write_classes(tmp_path / "own", per_class=10)
    run = train(tmp_path, *QUICK, "data=image_folder", f"data.root={own}", "data.shape=[3,12,12]",
                "data.resize=15", "data.val_size=0.2", "data.test_size=0.2")  # fmt: skip
    entries = checkpoints.read(run.best)
    assert (entries["fit"], entries["resize"]) == ("crop", 15)
    other = write_classes(tmp_path / "other", per_class=9)
    assert_predict_agrees(dispatch, run.best, other)
    images, names = seen_in(run.best, "data=image_folder", f"data.root={other}")
    for image, name in zip(images.numpy(), names, strict=True):
        expected = read_image(other / str(name), (3, 12, 12), 15)
        np.testing.assert_array_equal(image, expected)
    assert any(
        (image != read_image(other / str(name), (3, 12, 12), 12)).any()
        for image, name in zip(images.numpy(), names, strict=True)
    )


def imported(dispatch: Dispatch, run: TrainedRun, *words: str) -> Path:
    out = f"imported{len(list(Path().glob('imported*')))}.pth"
    done = dispatch("export", str(run.best), "--format", "state_dict", "-o", "weights.pth")
    assert done.returncode == 0, done.output
    done = dispatch("import-weights", "weights.pth", "--model", "mlp", "data.shape=[1,20,20]",
                    "data.num_classes=10", "-o", out, *words)  # fmt: skip
    assert done.returncode == 0, done.output
    Path("weights.pth").unlink()
    Path("weights.state_dict.json").unlink(missing_ok=True)
    Path("weights.json").unlink(missing_ok=True)
    return Path(out)


@pytest.mark.slow
def test_imported_weights(tmp_path: Path, dispatch: Dispatch) -> None:
    run = train(tmp_path, *QUICK, "data.shape=[1,20,20]")
    folder = write_digits(tmp_path / "digits", every=37)
    seen = []
    for words, fit, resize in (
        (("data.resize=24",), "crop", 24), ((), "crop", 20), (("data.fit=squash",), "squash", 20),
    ):  # fmt: skip
        path = imported(dispatch, run, *words)
        entries = checkpoints.read(path)
        assert (entries["fit"], entries["resize"]) == (fit, resize)
        assert_predict_agrees(dispatch, path, folder)
        images, names = seen_in(path, "data=image_folder", f"data.root={folder}")
        numbers = [int(Path(str(name)).stem) for name in names]
        assert torch.equal(images, seen_in(path, "data=mnist_5k")[0][numbers])
        seen.append(images)
    assert not torch.equal(seen[0], seen[1])
    refused = dispatch("import-weights", "weights.pth", "--model", "mlp", "-o", "x.pth",
                       "data.fit=squash", "data.resize=24")  # fmt: skip
    assert refused.returncode == 2


@pytest.mark.parametrize("key", ["data.fit=crop", "data.resize=30"])
def test_evaluate_has_no_say_in_it(default_run: TrainedRun, dispatch: Dispatch, key: str) -> None:
    done = dispatch("evaluate", str(default_run.best), key)
    assert done.returncode == 2
    assert f"{key}: the checkpoint has fixed it" in done.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("data.resize=30",), "data.resize=30: is for data.fit=crop"),
        (("data.fit=stretch",), "data.fit=stretch"),
        (("data.fit=crop", "data.resize=0"), "data.resize=0"),
    ],
)
def test_wrong_words(tmp_path: Path, words: tuple[str, ...], told: str) -> None:
    from tests.helpers.commands import run_trainer

    done = run_trainer(*QUICK, *words, cwd=tmp_path)
    assert done.returncode == 2, done.output
    assert told in done.stderr


@pytest.mark.parametrize("shape", [(1, 20, 28), (3, 30, 20), (3, 24, 24), (1, 24, 24)])
@pytest.mark.parametrize("own", [1, 3])
def test_a_sets_images_are_cropped_as_files_are(
    tmp_path: Path, shape: tuple[int, int, int], own: int
) -> None:
    images = torch.randint(0, 256, (2, own, 26, 33), dtype=torch.uint8)
    for resize in (min(shape[1:]), 32):
        found = cropped(images, shape, resize)
        for image, ours in zip(images, found, strict=True):
            Image.fromarray(image.permute(1, 2, 0).numpy().squeeze()).save(tmp_path / "x.png")
            expected = read_image(tmp_path / "x.png", shape, resize)
            np.testing.assert_array_equal(ours.numpy(), expected)
        assert not torch.equal(found, to_shape(images, shape))
    with pytest.raises(DataError, match="2 channels"):
        cropped(images.new_zeros(1, 2, 8, 8), shape, 20)


def test_packs_of_each_fit_lie_side_by_side(tmp_path: Path) -> None:
    from data.image_folder.pack import packed
    from tests.helpers.packs import files_of, names_in, write_root

    root, folder = write_root(tmp_path / "own"), tmp_path / "packs"
    shape = (3, 8, 10)
    ways = (Reading(shape), Reading(shape, resize=8), Reading(shape, resize=11),
            Reading(shape, fit="squash"))  # fmt: skip
    for _ in range(2):  # the second time from the packs
        for how in ways:
            images = packed(root, files_of(root), how, folder).images.numpy()
            expected = [how.read(root / file.name) for file in files_of(root)]
            np.testing.assert_array_equal(images, np.stack(expected))  # type: ignore[arg-type]
        assert names_in(folder) == ["3x8x10-crop11.pack", "3x8x10-squash.pack", "3x8x10.pack"]
    (folder / "3x8x10-squash.pack").replace(folder / "3x8x10.pack")  # by hand: not believed
    images = packed(root, files_of(root), ways[0], folder).images.numpy()
    expected = [ways[0].read(root / file.name) for file in files_of(root)]
    np.testing.assert_array_equal(images, np.stack(expected))  # type: ignore[arg-type]

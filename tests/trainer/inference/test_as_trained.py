"""predict sees what evaluate sees, and is as sure: how images come to the model's shape, and what
makes probabilities of its outputs, are in the checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from data.images.decode import read_image
from data.resizing import to_shape
from tests.helpers.commands import Finished, TrainedRun, train
from tests.helpers.image_files import write_classes
from trainer import checkpoints, losses
from trainer.builders import datasets, networks, restore
from trainer.checkpoints import meaning
from trainer.config import stored
from trainer.evaluation.findings import Examiner

Dispatch = Callable[..., Finished]
QUICK = ("epochs=2", "limit_batches=20", "tensorboard=false", "device=cpu")


def original_images(data: Sequence[str]) -> torch.Tensor:
    """The first test images of a set as they are before anything is resized."""
    from hydra import compose, initialize_config_dir

    from trainer.config.knobs import CONFIGS

    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = compose("config", [word for word in data if "shape" not in word])
    return datasets.load_data(dict(config.data)).test.images


def rows_of(done: Finished) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def assert_the_same(run: TrainedRun, folder: Path, dispatch: Dispatch, num: int) -> None:
    """predict on the first `num` test images as files, in order, against the model's outputs on
    the data set itself, and against findings of evaluate."""
    done = dispatch("predict", str(run.best), str(folder), "--json", "--top-k", "10", "device=cpu")
    assert done.returncode == 0, done.output
    entries = checkpoints.read(run.best)
    config = stored.configuration(entries)
    test = datasets.load_data(config["data"]).test
    model = restore.restore(entries, config)
    preprocess = networks.make_preprocess(
        config, model, entries["mean"], entries["std"], torch.device("cpu")
    )
    with torch.no_grad():
        outputs = model(preprocess(test.images_at(torch.arange(num)))).double()
    expected = losses.probabilities(outputs, meaning.probabilities_of(entries, config))
    rows = rows_of(done)
    assert len(rows) == num
    for row, truth in zip(rows, expected, strict=True):
        found = {one["index"]: one["probability"] for one in row["top"]}
        np.testing.assert_allclose([found[k] for k in sorted(found)], truth, rtol=1e-4, atol=1e-6)
    assert [row["top"][0]["index"] for row in rows] == outputs.argmax(1).tolist()


@pytest.mark.parametrize(
    "words",
    [
        ("data.shape=[1,28,56]",),
        ("data.shape=[3,20,28]",),  # grey to colour, and smaller
        ("data.shape=[1,16,40]", "model=lenet5"),  # a model with a smallest side
        pytest.param(("data.shape=[3,40,17]", "model=cifar_net"), marks=pytest.mark.slow),
        ("data=synthetic", "data.num_train=400", "data.num_test=40"),
    ],
    ids=" ".join,
)
@pytest.mark.slow
def test_sets_as_files(tmp_path: Path, dispatch: Dispatch, words: tuple[str, ...]) -> None:
    run = train(tmp_path, *QUICK, *words)
    images = original_images([word for word in words if word.startswith("data")])
    (tmp_path / "files").mkdir()
    for i, image in enumerate(images[:40]):
        Image.fromarray(image[0].numpy()).save(tmp_path / "files" / f"{i:03}.png")
    assert checkpoints.read(run.best)["fit"] == "squash"
    assert_the_same(run, tmp_path / "files", dispatch, 40)


@pytest.mark.slow
def test_own_images_are_cropped_by_both(tmp_path: Path, dispatch: Dispatch) -> None:
    write_classes(tmp_path / "own", per_class=12)
    run = train(tmp_path, *QUICK, "data=image_folder", f"data.root={tmp_path / 'own'}",
                "data.shape=[3,12,20]", "data.val_size=0.2", "data.test_size=0.2")  # fmt: skip
    entries = checkpoints.read(run.best)
    assert entries["fit"] == "crop"
    test = datasets.load_data(stored.configuration(entries)["data"]).test
    (tmp_path / "files").mkdir()
    for i in range(len(test)):
        name = test.file_at(i)
        assert name is not None
        (tmp_path / "files" / f"{i:03}.png").symlink_to(tmp_path / "own" / name)
    assert_the_same(run, tmp_path / "files", dispatch, len(test))
    done = dispatch("evaluate", str(run.best), "-o", "out", "device=cpu")
    assert done.returncode == 0, done.output
    results = json.loads(Path("out/evaluation.json").read_text())
    every = sorted(str(f.relative_to(tmp_path / "own")) for f in (tmp_path / "own").rglob("*.png"))
    for one in results["mistakes"]:
        assert one["file"] in {test.file_at(i) for i in range(len(test))}
        assert one["file"] == every[one["index"]]
        assert one["file"].partition("/")[0] == one["label"]
        if one["index"] == results["mistakes"][0]["index"]:
            assert one["file"] in done.stdout


@pytest.mark.parametrize("size", [(28, 28), (37, 61), (9, 9)])
@pytest.mark.parametrize("shape", [(1, 28, 56), (3, 28, 56), (1, 28, 28), (3, 32, 20)])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_squashed_file_is_a_sets_image_to_the_last_bit(
    tmp_path: Path, size: tuple[int, int], shape: tuple[int, int, int], channels: int
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, channels), dtype=np.uint8)
    Image.fromarray(pixels.squeeze()).save(tmp_path / "x.png")
    expected = to_shape(torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy()), shape)[0]
    found = read_image(tmp_path / "x.png", shape, min(shape[1:]), "squash")
    np.testing.assert_array_equal(found, expected.numpy())
    cropped = read_image(tmp_path / "x.png", shape, min(shape[1:]))
    assert cropped.shape == shape
    if size != shape[1:]:
        assert (cropped != found).any()  # the twin: the two are not the same


def test_fit_by_hand_overrides_and_says_so(
    default_run: TrainedRun, tmp_path: Path, dispatch: Dispatch
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (28, 50), dtype=np.uint8)
    Image.fromarray(pixels).save("wide.png")
    words = ("predict", str(default_run.best), "wide.png", "--json")
    plain, same, other = (
        dispatch(*words, *more) for more in ((), ("--fit", "squash"), ("--fit", "crop"))
    )
    assert plain.stdout == same.stdout != other.stdout
    assert (plain.stderr, same.stderr) == ("", "")
    assert "--fit crop: the model was trained on images that came to its shape by squash" in (
        other.stderr
    )


LOSSES = {
    "loss=cross_entropy": "softmax", "loss=mse": "softmax", "loss=bce": "sigmoid",
    "loss=mse loss.on=logits": "clip",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("words", LOSSES)
def test_probabilities_follow_the_loss(tmp_path: Path, dispatch: Dispatch, words: str) -> None:
    """As many images as it takes to be right nine times of ten; then the calibration error, which
    was 0.74 with a softmax of what is no logit, is small; and predict and findings agree."""
    run = train(tmp_path, "tensorboard=false", "device=cpu", "epochs=8", *words.split())
    entries, how = checkpoints.read(run.best), LOSSES[words]
    assert entries["probabilities"] == how
    done = dispatch("evaluate", str(run.best), "-o", "out", "device=cpu")
    assert done.returncode == 0, done.output
    results = json.loads(Path("out/evaluation.json").read_text())
    assert results["probabilities"] == how
    assert results["accuracy"] > 0.85
    assert results["calibration_error"] < 0.2
    assert ("add up to 1" in done.stdout) is (how != "softmax")
    findings = json.loads((run.folder / "findings.json").read_text())["test"]
    assert findings["calibration_error"] == pytest.approx(results["calibration_error"], abs=1e-5)
    first, again = findings["mistakes"][0], results["mistakes"][0]
    assert first["probability"] == pytest.approx(again["probability"], abs=1e-5)

    images = original_images([])
    (tmp_path / "files").mkdir()
    for i, image in enumerate(images[:20]):
        Image.fromarray(image[0].numpy()).save(tmp_path / "files" / f"{i:03}.png")
    assert_the_same(run, tmp_path / "files", dispatch, 20)
    said = dispatch("predict", str(run.best), "files/000.png", "--json")
    assert ("add up to 1" in said.stderr) is (how != "softmax")
    assert len(said.stdout.splitlines()) == 1


def test_older_checkpoints_say_it_by_their_configuration(default_run: TrainedRun) -> None:
    config = yaml.safe_load(checkpoints.read(default_run.best)["config"])
    assert (meaning.fit_of({}, config), meaning.probabilities_of({}, config)) == (
        "squash", "softmax"
    )  # fmt: skip
    for target, fit in (
        ("data.cifar.load_cifar10", "squash"), ("data.image_folder.load_image_folder", "crop"),
        ("my_data.load", "crop"),
    ):  # fmt: skip
        assert meaning.fit_of({}, {"data": {"_target_": target}}) == fit
    assert meaning.fit_of({}, {"data": {"shape": [3, 224, 224]}}) == "crop"
    assert meaning.fit_of({"fit": "squash"}, {"data": {}}) == "squash"
    for loss, on, how in (
        ("BCE", None, "sigmoid"), ("MSE", "logits", "clip"), ("L1", "logits", "clip"),
        ("MSE", "probabilities", "softmax"), ("CrossEntropy", None, "softmax"),
    ):  # fmt: skip
        options = {"_target_": f"trainer.losses.{loss}", **({"on": on} if on else {})}
        assert meaning.probabilities_of({}, {"loss": options}) == how
        made = getattr(losses, loss)(**({"on": on} if on else {}))
        assert made.probabilities == how  # what a checkpoint of today would say


def test_what_the_examiner_collects() -> None:
    outputs = torch.tensor([[1.3, 1.1, -0.2], [0.2, 0.7, 0.1]])
    labels = torch.tensor([1, 1])
    for how, first, second in (
        ("clip", 1.0, 0.7), ("sigmoid", 0.7858, 0.6682), ("softmax", 0.4897, 0.4640),
    ):  # fmt: skip
        examiner = Examiner(probabilities=how)
        examiner.add(torch.tensor(0.0), outputs, labels)
        (mistake,) = examiner.findings().mistakes
        assert (mistake.predicted, mistake.probability) == (0, pytest.approx(first, abs=1e-4))
        assert examiner.predictions().probabilities[1, 0].item() == pytest.approx(second, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("format", "ending"), [("state_dict", ".state_dict.json")])
def test_exports_say_both(tmp_path: Path, dispatch: Dispatch, format: str, ending: str) -> None:
    run = train(tmp_path, *QUICK, "data.shape=[1,28,56]", "loss=bce")
    done = dispatch("export", str(run.best), "--format", format)
    assert done.returncode == 0, done.output
    described = json.loads(run.best.with_name("best.state_dict.json").read_text())
    assert (described["fit"], described["probabilities"]) == ("squash", "sigmoid")
    assert any("both sides" in step for step in described["preprocessing"])
    assert "the sigmoid of each is what predict" in described["output"]

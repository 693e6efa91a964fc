"""Losses, penalties and draws in whole trainings: resumed, compiled, by hand, refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.commands import run_trainer, train

SMALL = [
    "data=synthetic", "data.num_train=80", "data.num_test=40", "data.num_classes=4",
    "data.shape=[1,6,6]", "batch_size=16", "epochs=3", "num_threads=1", "tensorboard=false",
    "model.hidden=[8]", "model.dropout=0.2",
]  # fmt: skip
CASES = {
    "class weights": ["loss.class_weights=balanced"],
    "penalties": ["l1=0.001", "l2=0.01"],
    "fraction": ["data.fraction=0.5"],
    "balanced sampling": ["sampling=balanced"],
    "focal": ["loss=focal", "loss.class_weights=[1,2,3,4]", "loss.label_smoothing=0.1"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_resumed_to_the_same_weights(tmp_path: Path, name: str) -> None:
    whole = train(tmp_path, *SMALL, *CASES[name], folder="whole")
    part = train(
        tmp_path, *SMALL, *CASES[name], "save_every_steps=2", "stop_epoch=2", folder="part"
    )
    done = run_trainer("resume", "part", "stop_epoch=0", cwd=tmp_path)
    assert done.returncode == 0, done.output
    assert part.summary["weights_sha256"] == whole.summary["weights_sha256"]
    assert part.summary["test_accuracy"] == whole.summary["test_accuracy"]


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_compiled_steps_are_eager_ones(tmp_path: Path, name: str) -> None:
    words = [*SMALL, *CASES[name], "precision=fp64"]
    eager = train(tmp_path, *words, folder="eager")
    step = train(tmp_path, *words, "compile=step", folder="step")
    for before, after in zip(eager.rows, step.rows, strict=True):
        assert after["loss"] == pytest.approx(before["loss"], rel=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_by_hand_as_torch_s_layers(tmp_path: Path, name: str) -> None:
    words = [*SMALL, *CASES[name], "precision=fp64", "model.dropout=0"]
    torch_s = train(tmp_path, *words, folder="torch")
    by_hand = train(tmp_path, *words, "layers=numpy", folder="numpy")
    for before, after in zip(torch_s.rows, by_hand.rows, strict=True):
        assert after["loss"] == pytest.approx(before["loss"], rel=1e-9)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["loss.class_weights=[1,2,3]"], "has 3 numbers, and the data has 4 classes"),
        (["loss.class_weights=[1,2,3,0]"], "none, balanced, or a list, each a number greater"),
        (["loss.class_weights=uniform"], "none, balanced, or a list"),
        (["loss=mse", "loss.class_weights=balanced"], "loss.class_weights"),
        (["loss.class_weights=balanced", "processes=2"], "sampling=balanced weighs classes, too"),
        (["loss.gamma=2"], "loss.gamma"),
        (["loss.class_weights=balanced", "sampling=balanced"], "balance the classes twice"),
        (["data.fraction=0.5", "data.folds=3"], "data.fraction=0.5 with data.folds=3"),
        (["data.fraction=0"], "data.fraction=0: must be a number greater than 0 and at most 1"),
        (["data.fraction=0.001"], "none would be left"),
        (["l1=-1"], "l1=-1: must be a number at least 0"),
    ],
)
def test_refused_before_a_folder_is_made(tmp_path: Path, words: list[str], message: str) -> None:
    done = run_trainer(*SMALL, *words, "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 2, done.output
    assert message in done.stderr
    assert not (tmp_path / "run").exists()


def test_balanced_weights_are_those_of_the_train_split(tmp_path: Path) -> None:
    """The same as the list that they come to: 64 of 80 images stay, 16 of each class."""
    balanced = train(tmp_path, *SMALL, "loss.class_weights=balanced", folder="balanced")
    listed = train(tmp_path, *SMALL, "loss.class_weights=[1,1,1,1]", folder="listed")
    other = train(tmp_path, *SMALL, "loss.class_weights=[1,1,1,2]", folder="other")
    assert balanced.summary["weights_sha256"] == listed.summary["weights_sha256"]
    assert balanced.summary["weights_sha256"] != other.summary["weights_sha256"]

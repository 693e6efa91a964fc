"""The loss that validation, test and `evaluate` report: without the training's label smoothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.helpers.commands import ROOT, TrainedRun, read_json, run_trainer, train
from trainer import losses
from trainer.builders.losses import make_evaluation_loss

SMOOTHING = 0.5


@pytest.fixture(scope="module", params=["cross_entropy", "bce"])
def smoothed_run(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> TrainedRun:
    folder = tmp_path_factory.mktemp(request.param)
    return train(
        folder, f"loss={request.param}", f"loss.label_smoothing={SMOOTHING}", "epochs=2",
        "scheduler=plateau", "tensorboard=false",
    )  # fmt: skip


def logits_and_labels(run: TrainedRun) -> tuple[Tensor, Tensor]:
    """Of the test split with the best weights, by three matrix products."""
    with np.load(ROOT / "data" / "mnist_5k.npz") as file:
        images, labels = file["test_images"], torch.from_numpy(file["test_labels"]).long()
    best = torch.load(run.best, weights_only=True)
    x = (torch.from_numpy(images).double().flatten(1) / 255 - best["mean"][0]) / best["std"][0]
    state = {name: value.double() for name, value in best["model"].items()}
    for layer in ("hidden.0", "hidden.2", "fc"):
        x = x if layer == "hidden.0" else x.relu()
        x = x @ state[f"{layer}.weight"].T + state[f"{layer}.bias"]
    return x, labels


@pytest.mark.slow
def test_the_test_row_is_the_plain_loss(smoothed_run: TrainedRun) -> None:
    logits, labels = logits_and_labels(smoothed_run)
    if "BCE" in (smoothed_run.folder / ".hydra" / "config.yaml").read_text():
        plain = F.binary_cross_entropy_with_logits(logits, F.one_hot(labels, 10).double())
        smoothed = losses.BCE(SMOOTHING)(logits, labels)
    else:
        plain = F.cross_entropy(logits, labels)
        smoothed = F.cross_entropy(logits, labels, label_smoothing=SMOOTHING)
    row = smoothed_run.rows[-1]
    assert row["split"] == "test"
    assert row["loss"] == pytest.approx(plain.item(), rel=1e-4)
    assert abs(smoothed.item() - plain.item()) > 0.05  # else the line above would tell nothing
    assert smoothed_run.summary["test_loss"] == row["loss"]


@pytest.mark.slow
def test_evaluate_gives_the_number_of_the_test_row(smoothed_run: TrainedRun) -> None:
    done = run_trainer("evaluate", str(smoothed_run.best), "-o", "seen", cwd=smoothed_run.folder)
    assert done.returncode == 0, done.output
    results = read_json(smoothed_run.folder / "seen" / "evaluation.json")
    assert results["loss"] == pytest.approx(smoothed_run.rows[-1]["loss"], rel=1e-6)


def test_the_best_epoch_and_the_schedule_go_by_the_validation_rows(
    smoothed_run: TrainedRun,
) -> None:
    val = [row["loss"] for row in smoothed_run.rows if row["split"] == "val"]
    state = torch.load(smoothed_run.folder / "checkpoints" / "last.pth", weights_only=True)
    assert state["best"]["loss"] in val
    assert state["schedule"]["lowest"] == min(val)


def test_the_train_row_is_the_loss_that_was_trained(smoothed_run: TrainedRun) -> None:
    """No network gets below the entropy of the smoothed labels, but below it without smoothing."""
    share = SMOOTHING / 10
    target = torch.tensor([1 - SMOOTHING + share] + 9 * [share], dtype=torch.float64)
    if "BCE" in (smoothed_run.folder / ".hydra" / "config.yaml").read_text():
        floor = F.binary_cross_entropy(target, target)
    else:
        floor = -(target * target.log()).sum()
    by_split = {row["split"]: row["loss"] for row in smoothed_run.rows}
    assert by_split["train"] > floor.item() > by_split["val"]


@pytest.mark.slow
def test_evaluate_refuses_to_smooth(smoothed_run: TrainedRun) -> None:
    done = run_trainer(
        "evaluate", str(smoothed_run.best), "loss.label_smoothing=0.2", cwd=smoothed_run.folder
    )
    assert done.returncode == 2
    assert "loss.label_smoothing=0.2" in done.stderr
    assert "Traceback" not in done.output


@pytest.mark.parametrize("layers", ["torch", "numpy"])
def test_a_loss_without_the_key_is_taken_as_it_is(layers: str) -> None:
    logits, labels = torch.randn(4, 3, dtype=torch.float64), torch.tensor([0, 2, 1, 1])
    options = {"_target_": "trainer.losses.MSE", "on": "logits"}
    config = {"layers": layers, "loss": options}
    loss = make_evaluation_loss(config)(logits, labels)
    assert loss.item() == pytest.approx(losses.MSE("logits")(logits, labels).item())
    assert config["loss"] is options
    assert options == {"_target_": "trainer.losses.MSE", "on": "logits"}

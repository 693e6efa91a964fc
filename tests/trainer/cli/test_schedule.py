"""`schedule` and `find-lr`: against trainings with the same words, and without leaving a run."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.commands import run_trainer, train
from tests.helpers.every_key import Dispatch
from tests.helpers.small_sweeps import SMALL
from trainer.training.lr_sweep import propose, rates, smoothed

ROW = r"^ *(\d+) +([\d,]+)  ([\d.e-]+)$"
NAMES = ["wsd", "polynomial", "one_cycle", "cosine", "step"]


@pytest.mark.parametrize("name", NAMES)
def test_schedule_is_that_of_the_training(tmp_path: Path, dispatch: Dispatch, name: str) -> None:
    words = [w for w in SMALL if w != "tensorboard=false"] + [f"scheduler={name}", "epochs=4"]
    done = dispatch("schedule", *words)
    assert done.returncode == 0, done.output
    found = {int(s.replace(",", "")): float(r) for _, s, r in re.findall(ROW, done.stdout, re.M)}
    assert not list(tmp_path.iterdir())
    run = train(tmp_path, *words)
    last = run.rows[-1]
    assert found[last["step"] - 1] == pytest.approx(last["lr"], rel=1e-3)
    of_first_epoch = next(row for row in run.rows if row["epoch"] == 1)
    assert of_first_epoch["step"] in found  # the first step of the second epoch
    assert len(found) == 5


def test_schedule_needs_no_data_with_a_number(tmp_path: Path, dispatch: Dispatch) -> None:
    words = ["schedule", "data=cifar10", "data.root=nowhere", "epochs=2", "batch_size=100"]
    done = dispatch(*words, "--images", "45001", "-o", "a.png", "-o", "a.html")
    assert done.returncode == 0, done.output
    assert "900 steps" in done.stdout  # a last batch of one image is left out
    with Image.open("a.png") as image:
        assert image.size == (800, 480)
    page = Path("a.html").read_text()
    assert "data:image/png;base64," in page
    assert "900 steps" in page
    again = dispatch(*words, "--images", "45001", "-o", "a.png")
    assert again.returncode == 2
    assert "a.png: exists" in again.output
    assert not (tmp_path / "outputs").exists()


REFUSED = [
    (["schedule", "seed=1"], "seed: plays no part in the learning rate"),
    (["schedule", "--images", "0"], "--images 0: must be"),
    (["schedule", "-o", "a.pdf"], "must end in .png or .html"),
    (["schedule", "--multirun"], "schedule takes key=value words"),
    (["find-lr", "epochs=3"], "epochs: plays no part in the search"),
    (["find-lr", "scheduler.warmup_steps=3"], "scheduler.warmup_steps: plays no part"),
    (["find-lr", "--from", "1", "--to", "0.1"], "must be rates above 0, rising"),
    (["find-lr", "--steps", "3"], "--steps 3: must be"),
    (["find-lr", "-o", "no/a.png"], "there is no folder no"),
    (["find-lr", "augment.mix_probability=0.5"], "augment.mixup and augment.cutmix are 0"),
]


@pytest.mark.parametrize(("words", "said"), REFUSED)
def test_refused(dispatch: Dispatch, words: list[str], said: str) -> None:
    done = dispatch(*words)
    assert done.returncode == 2
    assert said in done.output


@pytest.mark.parametrize(
    "more", [[], *(pytest.param(more, marks=pytest.mark.slow) for more in
             (["layers=numpy"], ["model=lenet5", "augment.cutout=0.3"]))]
)  # fmt: skip
def test_find_lr(tmp_path: Path, more: list[str]) -> None:
    words = ["optimizer=sgd", "num_threads=1", *more]
    done = run_trainer("find-lr", *words, "-o", "f.png", "-o", "f.html", cwd=tmp_path)
    assert done.returncode == 0, done.output
    assert sorted(os.listdir(tmp_path)) == ["f.html", "f.png"]
    again = run_trainer("find-lr", *words, cwd=tmp_path)
    assert done.stdout.startswith(again.stdout)
    proposed = re.search(r"optimizer\.lr=\S+", done.stdout)
    assert proposed, done.stdout
    run = train(tmp_path, *words, proposed[0], "epochs=4")
    assert run.summary["val_accuracy"] > 0.85


def test_first_loss_is_the_trainings(tmp_path: Path) -> None:
    from trainer.builders.lr_sweep import swept_losses
    from trainer.config.compose import one_job, parse

    words = [*SMALL, "augment=strong", "model.dropout=0.3", "num_threads=1"]
    losses = swept_losses(one_job(parse(words)), [1e-9, 1e-9])
    run = train(tmp_path, *words, "epochs=1", "limit_batches=1")
    assert losses[0] == pytest.approx(run.rows[0]["loss"], rel=1e-5)
    assert losses[0] != losses[1]


def test_proposal_by_hand() -> None:
    lrs = rates(1e-6, 1.0, 61)
    assert lrs[10] == pytest.approx(1e-5)
    assert lrs[-1] == pytest.approx(1.0)
    losses = [2.0] * 20 + [2.0 - 0.05 * k for k in range(20)] + [1.1 + 0.4 * k for k in range(21)]
    found = propose(lrs, losses)
    assert found is not None
    lowest = min(range(61), key=smoothed(losses).__getitem__)
    assert found.lowest == lrs[lowest]
    assert found.lr == pytest.approx(lrs[lowest] / 10, rel=0.05)
    assert lrs[20] < found.steepest <= found.lowest
    assert propose(lrs, [2.0] * 61) is None
    assert propose(lrs, [float("nan")]) is None


def test_smoothing_is_the_mean_without_bias() -> None:
    assert smoothed([3.0, 3.0, 3.0]) == pytest.approx([3.0, 3.0, 3.0])
    assert smoothed([1.0, 2.0]) == pytest.approx([1.0, (0.9 * 1 + 2) / 1.9])

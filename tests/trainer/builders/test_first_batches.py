"""overfit_batches, and the dry run of experiment=debug."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from tests.helpers import norm_net, results
from tests.helpers.commands import run_trainer, train
from tests.helpers.visualizer_runs import built, compose_words


def images(batches: Any) -> set[bytes]:
    return {image.numpy().tobytes() for x, _ in batches for image in x}


def test_they_are_the_images_of_the_first_epochs_first_batches(tmp_path: Path) -> None:
    words = ["batch_size=8", "tensorboard=false", "seed=3"]
    (tmp_path / "whole").mkdir(), (tmp_path / "few").mkdir()
    whole = built(compose_words(*words), tmp_path / "whole")
    few = built(compose_words(*words, "overfit_batches=2"), tmp_path / "few")
    first = images(list(whole.train.epoch(0))[:2])
    assert len(first) == 16
    for epoch in range(2):
        assert images(few.train.epoch(epoch)) == first
    assert images(few.val.epoch()) == first
    assert few.test.num_images == whole.test.num_images
    assert few.about.data.fingerprint == whole.about.data.fingerprint
    whole.close(), few.close()


def test_it_learns_them_by_heart_and_resumes(tmp_path: Path) -> None:
    words = ["data=mnist_5k", "batch_size=8", "overfit_batches=2", "tensorboard=false",
             "epochs=40", "num_threads=1", "scheduler=constant"]  # fmt: skip
    run = train(tmp_path, *words, folder="run").folder
    rows = results.rows(run)
    assert [row["accuracy"] for row in rows if row["split"] == "val"][-1] == 1.0
    assert rows[-1]["accuracy"] < 0.8  # the test split is the whole one
    log = (run / "trainer.log").read_text()
    assert "overfit_batches=2: 16 images of the train split are trained on and validated on" in log
    train(tmp_path, *words, "stop_epoch=7", folder="cut")
    done = run_trainer("resume", "cut", "stop_epoch=0", cwd=tmp_path)
    assert done.returncode == 0, done.output
    key = "weights_sha256"
    assert results.summary(tmp_path / "cut")[key] == results.summary(run)[key]
    with open(run / "predictions.csv", newline="") as file:
        assert sum(row["split"] == "val" for row in csv.DictReader(file)) == 16


def test_the_dry_run_does_all_and_goes_on(tmp_path: Path) -> None:
    words = [*norm_net.TINY, "experiment=debug"]
    words = [word for word in words if not word.startswith(("epochs", "tensorboard"))]
    run = train(tmp_path, *words, folder="run").folder
    summary = results.summary(run)
    assert (summary["status"], summary["epochs"]) == ("finished", 2)
    assert summary["test_accuracy"] is not None
    assert (run / "checkpoints" / "best.pth").is_file()
    assert list((run / "tensorboard").iterdir())
    done = run_trainer("resume", "run", "epochs=3", cwd=tmp_path)
    assert done.returncode == 0, done.output
    assert results.summary(run)["epochs"] == 3

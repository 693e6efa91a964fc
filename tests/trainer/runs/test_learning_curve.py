"""experiment=learning_curve, and the drawing of it."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from tests.helpers.commands import run_trainer
from trainer.runs.read import read_runs


def test_accuracy_is_drawn_over_the_number_of_images(tmp_path: Path) -> None:
    done = run_trainer(
        "--multirun", "experiment=learning_curve", "data=synthetic", "data.num_train=400",
        "data.num_test=40", "data.shape=[1,6,6]", "epochs=1", "num_threads=1", "seed=0,1",
        "data.fraction=0.1,0.5,1.0", "tensorboard=false", "hydra.sweep.dir=curve", "jobs=1",
        "model.hidden=[8]", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.output
    rows = read_runs(tmp_path / "curve")
    sizes = sorted({row.num_train_images for row in rows if row.num_train_images})
    assert (len(rows), sizes) == (6, [40, 180, 360])  # of each of 10 classes 4, 18, 36
    page = run_trainer("report", "curve", cwd=tmp_path)
    assert page.returncode == 0, page.output
    html = next((tmp_path / "curve").glob("*.html")).read_text("utf-8")
    assert "validation accuracy over training images and val accuracy" in html
    places = [float(x) for x in re.findall(r'<circle class="dot" cx="([\d.]+)"', html)]
    low, middle, high = sorted(places)
    assert (middle - low) / (high - low) == pytest.approx(math.log(4.5) / math.log(9), abs=0.001)

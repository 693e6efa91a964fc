"""Cross-validation by one command: folds=K."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from tests.helpers.commands import Finished, run_trainer
from tests.helpers.small_sweeps import SMALL, job_of, predictions, summary
from trainer.config import compose
from trainer.runs import out_of_fold
from trainer.runs.read import read_runs

Dispatch = Callable[..., Finished]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Finished]:
    cwd = tmp_path_factory.mktemp("folds")
    done = run_trainer("folds=3", *SMALL, "hydra.sweep.dir=outputs/cv", cwd=cwd)
    assert done.returncode == 0, done.output
    return cwd, done


def test_each_image_is_held_out_once(sweep: tuple[Path, Finished]) -> None:
    cv = sweep[0] / "outputs" / "cv"
    rows = predictions(cv)
    assert sorted(int(row["index"]) for row in rows) == list(range(301))
    assert {row["split"] for row in rows} == {"fold"}
    by_job = [row for k in range(3) for row in predictions(job_of(cv, k)) if row["split"] == "test"]
    assert [{**row, "split": "fold"} for row in by_job] == rows
    for k in range(3):
        own = predictions(job_of(cv, k))
        val, test = ({row["index"] for row in own if row["split"] == name}
                     for name in ("val", "test"))  # fmt: skip
        assert not val & test
        assert summary(job_of(cv, k))["held_out"] == f"fold {k} of 3"


def test_mistakes_have_the_index_of_the_predictions(sweep: tuple[Path, Finished]) -> None:
    run = job_of(sweep[0] / "outputs" / "cv", 1)
    found = json.loads((run / "findings.json").read_text())
    for split in ("val", "test"):
        wrong = {
            int(row["index"]): (row["label"], row["predicted"])
            for row in predictions(run)
            if row["split"] == split and row["label"] != row["predicted"]
        }
        mistakes = found[split]["mistakes"]
        assert mistakes
        told = {one["index"]: (one["label"], one["predicted"]) for one in mistakes}
        assert told.items() <= wrong.items()


def test_the_test_split_is_not_read(sweep: tuple[Path, Finished]) -> None:
    assert not (sweep[0] / "outputs" / "test_readings.jsonl").exists()


def test_the_table_has_mean_spread_and_interval(sweep: tuple[Path, Finished]) -> None:
    """Of Nadeau and Bengio's variance, with two images held out for each four trained on."""
    cwd, done = sweep
    values = [summary(job_of(cwd / "outputs" / "cv", k))["test_accuracy"] for k in range(3)]
    mean, std = np.mean(values), np.std(values, ddof=1)
    half = stats.t.ppf(0.975, 2) * std * math.sqrt(1 / 3 + 1 / 2)
    low, high = max(0, mean - half), min(1, mean + half)
    digits = 3 if high - low >= 0.01 else 4
    assert (f"held out mean {mean:.4f}, std {std:.4f}, 95 %: {low:.{digits}f} to {high:.{digits}f}"
            in done.stdout)  # fmt: skip
    assert "over folds" in done.stdout
    assert "3 runs are one configuration: they differ in the fold alone" in done.stdout
    rows = predictions(cwd / "outputs" / "cv")
    right = sum(row["label"] == row["predicted"] for row in rows)
    assert f"out of fold: accuracy {right / 301:.4f} of 301 images" in done.stdout
    told = (job_of(cwd / "outputs" / "cv", 1) / "terminal.log").read_text()
    assert "train, 20 val, 100 held-out images" in told


def test_the_out_of_fold_accuracy_is_reported(
    sweep: tuple[Path, Finished], dispatch: Dispatch
) -> None:
    cv = sweep[0] / "outputs" / "cv"
    rows = predictions(cv)
    right = sum(row["label"] == row["predicted"] for row in rows)
    found = json.loads(dispatch("report", str(cv), "--json").stdout)["out_of_fold"]
    want = stats.binomtest(right, 301).proportion_ci(0.95, "wilson")
    assert (found["accuracy"], found["num_images"]) == (right / 301, 301)
    assert found["interval"] == pytest.approx([want.low, want.high], abs=1e-9)
    line = f"out of fold: accuracy {right / 301:.4f} of 301 images"
    assert line in dispatch("report", str(cv)).stdout
    assert line in (cv / "report.html").read_text()
    one = json.loads(dispatch("report", str(job_of(cv, 0)), "--json").stdout)
    assert one["out_of_fold"] is None


def test_evaluate_calls_a_fold_a_fold(sweep: tuple[Path, Finished]) -> None:
    job = str(job_of(sweep[0] / "outputs" / "cv", 1))
    done = run_trainer("evaluate", job, cwd=sweep[0])
    assert done.returncode == 0, done.output
    assert "fold 1 of 3, 100 images" in done.stdout
    assert "test split" not in done.stdout
    val = run_trainer("evaluate", job, "split=val", cwd=sweep[0])
    assert val.stdout.startswith("val split, ")


def test_of_two_seeds_no_out_of_fold_predictions_are_written(
    sweep: tuple[Path, Finished], tmp_path: Path
) -> None:
    cv = tmp_path / "cv"
    shutil.copytree(sweep[0] / "outputs" / "cv", cv)
    (cv / "predictions.csv").unlink()
    assert "out-of-fold predictions of each image" in str(out_of_fold.write(cv, read_runs(cv)))
    (cv / "predictions.csv").unlink()
    shutil.copytree(job_of(cv, 0), cv / "3")
    assert "no " in str(out_of_fold.write(cv, read_runs(cv)))
    assert "these are 4 runs of 3 finished folds" in str(out_of_fold.write(cv, read_runs(cv)))
    assert not (cv / "predictions.csv").exists()


def test_folds_are_compared_on_all_images(sweep: tuple[Path, Finished], dispatch: Dispatch) -> None:
    cv = str(sweep[0] / "outputs" / "cv")
    done = dispatch("compare", cv, cv, "--json")
    assert done.returncode == 0, done.output
    found = json.loads(done.stdout)
    assert (found["n"], found["difference"], found["p_value"]) == (301, 0, 1)
    refused = dispatch("compare", cv, cv, "split=val")
    assert refused.returncode == 2
    assert "each fold has validation images of its own" in refused.stderr


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["folds=1"], "folds=1: must be a whole number from 2 to 1,000"),
        (["folds=x"], "folds=x: must be a whole number"),
        (["folds="], "folds=: must be a whole number"),
        (["folds=3", "data.fold=1"], "data.fold=1 with folds=3: one of the two"),
        (["folds=3", "--cfg", "job"], "folds=K is a sweep"),
        (["fold=3"], "data.fold=..."),
        (["folds=3", "test=all"], "test=all with folds=3: a cross-validation reads no test split"),
    ],
)
def test_wrong_folds(dispatch: Dispatch, tmp_path: Path, words: list[str], reason: str) -> None:
    done = dispatch(*words)
    assert done.returncode == 2
    assert reason in done.stderr
    assert not list(tmp_path.iterdir())


def test_wrong_folds_are_told_before_each_is_composed(
    tmp_path: Path, dispatch: Dispatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which takes a minute for 170."""
    composed = []
    load = compose.Composer._load
    monkeypatch.setattr(
        compose.Composer, "_load", lambda self, *a: composed.append(a) or load(self, *a)
    )
    done = dispatch("folds=170", "data=synthetic", "data.num_train=180", "data.num_classes=2")
    assert done.returncode == 2
    assert "data.folds=170: class" in done.stderr
    assert len(composed) == 2  # the sweep, and the first of its jobs
    composed.clear()
    assert dispatch("--multirun", "data.folds=3", "data.fold=0,1,3").returncode == 2
    assert len(composed) == 4


@pytest.mark.parametrize("groups", [False, True])
def test_too_many_folds_are_told_how_many_can_be(
    tmp_path: Path, dispatch: Dispatch, groups: bool
) -> None:
    for label, i in np.ndindex(2, 8):
        (tmp_path / "photos" / f"c{label}").mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(100 * label + i).integers(0, 256, (8, 8), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"photos/c{label}/p{i // 2}_{i}.png")
    words = ["data=image_folder", "data.root=photos", "data.test_size=0", "data.val_size=0.3"]
    words += [r"data.group=(p\d+)_"] if groups else []
    done = dispatch(*words, "folds=20")
    assert done.returncode == 2
    told = re.search(r"folds=(\d+) is the most that works", done.stderr.replace("data.folds", ""))
    assert told, done.stderr
    most = int(told[1])
    assert most == (4 if groups else 8)
    found = [dispatch("inspect", *words, f"data.folds={most + more}") for more in (0, 1)]
    assert [one.returncode for one in found] == [0, 2], found


@pytest.mark.slow
def test_planted_wrong_labels_are_suspected(tmp_path: Path) -> None:
    """Bright and dark images, of which three stand in the wrong folder."""
    rng, planted = np.random.default_rng(0), {"bright/03.png", "dark/07.png", "dark/20.png"}
    for name, level in (("bright", 200), ("dark", 50)):
        for i in range(30):
            file = f"{name}/{i:02}.png"
            shown = 250 - level if file in planted else level
            pixels = np.clip(rng.normal(shown, 20, (12, 12)), 0, 255).astype(np.uint8)
            (tmp_path / "photos" / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / "photos" / file)
    words = (
        "data=image_folder", "data.root=photos", "data.shape=[1,12,12]", "model=mlp", "epochs=10",
        "batch_size=8", "optimizer.lr=0.01",
        "data.test_size=0.05", "tensorboard=false",
    )  # fmt: skip
    done = run_trainer(*words, "folds=4", "hydra.sweep.dir=outputs/cv", cwd=tmp_path)
    assert done.returncode == 0, done.output
    found = run_trainer("report", "outputs/cv", "--suspects", "--json", cwd=tmp_path)
    assert found.returncode == 0, found.output
    suspects = {one["file"] for one in json.loads(found.stdout)}
    asked = {row["file"] for row in predictions(tmp_path / "outputs" / "cv")}
    assert suspects == planted & asked
    assert len(planted & asked) >= 2
    page = run_trainer("report", "outputs/cv", "--suspects", cwd=tmp_path)
    num_images = len(predictions(tmp_path / "outputs" / "cv"))
    assert f"{len(suspects)} of {num_images} labels" in page.stdout
    html = (tmp_path / "outputs" / "cv" / "suspects.html").read_text()
    assert html.count("data:image/png;base64,") == len(suspects)
    refused = run_trainer("report", "photos", "--suspects", cwd=tmp_path)
    assert refused.returncode == 2
    assert "suspects are those of a run" in refused.stderr

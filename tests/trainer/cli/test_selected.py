"""Which runs read the test split, and that each reading is noted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.synthetic import load_synthetic
from tests.helpers.commands import Finished, run_trainer
from tests.helpers.small_sweeps import SMALL, job_of, predictions, summary
from trainer import checkpoints
from trainer.runs import readings


def ledger(cwd: Path) -> list[dict[str, Any]]:
    lines = (cwd / "outputs" / "test_readings.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Finished]:
    """Two configurations of two seeds, one of which learns nothing."""
    cwd = tmp_path_factory.mktemp("selected")
    done = run_trainer(
        "--multirun", *SMALL, "optimizer.lr=1e-9,0.01", "seed=0,1",
        "hydra.sweep.dir=outputs/sweeps/mine", cwd=cwd,
    )  # fmt: skip
    assert done.returncode == 0, done.output
    return cwd, done


def test_a_sweep_tests_the_selected_configuration_alone(sweep: tuple[Path, Finished]) -> None:
    cwd, done = sweep
    jobs = [job_of(cwd / "outputs" / "sweeps" / "mine", number) for number in range(4)]
    assert [summary(job)["status"] for job in jobs] == ["finished"] * 4
    assert [summary(job)["test_accuracy"] is None for job in jobs] == [True, True, False, False]
    assert [summary(job)["test_interval"] is None for job in jobs] == [True, True, False, False]
    for number, job in enumerate(jobs):
        splits = {row["split"] for row in predictions(job)}
        assert splits == ({"val"} if number < 2 else {"val", "test"})
        rows = [json.loads(line) for line in (job / "metrics.jsonl").read_text().splitlines()]
        assert [row["split"] for row in rows].count("test") == (number >= 2)
    assert {row["run"] for row in ledger(cwd)} == {str(job.relative_to(cwd)) for job in jobs[2:]}
    assert {row["command"] for row in ledger(cwd)} == {"train"}
    assert "selected: optimizer.lr=0.01, 2 seeds: val mean" in done.stdout
    assert "readings of this test split: 2, by 2 runs (outputs/test_readings.jsonl)" in done.stdout


def test_the_result_is_that_of_a_single_training(sweep: tuple[Path, Finished]) -> None:
    cwd = sweep[0]
    done = run_trainer(
        *SMALL, "optimizer.lr=0.01", "seed=1", "hydra.run.dir=outputs/alone", cwd=cwd
    )
    assert done.returncode == 0, done.output
    alone, job = cwd / "outputs" / "alone", job_of(cwd / "outputs" / "sweeps" / "mine", 3)
    for key in ("test_accuracy", "test_loss", "test_interval", "val_accuracy", "weights_sha256"):
        assert summary(alone)[key] == summary(job)[key]
    assert predictions(alone) == predictions(job)
    digests = {row["run"]: row["digest"] for row in ledger(cwd)}
    entries = checkpoints.read(alone / "checkpoints" / "best.pth")
    assert digests["outputs/alone"] == checkpoints.digest(entries)
    assert {row["dataset"] for row in ledger(cwd)} == {summary(alone)["dataset"]}


def test_predictions_are_those_of_the_best_weights(sweep: tuple[Path, Finished]) -> None:
    """Against a pass by hand: pixels, normalisation, softmax and cross-entropy of torch."""
    job = job_of(sweep[0] / "outputs" / "sweeps" / "mine", 2)
    rows = [row for row in predictions(job) if row["split"] == "test"]
    entries = checkpoints.read(job / "checkpoints" / "best.pth")
    data = load_synthetic(
        **{k: v for k, v in config_of(entries)["data"].items() if k != "_target_"}
    )
    weights = list(entries["model"].values())
    x = ((data.test.images / 255 - entries["mean"][0]) / entries["std"][0]).flatten(1)
    for weight, bias in zip(weights[:-2:2], weights[1:-2:2], strict=True):
        x = (x @ weight.T + bias).relu()
    logits = x @ weights[-2].T + weights[-1]
    shares, names = logits.softmax(1), list(data.classes)
    assert len(rows) == len(data.test) == 80
    assert [row["label"] for row in rows] == [names[k] for k in data.test.labels]
    assert [row["predicted"] for row in rows] == [names[k] for k in logits.argmax(1)]
    assert [int(row["index"]) for row in rows] == list(range(80))
    losses = torch.nn.functional.cross_entropy(logits, data.test.labels, reduction="none")
    np.testing.assert_allclose([float(row["loss"]) for row in rows], losses, rtol=1e-4, atol=1e-6)
    first, second = shares.sort(dim=1, descending=True).values[:, :2].unbind(1)
    for key, expected in (("probability", first), ("probability_1", first),
                          ("probability_2", second)):  # fmt: skip
        np.testing.assert_allclose([float(row[key]) for row in rows], expected, rtol=1e-4)
    assert {row["class_5"] + row["probability_5"] for row in rows} == {""}  # of four classes
    val = [row for row in predictions(job) if row["split"] == "val"]
    right = np.mean([row["label"] == row["predicted"] for row in val])
    assert right == pytest.approx(summary(job)["val_accuracy"])


def config_of(entries: dict[str, Any]) -> dict[str, Any]:
    import yaml

    config: dict[str, Any] = yaml.safe_load(entries["config"])
    return config


def test_an_unselected_run_is_tested_when_asked(sweep: tuple[Path, Finished]) -> None:
    cwd = sweep[0]
    job = job_of(cwd / "outputs" / "sweeps" / "mine", 0)
    before, count = summary(job), len(ledger(cwd))
    refused = run_trainer("resume", str(job), cwd=cwd)
    assert refused.returncode == 2
    assert "already finished; pass epochs=N (larger) to extend it, or test=all" in refused.stderr
    assert summary(job) == before
    done = run_trainer("resume", str(job), "test=all", cwd=cwd)
    assert done.returncode == 0, done.output
    after = summary(job)
    assert after["test_accuracy"] is not None
    assert after["weights_sha256"] == before["weights_sha256"]
    assert len(ledger(cwd)) == count + 1
    assert ledger(cwd)[-1]["command"] == "train"  # the test of a training that had ended
    again = run_trainer("resume", str(job), "test=all", cwd=cwd)
    assert again.returncode == 2
    assert again.stderr.endswith("pass epochs=N (larger) to extend it.\n")
    extended = run_trainer("resume", str(job), "epochs=3", "test=all", cwd=cwd)
    assert extended.returncode == 0, extended.output
    assert ledger(cwd)[-1]["command"] == "resume"


def test_one_model_in_two_checkpoints_is_one_model(tmp_path: Path) -> None:
    words = [word for word in SMALL if not word.startswith("epochs")]
    done = run_trainer(*words, "epochs=1", "hydra.run.dir=outputs/one", cwd=tmp_path)
    assert done.returncode == 0, done.output
    for name in ("best", "last"):
        path = f"outputs/one/checkpoints/{name}.pth"
        assert run_trainer("evaluate", path, cwd=tmp_path).returncode == 0
    rows = ledger(tmp_path)
    assert len({row["digest"] for row in rows}) == 2
    assert len({row["weights"] for row in rows}) == 1
    file = tmp_path / "outputs" / readings.NAME
    assert readings.readings_of(file, rows[0]["dataset"]) == readings.Readings(file, 3, 1, 1)


@pytest.mark.slow
def test_all_and_none(tmp_path: Path) -> None:
    for word, tested in (("all", [True, True]), ("none", [False, False])):
        done = run_trainer(
            "--multirun", *SMALL, "optimizer.lr=1e-9,0.01", f"test={word}",
            f"hydra.sweep.dir=outputs/sweeps/{word}", cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.output
        jobs = [job_of(tmp_path / "outputs" / "sweeps" / word, number) for number in range(2)]
        assert [summary(job)["test_accuracy"] is not None for job in jobs] == tested
    done = run_trainer(*SMALL, "test=none", "hydra.run.dir=outputs/single", cwd=tmp_path)
    assert "the test split was not read" in done.stdout
    assert summary(tmp_path / "outputs" / "single")["test_accuracy"] is None
    assert len(ledger(tmp_path)) == 2
    page = run_trainer("report", "outputs/single", cwd=tmp_path)
    assert page.returncode == 0, page.output
    html = (tmp_path / "outputs" / "single" / "report.html").read_text()
    assert "Validation split, with the weights of the best epoch" in html
    assert "Test split" not in html
    wrong = run_trainer(*SMALL, "test=some", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "test=some: must be one of selected, all, none" in wrong.stderr


@pytest.mark.slow
def test_a_network_of_the_users_own_is_tested_too(tmp_path: Path) -> None:
    (tmp_path / "my_nets.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Sequential):\n"
        "    def __init__(self, shape, num_classes):\n"
        "        super().__init__(nn.Flatten(), nn.LazyLinear(num_classes))\n"
        "        self[1] = nn.Linear(shape[0] * shape[1] * shape[2], num_classes)\n"
    )
    (tmp_path / "my" / "model").mkdir(parents=True)
    (tmp_path / "my" / "model" / "net.yaml").write_text(
        "_target_: my_nets.Net\nshape: ${data.shape}\nnum_classes: ${data.num_classes}\n"
    )
    done = run_trainer(
        "--multirun", "--config-dir", "my", *(w for w in SMALL if w != "model=mlp"), "model=net",
        "optimizer.lr=1e-9,0.01", "hydra.sweep.dir=outputs/own", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.output
    assert len(ledger(tmp_path)) == 1


@pytest.mark.slow
def test_evaluate_notes_its_reading(sweep: tuple[Path, Finished]) -> None:
    cwd = sweep[0]
    job, count = job_of(cwd / "outputs" / "sweeps" / "mine", 2), len(ledger(cwd))
    done = run_trainer("evaluate", str(job / "checkpoints" / "best.pth"), cwd=cwd)
    assert done.returncode == 0, done.output
    assert len(ledger(cwd)) == count + 1
    last, trained = ledger(cwd)[-1], [row for row in ledger(cwd) if row["run"].endswith(job.name)]
    assert last["command"] == "evaluate"
    assert {row["digest"] for row in trained} == {last["digest"]}  # the same weights
    assert "readings of this test split" in done.stdout
    found = json.loads((job / "evaluation" / "test" / "evaluation.json").read_text())
    assert found["accuracy_interval"] == summary(job)["test_interval"]
    assert all(row["interval"][0] <= row["recall"] <= row["interval"][1]
               for row in found["per_class"])  # fmt: skip
    of_test = [row for row in predictions(job) if row["split"] == "test"]
    assert predictions(job / "evaluation" / "test") == of_test
    assert run_trainer("evaluate", str(job / "checkpoints" / "best.pth"), "split=val",
                       cwd=cwd).returncode == 0  # fmt: skip
    assert len(ledger(cwd)) == count + 1  # of the test split alone

"""Best epoch, run and configuration by another measure than the accuracy."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, f1_score

from tests.helpers.commands import run_trainer, train
from tests.trainer.runs.test_selection import names, write_run
from trainer.evaluation.measures import MEASURES
from trainer.evaluation.metrics import Meter, Metrics
from trainer.runs.progress import Best
from trainer.runs.read import best_row, read_run, read_runs
from trainer.runs.selection import configurations, ordered, rule, selected


def test_the_measures_are_scikit_learn_s() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (300,), generator=generator).clamp_max(2)
    logits = torch.randn(300, 6, generator=generator)
    logits[:, 5] = -9  # nobody's class, and never predicted; nor has class 3 or 4 images
    meter = Meter(num_classes=6)
    for batch in range(0, 300, 64):
        part = slice(batch, batch + 64)
        meter.add(torch.tensor(1.0), logits[part], labels[part])
        meter.read()
    found, predicted = meter.read(), logits.argmax(1)
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        expected = balanced_accuracy_score(labels, predicted)
    assert found.balanced_accuracy == pytest.approx(expected)
    assert found.macro_f1 == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert found.accuracy == pytest.approx((labels == predicted).double().mean().item())
    plain = Meter()
    plain.add(torch.tensor(1.0), logits, labels)
    assert plain.read().macro_f1 is None


VALS = [
    Metrics(0.5, 0.90, 10, 0.0, 0.60, 0.50),
    Metrics(0.4, 0.80, 10, 0.0, 0.60, 0.70),
    Metrics(0.3, 0.85, 10, 0.0, 0.55, 0.70),
    Metrics(math.nan, 0.99, 10, 0.0, 0.99, 0.99),
    Metrics(0.3, 0.85, 10, 0.0, 0.55, 0.70),
]


@pytest.mark.parametrize(
    ("by", "epoch"), [("accuracy", 1), ("loss", 3), ("balanced_accuracy", 2), ("macro_f1", 3)]
)
def test_best_epoch(by: str, epoch: int) -> None:
    """Ties by the lower loss, then the earlier epoch; and metrics.jsonl says the same."""
    best = Best(by=by)
    for number, val in enumerate(VALS, 1):
        best.take(number, val)
    assert best.epoch == epoch
    rows = [
        {**vars(val), "epoch": n, "split": "val", "loss": None if n == 4 else val.loss}
        for n, val in enumerate(VALS, 1)
    ]
    row = best_row(rows, by)
    assert row is not None
    assert row["epoch"] == epoch
    again = Best(by=by)
    again.load_state_dict(best.state_dict())
    assert again == best


def test_a_state_from_before_the_measure_is_of_accuracy() -> None:
    best = Best()
    best.load_state_dict({"epoch": 2, "accuracy": 0.9, "loss": 0.3, "lost_epoch": 0})
    assert not best.beaten_by(Metrics(0.2, 0.89, 10))
    assert best.beaten_by(Metrics(0.2, 0.90, 10))
    other = Best(by="loss")
    other.load_state_dict(best.state_dict())
    assert (other.epoch, other.by) == (0, "loss")


@pytest.mark.parametrize("by", ["loss", "macro_f1"])
def test_order_of_runs_and_configurations(tmp_path: Path, by: str) -> None:
    for i, (val, worth) in enumerate([(0.9, 0.2), (0.8, 0.4), (0.7, 0.4), (0.6, 0.1)]):
        words = [f"model={'ab'[i // 2]}", f"seed={i % 2}"]
        known = {"val_loss": 1 - worth if by == "loss" else 0.5 - i / 10}
        known |= {"val_score": known["val_loss"] if by == "loss" else worth}
        write_run(tmp_path / str(i), words, val, best_by=by, weights_sha256=str(i), **known)
    rows = read_runs(tmp_path)
    random.Random(0).shuffle(rows)
    first, second = ("1", "2") if by == "loss" else ("2", "1")
    rows.sort(key=lambda row: row.folder.name)
    assert names(ordered(rows)) == [first, second, "0", "3"]
    assert [one.overrides for one in configurations(rows)] == [("model=a",), ("model=b",)]
    assert selected(rows)[0].overrides == ("model=a",)
    assert by.replace("_", " ") in rule(rows)
    mixed = [*rows, read_run(write_run(tmp_path / "9", ["seed=9"], 0.95, best_by="accuracy"))]
    assert names(ordered(mixed))[0] == "9"
    assert "accuracy, since best_by differs" in rule(mixed)


UNEVEN = ["data=synthetic", "data.num_train=80", "data.num_test=40", "data.num_classes=4",
          "data.shape=[1,6,6]", "batch_size=16", "epochs=3", "num_threads=1",
          "tensorboard=false"]  # fmt: skip


@pytest.mark.parametrize(
    "by", [by if by == "macro_f1" else pytest.param(by, marks=pytest.mark.slow) for by in MEASURES]
)
def test_in_a_training_resumed_and_reported(tmp_path: Path, by: str) -> None:
    whole = train(tmp_path, *UNEVEN, f"best_by={by}", folder="whole")
    part = train(tmp_path, *UNEVEN, f"best_by={by}", "stop_epoch=1", folder="part")
    done = run_trainer("resume", "part", "stop_epoch=0", cwd=tmp_path)
    assert done.returncode == 0, done.output
    row = best_row(whole.rows, by)
    assert row is not None
    assert whole.summary["best_epoch"] == row["epoch"]
    assert whole.summary["val_score"] == pytest.approx(row[by])
    keys = ("best_epoch", "val_score", "weights_sha256", "best_by", "test_accuracy")
    assert [part.summary[key] for key in keys] == [whole.summary[key] for key in keys]
    (whole.folder / "summary.json").unlink()
    assert read_run(whole.folder).val_score == pytest.approx(row[by])
    told = run_trainer("report", ".", "--json", cwd=tmp_path)
    assert by.replace("_", " ") in json.loads(told.stdout)["rule"]

"""Early stopping and the time budget: they end a training like a finished one, and it goes on."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.helpers import norm_net, results, several
from tests.helpers.commands import run_trainer, train
from trainer.evaluation.metrics import Metrics
from trainer.training.rules import stopping
from trainer.training.rules.stopping import EarlyStopping, TimeBudget
from trainer.training.world import World

# Nothing is learned, so the first validation is the best; six epochs are asked for.
IDLE = [*norm_net.TINY, "optimizer=sgd", "optimizer.lr=1e-12", "epochs=6"]
NO_RUN: Any = SimpleNamespace()


def ended(rule: EarlyStopping, *values: float) -> int:
    """Number of validations after which a training with these losses or accuracies ends."""
    for number, value in enumerate(values, 1):
        rule.end_epoch(NO_RUN, Metrics(value, value, 1))
        rule.end_epoch(NO_RUN, None)
        if rule.is_over(NO_RUN):
            return number
    return 0


@pytest.mark.parametrize(
    ("rule", "values", "number"),
    [(EarlyStopping(2), (0.1, 0.2, 0.2, 0.2), 4), (EarlyStopping(2), (0.1, 0.0, 0.2, 0.1), 0),
     (EarlyStopping(1), (0.1, 0.2, 0.19), 3), (EarlyStopping(1, 0.05), (0.1, 0.14, 0.2), 2),
     (EarlyStopping(2, 0.05), (0.1, 0.14, 0.2), 0), (EarlyStopping(1, on="loss"), (3, 2, 1), 0),
     (EarlyStopping(1, on="loss"), (3, 2, 2), 3),
     (EarlyStopping(2, on="loss"), (3, math.nan, 3), 3),
     (EarlyStopping(1, 0.5, "loss"), (3, 2.6), 2), (EarlyStopping(1, 0.5, "loss"), (3, 2.4), 0)],
)  # fmt: skip
def test_when_patience_ends(rule: EarlyStopping, values: Any, number: int) -> None:
    assert ended(rule, *values) == number


def test_it_ends_like_a_finished_run_and_goes_on(tmp_path: Path) -> None:
    run = train(tmp_path, *IDLE, "patience=2", folder="run").folder
    summary = results.summary(run)
    assert (summary["status"], summary["epochs"]) == ("finished", 3)
    assert summary["ended_by"].startswith("patience=2: the validation accuracy")
    assert summary["test_accuracy"] is not None
    told = (run / "trainer.log").read_text()
    assert told.count("ended after epoch 3: patience=2") == 1
    refused = run_trainer("resume", "run", "epochs=9", cwd=tmp_path)
    assert refused.returncode == 2
    assert "pass patience=N (larger)" in refused.output
    done = run_trainer("resume", "run", "patience=4", cwd=tmp_path)
    assert done.returncode == 0, done.output
    whole = train(tmp_path, *IDLE, "patience=4", folder="whole").folder
    assert results.summary(run)["epochs"] == results.summary(whole)["epochs"] == 5
    for key in ("weights_sha256", "test_loss", "ended_by"):
        assert results.summary(run)[key] == results.summary(whole)[key]
    # The twin: all six epochs without it.
    done = run_trainer("resume", "run", "patience=0", cwd=tmp_path)
    assert done.returncode == 0, done.output
    assert (results.summary(run)["epochs"], results.summary(run)["ended_by"]) == (6, None)


def test_interrupted_it_counts_on(tmp_path: Path) -> None:
    train(tmp_path, *IDLE, "patience=3", "stop_epoch=2", folder="run")
    done = run_trainer("resume", "run", "stop_epoch=0", cwd=tmp_path)
    assert done.returncode == 0, done.output
    assert results.summary(tmp_path / "run")["epochs"] == 4


def test_in_several_processes(tmp_path: Path) -> None:
    words = [*IDLE, "patience=1", "max_minutes=100", "hydra.run.dir=run"]
    assert [e.code for e in several.run(tmp_path, *words)] == [0, 0]
    assert results.summary(tmp_path / "run")["epochs"] == 2


class Clock:
    """Clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(stopping, "time", clock)
    return clock


def some_run() -> Any:
    """What the rule looks at, after the last step of an epoch."""
    return SimpleNamespace(
        progress=SimpleNamespace(batch=3), train=range(3), world=World(),
        compile_time=SimpleNamespace(seconds=0.0),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("minutes", "compile_s", "number"),
    [(10, 0, 5), (10.1, 0, 5), (9.9, 0, 4), (1, 0, 1), (10, 120, 4)],
)
def test_what_fits_is_trained(clock: Clock, minutes: float, compile_s: float, number: int) -> None:
    """Epochs of 100 s and validations of 20 s; the first one compiles."""
    rule, run = TimeBudget(minutes), some_run()
    for epoch in range(1, 20):
        rule.start_epoch(run)
        clock.now += 100 + compile_s
        run.compile_time.seconds += compile_s
        compile_s = 0
        rule.step(run)
        clock.now += 20
        rule.end_epoch(run, Metrics(1, 1, 1))
        if rule.is_over(run):
            assert epoch == number
            return
    raise AssertionError("it never ends")


def test_the_time_before_a_resume_counts(clock: Clock) -> None:
    rule, run = TimeBudget(10), some_run()
    for _ in range(2):
        rule.start_epoch(run)
        clock.now += 120
        rule.step(run)
        rule.end_epoch(run, None)
    rule.start_epoch(run)
    clock.now += 60
    state = json.loads(json.dumps(rule.state_dict()))
    assert state == {"spent": 240, "reached": 240, "longest": 120, "epoch_s": 60}
    clock.now += 100_000
    resumed = TimeBudget(10)
    resumed.load_state_dict(state)
    assert not resumed.is_over(run)
    resumed.start_epoch(run)
    clock.now += 60
    resumed.step(run)
    resumed.end_epoch(run, None)
    assert (resumed.spent, resumed.longest) == (360, 120)


def test_a_last_epoch_is_validated_and_more_minutes_go_on(tmp_path: Path) -> None:
    words = [*IDLE, "max_minutes=1e-6", "eval_every_epochs=4"]
    run = train(tmp_path, *words, folder="run").folder
    summary = results.summary(run)
    assert (summary["status"], summary["epochs"], summary["best_epoch"]) == ("finished", 1, 1)
    assert summary["ended_by"].startswith("max_minutes=1e-06: ")
    done = run_trainer("resume", "run", "max_minutes=30", cwd=tmp_path)
    assert done.returncode == 0, done.output
    assert (results.summary(run)["epochs"], results.summary(run)["ended_by"]) == (6, None)


def test_a_job_of_a_sweep_is_finished(tmp_path: Path) -> None:
    words = [*IDLE, "--multirun", "patience=1", "seed=0,1", "hydra.sweep.dir=sweep", "jobs=1"]
    done = run_trainer(*words, cwd=tmp_path)
    assert done.returncode == 0, done.output
    summaries = [json.loads(f.read_text()) for f in (tmp_path / "sweep").glob("*/summary.json")]
    assert [(s["status"], s["epochs"]) for s in summaries] == [("finished", 2)] * 2


def test_min_delta_needs_patience(tmp_path: Path) -> None:
    done = run_trainer(*norm_net.TINY, "min_delta=0.1", cwd=tmp_path)
    assert done.returncode == 2
    assert "min_delta=0.1: has no effect without patience" in done.output

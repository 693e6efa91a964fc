"""Searches from their command to the table: survivors' bits, kills, refusals, ready files."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers import processes
from tests.helpers.commands import Finished, run_trainer
from tests.helpers.small_sweeps import SMALL, jobs_of, summary
from trainer.cli.asked import compose
from trainer.cli.sweep import search_of
from trainer.config import choices, knobs
from trainer.config.compose import parse
from trainer.config.plain_yaml import parse as parse_yaml
from trainer.errors import UserError

LOG = "optimizer.lr=tag(log,interval(1e-3,1))"
HALVING = ("--multirun", *SMALL, "epochs=4", "jobs=2", "search=halving", "search.factor=2",
           "model.dropout=0.3", "sweep.name=mine")  # fmt: skip
SWEEPS = sorted(
    name for name in choices.names("experiment")
    if "hydra" in parse_yaml(choices.text_of("experiment", name))
)  # fmt: skip


def states(sweep: Path) -> list[tuple[str, str | None]]:
    return [(job["state"], job["reason"]) for job in jobs_of(sweep)]


@pytest.mark.slow
def test_survivors_of_halving_have_the_bits_of_an_uninterrupted_run(tmp_path: Path) -> None:
    words = (*HALVING, "optimizer.lr=1e-6,1e-5,0.01,0.003")
    done = run_trainer(*words, cwd=tmp_path)
    assert done.returncode == 0, done.output
    sweep = tmp_path / "outputs" / "mine"
    assert "4 to epoch 1, 2 to epoch 2, 1 to epoch 4" in done.stdout
    found = jobs_of(sweep)
    assert sorted(job["attempts"] for job in found) == [1, 1, 2, 3]
    (best,) = [job for job in found if job["state"] == "finished"]
    out = [job["reason"] for job in found if job["state"] == "interrupted"]
    assert sorted(reason[:22] for reason in out) == ["eliminated after epoch"] * 3
    assert "go on " not in done.stdout
    assert "selected by validation: " + best["folder"] in done.stdout
    assert "the selection may change" not in done.stdout

    alone = run_trainer(*best["overrides"], "hydra.run.dir=alone", cwd=tmp_path)
    assert alone.returncode == 0, alone.output
    run, other = summary(sweep / best["folder"]), summary(tmp_path / "alone")
    for key in ("weights_sha256", "val_accuracy", "best_epoch", "test_accuracy", "epochs"):
        assert run[key] == other[key], key

    before = states(sweep)
    again = run_trainer("resume", "outputs/mine", cwd=tmp_path)
    assert again.returncode == 0, again.output
    assert "started" not in again.stdout
    assert "resumed" not in again.stdout
    assert states(sweep) == before
    # One that was given up may still be gone on with by hand.
    (last,) = [job for job in found if job["attempts"] == 2]
    by_hand = run_trainer("resume", str(sweep / last["folder"]), cwd=tmp_path)
    assert by_hand.returncode == 0, by_hand.output
    assert summary(sweep / last["folder"])["status"] == "finished"


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["halving", "optuna"])
def test_a_killed_search_goes_on(tmp_path: Path, strategy: str) -> None:
    words = ("--multirun", *SMALL, "epochs=9", LOG, "jobs=2", f"search={strategy}",
             "search.trials=6", "sweep.name=mine")  # fmt: skip
    sweep, draw = tmp_path / "outputs" / "mine", random.Random(0)
    for _ in range(5):
        command = processes.Command(tmp_path, words)
        time.sleep(draw.uniform(0.5, 5.0))
        command.kill()
    done = run_trainer(*words, cwd=tmp_path)
    assert done.returncode == 0, done.output
    found = jobs_of(sweep)
    assert len(found) == 6
    assert len({tuple(job["overrides"]) for job in found}) == 6
    assert all(
        job["state"] == "finished" or job["reason"].startswith(("eliminated", "pruned"))
        for job in found
    )
    if strategy == "halving":
        whole = run_trainer(*words[:-1], "sweep.name=whole", cwd=tmp_path)
        assert whole.returncode == 0, whole.output
        assert states(sweep) == states(tmp_path / "outputs" / "whole")
        hashes = [
            [summary(folder / job["folder"])["weights_sha256"] for job in found]
            for folder in (sweep, tmp_path / "outputs" / "whole")
        ]
        assert hashes[0] == hashes[1]
    nothing = run_trainer("resume", "outputs/mine", cwd=tmp_path)
    assert nothing.returncode == 0, nothing.output
    assert "resumed" not in nothing.stdout


@pytest.mark.slow
def test_pruned_trainings_are_saved_and_not_missed(tmp_path: Path) -> None:
    words = ("--multirun", *SMALL, "epochs=150", "jobs=1", "search=optuna", "search.trials=8",
             "optimizer.lr=tag(log,interval(1e-7,1e-1))", "sweep.name=mine")  # fmt: skip
    done = run_trainer(*words, cwd=tmp_path)
    assert done.returncode == 0, done.output
    sweep = tmp_path / "outputs" / "mine"
    pruned = [job for job in jobs_of(sweep) if job["state"] == "interrupted"]
    assert pruned
    for job in pruned:
        run = summary(sweep / job["folder"])
        assert run["status"] == "interrupted"
        assert run["reason"] == job["reason"]
        assert job["reason"].startswith("pruned at epoch ")
        assert job["reason"] in done.stdout
        assert run["epochs"] < 150
        assert any((sweep / job["folder"] / "checkpoints").glob("step_*.pth"))
    more = run_trainer(*words, "search.trials=9", cwd=tmp_path)
    assert more.returncode == 0, more.output
    assert len(jobs_of(sweep)) == 9
    assert [job["attempts"] for job in jobs_of(sweep)] == [1] * 9


@pytest.mark.slow
def test_a_signal_stops_a_search_which_then_goes_on(tmp_path: Path) -> None:
    words = (*HALVING, "epochs=90", "search.min_epochs=30", "optimizer.lr=0.01,0.003,0.1")
    sweep = tmp_path / "outputs" / "mine"
    command = processes.Command(tmp_path, words)
    command.wait_for(lambda: any(sweep.glob("1*/checkpoints/step_*.pth")))
    command.send(signal.SIGTERM)
    ended = command.wait()
    assert ended.code == 143, ended.output
    assert "go on         python -m trainer resume outputs/mine" in ended.stdout
    done = run_trainer("resume", "outputs/mine", cwd=tmp_path)
    assert done.returncode == 0, done.output
    assert sorted(state for state, _ in states(sweep)) == ["finished", "interrupted", "interrupted"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["search=random"], "search: is a key of sweeps"),
        (["search.seed=1", "search=random"], "is a key of sweeps"),
        (["--multirun", "search=rand"], "grid, halving, optuna, random"),
        (["--multirun", "search.trials=3"], "search.trials"),
        (["--multirun", "search=random", "search.trials=-1"], "must be a whole number at least 0"),
        (["--multirun", "search=random", "search.trials=0", LOG], "search.trials=0"),
        (["--multirun", "optimizer.lr=interval(1,2)"], "search=random draws from it"),
        (["--multirun", "search=halving", "epochs=1", "seed=0,1"], "must be less than epochs=1"),
        (["--multirun", "search=optuna", LOG, "hydra.sweep.subdir=a"], "hydra.sweep.subdir with"),
        (["--multirun", "search=random", LOG, "hydra.sweeper._target_=a.B"], "search=random: goes"),
        (["--multirun", "search=random", "optimizer.lr=interval(-1,2)"], "optimizer.lr=-1"),
        ([f"experiment={SWEEPS[0]}"], "Add --multirun"),
    ],
)  # fmt: skip
def test_what_is_refused(dispatch: Callable[..., Finished], words: list[str], said: str) -> None:
    done = dispatch(*words)
    assert done.returncode == 2, done.output
    assert said in done.stderr
    assert not Path("outputs").exists()


def test_ready_files_are_sweeps_that_can_begin() -> None:
    assert SWEEPS == ["folds", "learning_curve", "lr_by_model", "lr_search", "seeds"]
    sizes = {}
    for name in SWEEPS:
        asked = compose(parse(["--multirun", f"experiment={name}"]))
        search = search_of(asked)
        sizes[name] = len(search.planned)
        (job,) = compose(parse(search.planned[0])).jobs  # the command of a job
        assert job.keys() == {*knobs.GROUPS, *(key for key in knobs.KNOBS if "." not in key)}
        with pytest.raises(UserError, match="Add --multirun"):
            compose(parse([f"experiment={name}"]))
        text = choices.text_of("experiment", name)
        assert f"python -m trainer --multirun experiment={name}" in text
        assert "params" in parse_yaml(text)["hydra"]["sweeper"]
    assert sizes == {
        "folds": 5,
        "learning_curve": 15,
        "lr_by_model": 12,
        "lr_search": 27,
        "seeds": 5,
    }


@pytest.mark.slow
def test_a_ready_file_runs(tmp_path: Path) -> None:
    done = run_trainer("--multirun", "experiment=folds", "epochs=1", "limit_batches=2",
                       "tensorboard=false", "sweep.name=cv", cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.output
    assert [job["folder"] for job in jobs_of(tmp_path / "outputs" / "cv")] == [
        f"{n}_data.fold={n}" for n in range(5)
    ]
    assert "over folds" in done.stdout

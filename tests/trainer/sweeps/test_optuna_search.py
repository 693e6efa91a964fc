"""Search by Optuna: resumed, pruned, and in step with sweep.json wherever it is killed."""

from __future__ import annotations

import builtins
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.simulated_jobs import KilledError, SimulatedJobs, outcome, run
from tests.trainer.sweeps.test_search import space
from trainer.errors import UserError
from trainer.runs.sweep_file import Sweep
from trainer.sweeps.optuna_search import JOURNAL, OptunaSearch

SETTINGS = {"trials": 14, "seed": 0, "prune": False, "min_epochs": 1}
WORDS = ("optimizer.lr=tag(log,interval(1e-4,1e-1))", "model=mlp,lenet5",
         "batch_size=interval(8,64)", "epochs=6")  # fmt: skip


def lr_of(words: Sequence[str]) -> float:
    (lr,) = [word.partition("=")[2] for word in words if word.startswith("optimizer.lr")]
    return float(lr)


def curve(words: Sequence[str], epoch: int) -> float:
    """Best at lr = 0.1."""
    return lr_of(words) ** 0.5 * (0.5 + epoch / 12)


def search(**settings: Any) -> OptunaSearch:
    return OptunaSearch(space(*WORDS), {**SETTINGS, **settings})


def trials(sweep: Sweep) -> list[Any]:
    found = search()
    found.study = found.opened(sweep.folder / JOURNAL)
    return found.study.get_trials()


def test_it_finds_what_is_good(tmp_path: Path) -> None:
    sweep = run(tmp_path / "sweep", search(trials=30), SimulatedJobs(curve, 2), at_a_time=1)
    assert {job.state for job in sweep.jobs} == {"finished"}
    assert len(sweep.jobs) == 30
    lrs = [lr_of(job.overrides) for job in sweep.jobs]
    assert sum(lr > 0.03 for lr in lrs[:10]) <= 5  # drawn at random
    assert sum(lr > 0.03 for lr in lrs[15:]) >= 10  # chosen by what came before
    assert next(word for word in sweep.jobs[0].overrides if "batch" in word).split("=")[1].isdigit()
    assert sweep.jobs[3].folder.startswith(f"3_optimizer.lr={lrs[3]}_model=")


def test_a_search_that_goes_on_asks_what_it_would_have_asked(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", search(), SimulatedJobs(curve, 2), at_a_time=1)
    parts = run(tmp_path / "parts", search(trials=5), SimulatedJobs(curve, 2), at_a_time=1)
    assert len(parts.jobs) == 5
    parts = run(tmp_path / "parts", search(), SimulatedJobs(curve, 2), at_a_time=1)
    assert outcome(parts) == outcome(whole)
    assert len({tuple(job.overrides) for job in parts.jobs}) == 14


def test_a_killed_search_loses_no_trial_and_repeats_none(tmp_path: Path) -> None:
    draw, epochs, kills = random.Random(0), 0, 0
    while True:
        jobs = SimulatedJobs(curve, 3, most_calls=draw.randrange(5))
        try:
            sweep = run(tmp_path / "sweep", search(), jobs)
        except KilledError:
            kills, epochs = kills + 1, epochs + jobs.num_epochs
            with open(tmp_path / "sweep" / JOURNAL, "ab") as journal:
                journal.write(b'{"op_code":4,"wor')  # cut off within a line
            continue
        break
    assert kills > 5
    assert {job.state for job in sweep.jobs} == {"finished"}
    assert len(sweep.jobs) == 14
    assert epochs + jobs.num_epochs == 14 * 3
    complete = [trial for trial in trials(sweep) if trial.state.name == "COMPLETE"]
    best = {round(trial.value, 9) for trial in complete}
    assert best == {round(curve(job.overrides, 3), 9) for job in sweep.jobs}
    assert not [trial for trial in trials(sweep) if trial.state.name == "RUNNING"]


@pytest.mark.parametrize("is_there", [True, False])
def test_a_trial_without_a_job_gets_one(tmp_path: Path, is_there: bool) -> None:
    """The sweep was killed between the journal and sweep.json."""
    sweep = run(tmp_path / "sweep", search(trials=2), SimulatedJobs(curve, 2), at_a_time=1)
    asked = search()
    asked.study = asked.opened(sweep.folder / JOURNAL)
    if is_there:
        words = asked.words_of(asked.asked().params)
    else:
        asked.study.ask()  # before its values were drawn
    sweep = run(tmp_path / "sweep", search(trials=4), SimulatedJobs(curve, 2), at_a_time=1)
    assert {job.state for job in sweep.jobs} == {"finished"}
    assert len(sweep.jobs) == 4
    if is_there:
        assert sweep.jobs[2].overrides == words
    assert [trial.state.name for trial in trials(sweep)].count("FAIL") == (not is_there)


def test_jobs_below_the_median_are_pruned_for_good(tmp_path: Path) -> None:
    jobs = SimulatedJobs(curve, 6)
    sweep = run(tmp_path / "sweep", search(prune=True), jobs)
    reasons = [job.reason for job in sweep.jobs if job.state == "interrupted"]
    assert reasons
    assert all((reason or "").startswith("pruned at epoch ") for reason in reasons)
    assert jobs.num_epochs < 14 * 6
    finished = [lr_of(job.overrides) for job in sweep.jobs if job.state == "finished"]
    pruned = [lr_of(job.overrides) for job in sweep.jobs if job.state == "interrupted"]
    assert max(finished) > max(pruned)
    again = SimulatedJobs(curve, 6)
    assert outcome(run(tmp_path / "sweep", search(prune=True), again)) == outcome(sweep)
    assert again.num_epochs == 0
    without = SimulatedJobs(curve, 6)
    run(tmp_path / "without", search(), without)
    assert without.num_epochs == 14 * 6  # the twin


def test_failed_jobs_are_told_and_may_be_tried_again(tmp_path: Path) -> None:
    jobs = SimulatedJobs(curve, 2, failing=("1_",))
    sweep = run(tmp_path / "sweep", search(trials=4), jobs)
    assert [job.state for job in sweep.jobs].count("failed") == 1
    assert [trial.state.name for trial in trials(sweep)].count("FAIL") == 1
    sweep = run(tmp_path / "sweep", search(trials=4), SimulatedJobs(curve, 2), retry=True)
    assert {job.state for job in sweep.jobs} == {"finished"}
    assert len(sweep.jobs) == 4
    assert [trial.state.name for trial in trials(sweep)].count("COMPLETE") == 4


def test_a_lost_journal_is_made_again_from_the_jobs(tmp_path: Path) -> None:
    sweep = run(tmp_path / "sweep", search(trials=4), SimulatedJobs(curve, 2))
    values = sorted(trial.value for trial in trials(sweep))
    (sweep.folder / JOURNAL).unlink()
    sweep = run(tmp_path / "sweep", search(trials=4), SimulatedJobs(curve, 2))
    assert sorted(trial.value for trial in trials(sweep)) == values


def test_a_space_that_is_used_up_ends_the_search(tmp_path: Path) -> None:
    few = OptunaSearch(space("model=mlp,lenet5"), SETTINGS)
    sweep = run(tmp_path / "sweep", few, SimulatedJobs(lambda words, epoch: 0.5, 2))
    assert sorted(job.overrides[0] for job in sweep.jobs) == ["model=lenet5", "model=mlp"]


def test_without_optuna_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    imports = builtins.__import__

    def refuse(name: str, *args: Any) -> Any:
        if name == "optuna":
            raise ImportError(name)
        return imports(name, *args)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(UserError, match=r"pip install 'trainer\[search\]'"):
        search()

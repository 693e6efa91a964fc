"""Successive halving: who goes on, at what cost, and the same decisions after a kill."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.helpers.simulated_jobs import KilledError, SimulatedJobs, outcome, run
from trainer.errors import UserError
from trainer.sweeps.halving import Halving, check, sizes, stops

SETTINGS = {"factor": 3, "min_epochs": 1}
CONFIGS = [{"epochs": 9, "eval_every_epochs": 1, "stop_epoch": 0}]
GRID = [[f"optimizer.lr={number}"] for number in range(9)]


def curve(words: Sequence[str], epoch: int) -> float:
    """The larger lr, the better, at every epoch."""
    (lr,) = [int(word.partition("=")[2]) for word in words if word.startswith("optimizer.lr")]
    return (lr + epoch / 10 + 0.001 * sum(map(len, words))) / 20


def halving(planned: Sequence[list[str]] = GRID) -> Halving:
    return Halving(planned, SETTINGS, CONFIGS)


def test_stops_and_sizes() -> None:
    assert stops(1, 3, 27) == [1, 3, 9, 27]
    assert stops(1, 3, 20) == [1, 3, 9, 20]
    assert stops(2, 2, 5) == [2, 4, 5]
    assert sizes(27, 3, [1, 3, 9, 27]) == [27, 9, 3, 1]
    assert sizes(5, 3, [1, 3, 9, 27]) == [5, 1, 1, 1]
    assert halving().describe() == "9 configurations: 9 to epoch 1, 3 to epoch 3, 1 to epoch 9"


@pytest.mark.parametrize("at_a_time", [1, 2, 9])
def test_the_best_third_goes_on(tmp_path: Path, at_a_time: int) -> None:
    jobs = SimulatedJobs(curve, 9)
    sweep = run(tmp_path / "sweep", halving(), jobs, at_a_time)
    found = outcome(sweep)
    assert found[8] == ("optimizer.lr=8", "finished", None)
    assert found[7][1:] == ("interrupted", "eliminated after epoch 3: place 2 of 3 by validation")
    assert found[0][1:] == ("interrupted", "eliminated after epoch 1: place 9 of 9 by validation")
    assert jobs.num_epochs == 9 + 3 * 2 + 6
    assert [job.attempts for job in sweep.jobs] == [1] * 6 + [2, 2, 3]
    again = SimulatedJobs(curve, 9)
    assert outcome(run(tmp_path / "sweep", halving(), again)) == found
    assert again.num_epochs == 0


def test_a_killed_search_decides_the_same_and_repeats_no_epoch(tmp_path: Path) -> None:
    whole = SimulatedJobs(curve, 9)
    expected = outcome(run(tmp_path / "whole", halving(), whole))
    draw, epochs, kills = random.Random(0), 0, 0
    while True:
        jobs = SimulatedJobs(curve, 9, most_calls=draw.randrange(4))
        try:
            sweep = run(tmp_path / "killed", halving(), jobs)
        except KilledError:
            kills, epochs = kills + 1, epochs + jobs.num_epochs
            continue
        break
    assert kills > 5
    assert outcome(sweep) == expected
    assert epochs + jobs.num_epochs == whole.num_epochs


def test_seeds_of_a_configuration_are_compared_by_their_mean(tmp_path: Path) -> None:
    planned = [[*words, f"seed={seed}"] for words in GRID for seed in (0, 1)]
    high_once = {"optimizer.lr=0 seed=1": 0.5}  # a lucky seed of a bad configuration

    def lucky(words: Sequence[str], epoch: int) -> float:
        return high_once.get(" ".join(words), curve(words, epoch))

    sweep = run(tmp_path / "sweep", halving(planned), SimulatedJobs(lucky, 9))
    finished = [" ".join(job.overrides) for job in sweep.jobs if job.state == "finished"]
    assert finished == ["optimizer.lr=8 seed=0", "optimizer.lr=8 seed=1"]
    alone = run(tmp_path / "alone", halving(), SimulatedJobs(
        lambda words, epoch: 0.9 if words == GRID[0] else curve(words, epoch), 9))  # fmt: skip
    assert [job.index for job in alone.jobs if job.state == "finished"] == [0]  # the twin


def test_a_job_that_fails_does_not_go_on_and_is_tried_again_when_asked(tmp_path: Path) -> None:
    jobs = SimulatedJobs(curve, 9, failing=("8_", "5_"))
    sweep = run(tmp_path / "sweep", halving(), jobs)
    states = {job.index: job.state for job in sweep.jobs}
    # It was validated at epoch 1, so it counts there; it is not among those that went on.
    assert [i for i, state in states.items() if state == "failed"] == [5, 8]
    assert "finished" not in (states[5], states[8])
    assert [i for i, state in states.items() if state == "finished"] == [7]
    assert run(tmp_path / "sweep", halving(), SimulatedJobs(curve, 9)).jobs[8].state == "failed"
    mended = run(tmp_path / "sweep", halving(), SimulatedJobs(curve, 9), retry=True)
    assert mended.jobs[8].state == "finished"
    assert mended.jobs[5].reason == "eliminated after epoch 1: place 4 of 9 by validation"


@pytest.mark.parametrize(
    ("configs", "min_epochs", "said"),
    [
        ([{}, {"epochs": 18}], 1, "epochs=9,18 with search=halving"),
        ([{}], 9, "search.min_epochs=9: must be less than epochs=9"),
        ([{"eval_every_epochs": 2}], 1, "Give a multiple, such as search.min_epochs=2"),
        ([{"stop_epoch": 3}], 1, "stop_epoch with search=halving"),
    ],
)
def test_epochs_that_cannot_be_divided(
    configs: list[dict[str, int]], min_epochs: int, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        check(min_epochs, [{**CONFIGS[0], **config} for config in configs])
    assert check(1, CONFIGS) == 9

"""Space of a search by Hydra's grammar, random trials, and what is refused."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest
from scipy import stats

from tests.helpers.simulated_jobs import SimulatedJobs, run
from trainer.config.compose import Composer, parse
from trainer.config.space import Dimension, Interval
from trainer.errors import UserError
from trainer.sweeps.search import Search, check, drawn, grid, settings_text

LOG = "optimizer.lr=tag(log,interval(1e-4,1e-1))"
RANDOM = {"strategy": "random", "trials": 5, "seed": 0}


def space(*words: str) -> list[Dimension]:
    composer = Composer(parse(["--multirun", *words]))
    return composer.space(composer.master())


def values(words: list[list[str]], key: str) -> list[float]:
    found = [word.partition("=") for job in words for word in job]
    return [float(value) for name, _, value in found if name == key]


def test_values_are_uniform_in_their_interval_or_its_logarithm() -> None:
    jobs = drawn(space(LOG, "augment.rotation=interval(10,20)"), 500, 0)
    lrs, angles = values(jobs, "optimizer.lr"), values(jobs, "augment.rotation")
    assert all(1e-4 <= lr <= 1e-1 for lr in lrs)
    logs = [math.log10(lr) for lr in lrs]
    assert stats.kstest(logs, stats.uniform(-4, 3).cdf).pvalue > 0.01
    assert stats.kstest(angles, stats.uniform(10, 10).cdf).pvalue > 0.01
    assert stats.kstest(lrs, stats.uniform(1e-4, 1e-1).cdf).pvalue < 1e-9  # the twin


def test_whole_numbers_where_the_key_takes_no_others() -> None:
    words = ("batch_size=interval(1,4)", "epochs=tag(log,interval(1,8))",
             "model.depth=int(interval(3,5))", "augment.rotation=interval(1,4)")  # fmt: skip
    found = space("model=resnet18", *words)
    assert [one.is_whole for one in found if isinstance(one, Interval)] == [True, True, True, False]
    jobs = drawn(found, 400, 0)
    sizes = Counter(word for job in jobs for word in job if word.startswith("batch_size"))
    assert set(sizes) == {f"batch_size={n}" for n in range(1, 5)}
    assert stats.chisquare(list(sizes.values())).pvalue > 0.01
    assert set(values(jobs, "epochs")) == set(map(float, range(1, 9)))


def test_a_trial_is_a_function_of_seed_and_number() -> None:
    words = (LOG, "model=mlp,lenet5", "batch_size=choice(16,32,64)")
    jobs = drawn(space(*words), 10, 0)
    assert drawn(space(*words), 4, 0) == jobs[:4]
    assert [set(job) for job in drawn(space(*reversed(words)), 10, 0)] == [set(job) for job in jobs]
    assert drawn(space(*words), 10, 1) != jobs
    assert len({tuple(job) for job in jobs}) == 10
    shuffled = drawn(space(LOG, "model=mlp,lenet5", "batch_size=shuffle(64,16,32)"), 10, 0)
    assert shuffled == jobs


def test_all_of_a_small_space_and_no_more() -> None:
    few = space("model=mlp,lenet5", "optimizer=adam,sgd")
    assert sorted(drawn(few, 100, 0)) == sorted(grid(few))


def test_each_configuration_has_every_seed() -> None:
    jobs = drawn(space(LOG, "seed=3,4,5"), 2, 0)
    assert [word for job in jobs for word in job if word.startswith("seed")] == [
        "seed=3", "seed=4", "seed=5", "seed=3", "seed=4", "seed=5",
    ]  # fmt: skip
    assert len({job[0] for job in jobs}) == 2


def test_more_trials_of_the_same_search_add_to_those_that_there_are(tmp_path: Path) -> None:
    def search(trials: int) -> Search:
        return Search(drawn(space(LOG), trials, 0))

    jobs = SimulatedJobs(lambda words, epoch: 0.5, 1)
    first = run(tmp_path / "sweep", search(3), jobs)
    folders = [job.folder for job in first.jobs]
    later = run(tmp_path / "sweep", search(5), jobs)
    assert [job.folder for job in later.jobs][:3] == folders
    assert [job.attempts for job in later.jobs] == [1] * 5
    assert jobs.num_epochs == 5


@pytest.mark.parametrize(
    ("words", "settings", "said"),
    [
        ([LOG], {"strategy": "grid"}, "search=grid takes every combination"),
        ([LOG], {"strategy": "halving", "trials": 0}, "search.trials=N draws from it"),
        (["model=mlp"], RANDOM, "no key has several values"),
        (["seed=0,1"], RANDOM, "no key has several values"),
        (["seed=interval(0,9)"], RANDOM, "list the values: seed=0,1,2"),
        ([LOG], {**RANDOM, "trials": 0}, "search.trials=0"),
    ],
)
def test_what_does_not_go_together(
    words: list[str], settings: dict[str, object], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        check(settings, space(*words))
    check(RANDOM, space(LOG, *(word for word in words if "interval" not in word)))


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("optimizer.lr=interval(1,1)", "from a number to a larger one"),
        ("optimizer.lr=interval(2,1)", "from a number to a larger one"),
        ("optimizer.lr=tag(log,interval(0,1))", "greater than 0"),
        ("batch_size=interval(1.5,4)", "takes whole numbers"),
        ("search.trials=1,2", "cannot be swept"),
        ("search=grid,random", "cannot be swept"),
        ("epochs=range(1,1)", "has no values"),
    ],
)
def test_intervals_that_are_none(word: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        space(word)


def test_what_is_compared_when_a_search_goes_on() -> None:
    text = settings_text(RANDOM, space(LOG, "model=mlp"))
    assert text == settings_text({**RANDOM, "trials": 9}, space("model=mlp", LOG, "seed=0,1"))
    assert text != settings_text({**RANDOM, "seed": 1}, space(LOG))
    assert text != settings_text(RANDOM, space("optimizer.lr=interval(1e-4,1e-1)"))

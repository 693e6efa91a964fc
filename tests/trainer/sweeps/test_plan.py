"""Names of jobs' folders, what is new in a plan, room on a machine."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from trainer.errors import UserError
from trainer.runs.sweep_file import Job, Sweep
from trainer.sweeps.plan import changes, extend, folder_name, swept
from trainer.sweeps.room import Room


def sweep(*jobs: list[str]) -> Sweep:
    found = Sweep(Path("sweep"), "sweep", [])
    extend(found, jobs)
    return found


def test_swept_words_are_those_that_differ() -> None:
    assert swept([["a=1", "b=2"], ["a=1", "b=3"]]) == [["b=2"], ["b=3"]]
    assert swept([["a=1"]]) == [[]]
    assert swept([]) == []


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["model=mlp", "seed=0"], "0_model=mlp_seed=0"),
        ([], "0"),
        (["+model.hidden=[128,64]"], "0_model.hidden=-128,64"),
        (["data.root='/a b/c'"], "0_data.root=-a-b-c"),
        (["weights='äö/x.pth'"], "0_weights=äö-x.pth"),
        ([f"weights={'x' * 300}"], f"0_weights={'x' * 110}"),
    ],
)
def test_folder_names(words: list[str], name: str) -> None:
    assert folder_name(0, words) == name
    assert "/" not in name


def test_names_cannot_collide() -> None:
    jobs = [[f"weights={'x' * 300}{end}"] for end in "abc"]
    names = [job.folder for job in sweep(*jobs).jobs]
    assert len(set(names)) == 3


def test_a_job_is_known_by_its_words_in_any_order() -> None:
    found = sweep(["a=1", "b=2"], ["a=1", "b=3"])
    assert extend(found, [["b=3", "a=1"], ["a=1", "b=4"]]) == 1
    assert [job.folder for job in found.jobs] == ["0_b=2", "1_b=3", "2_b=4"]
    with pytest.raises(UserError, match="gives x to several jobs"):
        extend(found, [["a=9"], ["a=8"]], names=["x", "x"])


def test_keys_that_train_nothing_make_no_other_job() -> None:
    found = sweep(["a=1"])
    assert extend(found, [["a=1", "test=none", "tensorboard=false"]]) == 0
    assert extend(found, [["a=1", "layers=numpy"], ["a=1", "num_threads=2"]]) == 2


def test_changes_name_what_changed() -> None:
    begun = {"source": "1", "config": {"epochs": 2, "seed": 0, "device": "cpu"}, "datasets": ["d"]}
    found = Sweep(Path(), "", [], {"torch": "2"}, begun)
    assert list(changes(found, {"torch": "2"}, begun)) == []
    later = {"source": "2", "config": {"epochs": 3, "device": "cuda"}, "datasets": ["e"]}
    assert list(changes(found, {"torch": "3"}, later)) == [
        "configuration: epochs: 2 -> 3", "data: d -> e", "version of torch: 2 -> 3",
        "code: the program's source files have changed",
    ]  # fmt: skip


def jobs(number: int) -> list[Job]:
    return [Job(index, [], str(index)) for index in range(number)]


def test_a_job_keeps_the_threads_that_it_has_alone() -> None:
    threads = [2, 1, 1, 3, 8]
    room = Room(0, 4, (), lambda job: threads[job.index])
    taken = [room.take(job) is not None for job in jobs(4)]
    assert taken == [True, True, True, False]  # 2 + 1 + 1 of 4
    for index in range(3):
        room.leave(index)
    assert room.take(jobs(5)[4]) == {}  # more than there are, but alone
    assert room.take(jobs(2)[1]) is None


def test_a_number_that_was_asked_for_is_kept() -> None:
    room = Room(3, 1, (), lambda job: 1)
    assert [room.take(job) is not None for job in jobs(4)] == [True, True, True, False]


def test_gpus_take_one_job_each() -> None:
    room = Room(0, 4, (0, 1), lambda job: 1)
    given = [room.take(job) for job in jobs(3)]
    assert given == [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}, None]
    room.leave(0)
    assert room.take(jobs(3)[2]) == {"CUDA_VISIBLE_DEVICES": "0"}
    room = Room(4, 4, (0, 1), lambda job: 1)  # two on each, where it is asked for
    found = [room.take(job) or {} for job in jobs(4)]
    counts = itertools.groupby(sorted(one["CUDA_VISIBLE_DEVICES"] for one in found))
    assert [len(list(group)) for _, group in counts] == [2, 2]

"""A sweep from its command to its table: each job a process of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.commands import Finished, read_json, run_trainer
from tests.helpers.small_sweeps import SMALL, hashes, job_of, jobs_of, summary

WORDS = (*SMALL, "optimizer.lr=1e-9,0.01", "seed=0,1")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Finished]:
    cwd = tmp_path_factory.mktemp("sweep")
    done = run_trainer("--multirun", *WORDS, "jobs=2", "sweep.name=mine", cwd=cwd)
    assert done.returncode == 0, done.output
    return cwd / "outputs" / "mine", done


def test_the_plan_and_the_folders_say_what_was_swept(sweep: tuple[Path, Finished]) -> None:
    folder, done = sweep
    jobs = jobs_of(folder)
    assert [job["folder"] for job in jobs] == [
        "0_optimizer.lr=1e-09_seed=0", "1_optimizer.lr=1e-09_seed=1",
        "2_optimizer.lr=0.01_seed=0", "3_optimizer.lr=0.01_seed=1",
    ]  # fmt: skip
    assert [job["index"] for job in jobs] == [0, 1, 2, 3]
    assert {(job["state"], job["attempts"]) for job in jobs} == {("finished", 1)}
    assert jobs[3]["overrides"] == [*SMALL, "optimizer.lr=0.01", "seed=1"]
    for job in jobs:
        run = folder / job["folder"]
        assert summary(run)["status"] == "finished"
        assert "epoch 2/2" in (run / "terminal.log").read_text()
        assert "epoch 2/2" in (run / "trainer.log").read_text()
        assert "jobs" not in (run / ".hydra" / "overrides.yaml").read_text()
    assert done.stdout.count("started") == done.stdout.count(" of 4") == 4
    assert "[4 of 4]" in done.stdout
    assert done.stderr == ""


def test_a_job_computes_what_it_computes_alone(sweep: tuple[Path, Finished]) -> None:
    folder = sweep[0]
    cwd = folder.parent.parent
    alone = run_trainer(
        *SMALL, "optimizer.lr=0.01", "seed=1", "hydra.run.dir=outputs/alone", cwd=cwd
    )
    assert alone.returncode == 0, alone.output
    assert hashes(folder)[3] == summary(cwd / "outputs" / "alone")["weights_sha256"]
    assert len(set(hashes(folder))) == 4


def test_nothing_is_done_twice(sweep: tuple[Path, Finished]) -> None:
    folder = sweep[0]
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("summary.json")}
    done = run_trainer("resume", str(folder), "jobs=1", "launcher=local", cwd=folder)
    assert done.returncode == 0, done.output
    assert "started" not in done.stdout
    for words, said in ((["jobs=-1"], "jobs=-1: must be"), (["epochs=3"], "these may: jobs,")):
        refused = run_trainer("resume", str(folder), *words, cwd=folder)
        assert (refused.returncode, said in refused.stderr) == (2, True), refused.output
    job = job_of(folder, 0)
    refused = run_trainer("resume", str(job), "jobs=2", cwd=folder)
    assert refused.returncode == 2
    assert "jobs: is a key of sweeps" in refused.stderr
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("summary.json")} == before
    assert [job["attempts"] for job in jobs_of(folder)] == [1] * 4


def test_the_same_command_with_more_values_adds_jobs(tmp_path: Path) -> None:
    words = ("--multirun", *SMALL, "jobs=2", "sweep.name=mine", "epochs=1")
    first = run_trainer(*words, "seed=0,1", cwd=tmp_path)
    assert first.returncode == 0, first.output
    more = run_trainer(*words, "seed=0,7,1", cwd=tmp_path)
    assert more.returncode == 0, more.output
    jobs = jobs_of(tmp_path / "outputs" / "mine")
    assert [job["folder"] for job in jobs] == ["0_seed=0", "1_seed=1", "2_seed=7"]
    assert [job["attempts"] for job in jobs] == [1, 1, 1]
    assert "going on with 3 jobs, 1 of them new" in more.stdout
    other = run_trainer(*words, "seed=0,1", "model.hidden=[8]", cwd=tmp_path)
    assert other.returncode == 2
    assert "configuration: model.hidden" in other.stderr
    assert len(jobs_of(tmp_path / "outputs" / "mine")) == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["jobs=2"], "jobs: is a key of sweeps"),
        (["--multirun", "jobs=-1"], "jobs=-1: must be a whole number at least 0"),
        (["--multirun", "jobs=1,2"], "jobs=1,2: cannot be swept; it is one value of the whole"),
        (["--multirun", "seed=0,1,0"], "seed=0: the sweep has this job 2 times"),
        (["--multirun", "sweep.name=a/b"], "the name of a folder below outputs/"),
        (["--multirun", "sweep.name=.."], "the name of a folder below outputs/"),
        (["--multirun", "launcher=cloud"], "launcher=cloud: must be one of local"),
        (["--multirun", "sweep.nam=a"], "sweep.nam"),
        (["--multirun", "sweep.name=a", "hydra.sweep.dir=b"], "one of the two"),
        (["--multirun", "seed=range(0,100)", "optimizer.lr=range(1,200)"], "19,900 combinations"),
        (["--multirun", "seed=0,1", "hydra.sweep.subdir=same"], "hydra.sweep.subdir: gives same"),
        (["resume", "x", "--retry-failed"], "x: holds no run to resume"),
        (["resume", "x", "jobs=2"], "x: holds no run to resume"),
    ],
)
def test_what_is_refused_leaves_nothing(tmp_path: Path, words: list[str], said: str) -> None:
    done = run_trainer(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert not (tmp_path / "outputs").exists() or not any((tmp_path / "outputs").rglob("*.json"))


EVIL = [
    (["model._target_=evil.Net"], "model._target_=evil.Net, which is none of this program's own"),
    (["+model.extra._target_=evil.Net"], "only a group's own _target_ may say what is called"),
    (["hydra.callbacks.x._target_=evil.Net"], ""),
]


@pytest.mark.parametrize("place", ["command", "jobs"])
@pytest.mark.parametrize(("words", "said"), EVIL)
def test_words_of_a_file_run_no_code(
    sweep: tuple[Path, Finished], tmp_path: Path, words: list[str], said: str, place: str
) -> None:
    """Neither those of the command nor those that one job alone has."""
    found = read_json(sweep[0] / "sweep.json")
    if place == "command":
        found["command"] += words
    else:
        found["jobs"][1]["overrides"] += words
    refused = "is not taken from" if place == "command" else "is no override of a training"
    check_refused(tmp_path, found, said or refused)


@pytest.mark.parametrize(
    ("name", "flags", "said"),
    [
        ("experiment/own.yaml", ["experiment=own"], "sets hydra.callbacks"),
        ("own.yaml", ["--config-name", "own"], "--config-name and --config-path are not taken"),
    ],
)
def test_folders_that_a_file_names_run_no_code(
    sweep: tuple[Path, Finished], tmp_path: Path, name: str, flags: list[str], said: str
) -> None:
    file = tmp_path / "my" / name
    file.parent.mkdir(parents=True)
    file.write_text("# @package _global_\nhydra: {callbacks: {x: {_target_: evil.Net}}}\n")
    found = read_json(sweep[0] / "sweep.json")
    found["command"] = ["--config-dir", str(tmp_path / "my"), *flags, *found["command"]]
    check_refused(tmp_path, found, said)


def check_refused(cwd: Path, plan: dict[str, Any], said: str) -> None:
    """`resume` of this plan, none of whose jobs has begun, whatever it says."""
    (cwd / "evil.py").write_text("open('ran', 'w')\nclass Net: pass\n")
    (cwd / "sweep").mkdir()
    (cwd / "sweep" / "sweep.json").write_text(json.dumps(plan))
    done = run_trainer("resume", "sweep", cwd=cwd)
    assert (done.returncode, said in done.stderr) == (2, True), done.output
    assert not (cwd / "ran").exists()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"jobs": [5]}', '{"name": 1, "jobs": {}}'])
def test_a_damaged_plan_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "sweep.json").write_text(text)
    done = run_trainer("resume", str(tmp_path), cwd=tmp_path)
    assert done.returncode == 2
    assert "sweep.json: cannot be read" in done.stderr
    assert "Traceback" not in done.output

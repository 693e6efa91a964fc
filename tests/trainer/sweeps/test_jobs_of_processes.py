"""A sweep whose jobs are trainings in several processes each."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.helpers import processes
from tests.helpers.commands import run_trainer
from tests.helpers.small_sweeps import SMALL, hashes, job_of, jobs_of, summary
from trainer.errors import UserError
from trainer.runs.sweep_file import Job
from trainer.sweeps import room
from trainer.system.threads import threads_at_start

WORDS = (*SMALL, "processes=2", "num_threads=1")
LONG = (*WORDS, "data.num_train=6000", "epochs=8")


@pytest.mark.slow
def test_a_job_computes_what_it_computes_alone(tmp_path: Path) -> None:
    done = run_trainer("--multirun", *WORDS, "seed=0,1", "sweep.name=mine", cwd=tmp_path)
    assert done.returncode == 0, done.output
    sweep = tmp_path / "outputs" / "mine"
    assert "2 processes, 1 thread each" in (job_of(sweep, 0) / "terminal.log").read_text()
    assert all(summary(job_of(sweep, k))["processes"] == 2 for k in (0, 1))
    assert all(summary(job_of(sweep, k))["test_accuracy"] is not None for k in (0, 1))
    alone = run_trainer(*WORDS, "seed=1", "hydra.run.dir=outputs/alone", cwd=tmp_path)
    assert alone.returncode == 0, alone.output
    assert summary(tmp_path / "outputs" / "alone")["weights_sha256"] == hashes(sweep)[1]
    again = run_trainer("--multirun", *WORDS, "seed=0,1", "sweep.name=mine", cwd=tmp_path)
    assert again.returncode == 0, again.output
    assert "started" not in again.stdout


@pytest.mark.slow
def test_a_stopped_one_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    words = (*LONG, "seed=0,1", "test=none", "sweep.name=mine")
    sweep = tmp_path / "outputs" / "mine"
    command = processes.Command(tmp_path, ("--multirun", *words))
    command.wait_for(lambda: any(sweep.glob("0*/checkpoints/step_*.pth")))
    command.send(signal.SIGTERM)
    ended = command.wait()
    assert ended.code == 128 + signal.SIGTERM, ended.output
    assert [job["state"] for job in jobs_of(sweep)] == ["interrupted", "waiting"]
    assert 0 < summary(job_of(sweep, 0))["steps"] < 8 * 85
    resumed = run_trainer("resume", "outputs/mine", "jobs=1", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.output
    whole = run_trainer(*LONG, "seed=0", "test=none", "hydra.run.dir=outputs/whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.output
    assert hashes(sweep)[0] == summary(tmp_path / "outputs" / "whole")["weights_sha256"]


def test_a_job_takes_the_room_of_all_its_processes() -> None:
    config = {"data": {"_target_": "data.synthetic.load", "shape": [1, 8, 8], "num_classes": 4},
              "model": {"_target_": "models.mlp.MLP", "hidden": [8], "activation": "relu",
                        "dropout": 0.0, "init": "default"},
              "batch_size": 64, "layers": "torch", "weights": None, "replace_head": False,
              "num_threads": 1}  # fmt: skip
    for number in (1, 2, 3):
        found = room.of(0, lambda job, n=number: {**config, "processes": n}, on_gpus=False)
        assert found.threads_of(Job(0, [], "0")) == number
    shared = room.of(0, lambda job: {**config, "processes": 2, "num_threads": 0,
                                     "batch_size": 10**9}, on_gpus=False)  # fmt: skip
    assert shared.threads_of(Job(0, [], "0")) == 2 * max(1, threads_at_start() // 2)


def test_on_gpus_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from trainer.system import device

    monkeypatch.setattr(device, "available_devices", lambda: ["cuda:0", "cpu"])
    job = {"processes": 2, "device": "auto", "layers": "torch"}
    with pytest.raises(UserError, match="processes=2 with --multirun: each job of a sweep has one"):
        room.check_gpus([job])
    room.check_gpus([{**job, "device": "cpu"}, {**job, "processes": 1}])

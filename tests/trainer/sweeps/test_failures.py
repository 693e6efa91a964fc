"""Jobs that fail, die and are cut off: each alone, told with its reason, and gone on with."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

from tests.helpers import processes
from tests.helpers.commands import run_trainer
from tests.helpers.small_sweeps import SMALL, hashes, jobs_of, summary

# A model of the user's own that ends its process in one of many ways, unless a file says not to.
BAD = """\
import os, signal, sys
from torch import nn

class Net(nn.Sequential):
    def __init__(self, shape, num_classes, mode="none"):
        super().__init__(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], num_classes))
        self.mode = mode

    def forward(self, images):
        if self.training and not os.path.exists("mended") and not images.is_meta:
            if self.mode == "raise":
                raise RuntimeError("no such luck")
            if self.mode == "assert":
                raise AssertionError
            if self.mode == "exit130":
                os._exit(130)
            if self.mode == "exit":
                sys.exit(3)
            if self.mode in ("SIGKILL", "SIGSEGV"):
                os.kill(os.getpid(), getattr(signal, self.mode))
        return super().forward(images)
"""
YAML = "_target_: bad.Net\nshape: ${data.shape}\nnum_classes: ${data.num_classes}\nmode: none\n"
OWN = [word for word in SMALL if word != "model=mlp"]


@pytest.fixture
def bad_nets(tmp_path: Path) -> Path:
    (tmp_path / "bad.py").write_text(BAD)
    (tmp_path / "my" / "model").mkdir(parents=True)
    (tmp_path / "my" / "model" / "bad.yaml").write_text(YAML)
    return tmp_path


@pytest.mark.slow
def test_a_job_that_fails_does_not_touch_the_others(bad_nets: Path) -> None:
    words = ("--multirun", "--config-dir", "my", *OWN, "model=bad", "jobs=2", "sweep.name=bad",
             "model.mode=none,raise,exit,SIGKILL,SIGSEGV,assert", "seed=0,1")  # fmt: skip
    done = run_trainer(*words, cwd=bad_nets)
    assert done.returncode == 1, done.output
    sweep = bad_nets / "outputs" / "bad"
    reasons = [job["reason"] or "" for job in jobs_of(sweep)]
    said = ("", "no such luck", "sys.exit(3) was called", "killed by SIGKILL: out of memory?",
            "killed by SIGSEGV", "AssertionError")  # fmt: skip
    for number, job in enumerate(jobs_of(sweep)):
        assert said[number // 2] in reasons[number]
        assert job["state"] == ("finished" if number < 2 else "failed")
        assert summary(sweep / job["folder"])["status"] == job["state"]
        assert reasons[number] in done.stdout
    go_on = "go on         python -m trainer resume outputs/bad --retry-failed trust=[bad]"
    assert go_on in done.stdout
    for job in jobs_of(sweep)[2:4]:
        assert "RuntimeError" in (sweep / job["folder"] / "trainer.log").read_text()

    # Again: those that failed are left alone, and still count.
    again = run_trainer("resume", "outputs/bad", "trust=bad", cwd=bad_nets)
    assert again.returncode == 1, again.output
    assert "started" not in again.stdout
    assert [job["attempts"] for job in jobs_of(sweep)] == [1] * 12

    (bad_nets / "mended").touch()
    mended = run_trainer("resume", "outputs/bad", "--retry-failed", "trust=bad", cwd=bad_nets)
    assert mended.returncode == 0, mended.output
    assert [job["attempts"] for job in jobs_of(sweep)] == [1] * 2 + [2] * 10
    found = hashes(sweep)
    assert found == found[:2] * 6  # every mode computes the same


@pytest.mark.slow
def test_the_test_split_waits_for_what_may_change_the_selection(bad_nets: Path) -> None:
    words = ("--multirun", "--config-dir", "my", *OWN, "model=bad", "jobs=1", "sweep.name=bad",
             "model.mode=none,exit130")  # fmt: skip
    done = run_trainer(*words, cwd=bad_nets)
    assert done.returncode == 1, done.output
    sweep = bad_nets / "outputs" / "bad"
    first, second = (sweep / job["folder"] for job in jobs_of(sweep))
    assert [job["state"] for job in jobs_of(sweep)] == ["finished", "interrupted"]
    assert "the test split is read once 1 more job ended" in done.stdout
    assert summary(first)["test_accuracy"] is None
    assert "stopped before its first saved state" in summary(second)["reason"]
    (bad_nets / "mended").touch()
    mended = run_trainer("resume", "outputs/bad", "trust=[bad]", cwd=bad_nets)
    assert mended.returncode == 0, mended.output
    assert summary(first)["test_accuracy"] is not None
    assert hashes(sweep)[0] == hashes(sweep)[1]


@pytest.mark.slow
def test_a_signal_stops_all_jobs_and_saves_them(tmp_path: Path) -> None:
    words = ("--multirun", *SMALL, "epochs=60", "jobs=2", "seed=0,1,2", "sweep.name=mine")
    sweep = tmp_path / "outputs" / "mine"
    for number in (signal.SIGINT, signal.SIGTERM):
        command = processes.Command(tmp_path, words)
        command.wait_for(
            lambda c=command: " 1  " in c.stdout and any(sweep.glob("1*/checkpoints/step_*.pth"))
        )
        command.send(number)
        ended = command.wait()
        assert ended.code == 128 + number, ended.output
        assert "go on         python -m trainer resume outputs/mine" in ended.stdout
        assert "stopping 2 jobs" in ended.stdout
        states = [job["state"] for job in jobs_of(sweep)]
        assert "running" not in states
        assert "interrupted" in states
        assert all(state in ended.stdout for state in ("interrupted", "not started"))
    assert run_trainer("resume", "outputs/mine", cwd=tmp_path).returncode == 0
    whole = run_trainer("--multirun", *SMALL, "epochs=60", "seed=0,1,2", "sweep.name=whole",
                        cwd=tmp_path)  # fmt: skip
    assert whole.returncode == 0, whole.output
    assert hashes(sweep) == hashes(tmp_path / "outputs" / "whole")


@pytest.mark.slow
def test_a_killed_sweep_loses_nothing_and_does_nothing_twice(tmp_path: Path) -> None:
    words = ("--multirun", *SMALL, "epochs=20", "jobs=2", "seed=0,1,2", "optimizer.lr=0.1,0.01",
             "sweep.name=mine")  # fmt: skip
    sweep, draw = tmp_path / "outputs" / "mine", random.Random(0)
    ended_at: dict[str, int] = {}
    for _ in range(6):
        command = processes.Command(tmp_path, words)
        time.sleep(draw.uniform(0.3, 4.0))
        command.kill()
        for file in sweep.glob("*/summary.json"):
            if summary(file.parent)["status"] == "finished":
                ended_at.setdefault(file.parent.name, file.stat().st_mtime_ns)
    done = run_trainer(*words, cwd=tmp_path)
    assert done.returncode == 0, done.output
    whole = run_trainer("--multirun", *SMALL, "epochs=20", "seed=0,1,2", "optimizer.lr=0.1,0.01",
                        "sweep.name=whole", cwd=tmp_path)  # fmt: skip
    assert whole.returncode == 0, whole.output
    assert hashes(sweep) == hashes(tmp_path / "outputs" / "whole")
    tested = {job["folder"] for job in jobs_of(sweep)
              if summary(sweep / job["folder"])["test_accuracy"] is not None}  # fmt: skip
    for name, at in ended_at.items():
        assert name in tested or (sweep / name / "summary.json").stat().st_mtime_ns == at


@pytest.mark.slow
def test_a_job_is_gone_on_with_by_its_own_command(tmp_path: Path) -> None:
    """As Slurm's requeue and Ray's retry give it again."""
    words = ("--multirun", *SMALL, "epochs=60", "jobs=1", "seed=0,1", "sweep.name=mine")
    sweep = tmp_path / "outputs" / "mine"
    command = processes.Command(tmp_path, words)
    command.wait_for(lambda: any(sweep.glob("0*/checkpoints/step_*.pth")))
    command.send(signal.SIGTERM)
    assert command.wait().code == 143
    job = jobs_of(sweep)[0]
    own = (*job["overrides"], f"hydra.run.dir={sweep / job['folder']}")
    other = run_trainer(*own, "optimizer.lr=0.5", cwd=tmp_path)
    assert other.returncode == 2
    assert "optimizer.lr: 0.001 -> 0.5" in other.stderr
    done = run_trainer(*own, cwd=tmp_path)
    assert done.returncode == 0, done.output
    assert summary(sweep / job["folder"])["status"] == "finished"
    again = run_trainer(*own, cwd=tmp_path)
    assert (again.returncode, "already finished" in again.stdout) == (0, True)
    alone = run_trainer(*job["overrides"], "hydra.run.dir=alone", cwd=tmp_path)
    assert alone.returncode == 0
    key = "weights_sha256"
    assert summary(tmp_path / "alone")[key] == summary(sweep / job["folder"])[key]
    refused = run_trainer(*job["overrides"], "hydra.run.dir=alone", cwd=tmp_path)
    assert refused.returncode == 2  # a folder that no sweep names
    assert "holds a run already" in refused.stderr


def has_begun(command: processes.Command, sweep: Path) -> bool:
    """True once job 1 was started by this command, and has saved a state."""
    return "   1  " in command.stdout and any(sweep.glob("1*/checkpoints/step_*.pth"))

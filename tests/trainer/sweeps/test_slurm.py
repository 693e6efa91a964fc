"""Sweeps on a true Slurm: failures, jobs put back into the queue, a controller that dies."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers import processes, slurm_cluster
from tests.helpers.commands import Finished, run_trainer
from tests.helpers.slurm_cluster import called
from tests.helpers.small_sweeps import (
    SMALL,
    check_one_killed_one_finished_one_diverged,
    hashes,
    jobs_of,
    summary,
)
from trainer.errors import UserError
from trainer.sweeps import on_slurm

pytestmark = pytest.mark.slow
# Of some seconds: to be met while it runs.
LONG = ("--multirun", *SMALL, "data.num_train=20000", "epochs=25", "seed=0,1", "test=none")
ON_SLURM = (*LONG, "launcher=slurm", "sweep.name=mine")


@pytest.fixture(scope="module")
def slurm() -> Iterator[None]:
    if reason := slurm_cluster.missing():
        pytest.skip(reason)
    with (
        tempfile.TemporaryDirectory(prefix="slurm-") as folder,
        slurm_cluster.running(Path(folder) / "slurm"),
    ):
        yield


def queue() -> dict[str, str]:
    """State of each task in the queue, by its id."""
    rows = called("squeue", "--noheader", "--array", "--format=%i %T").split("\n")
    return dict(row.split() for row in rows if row)


def wait_until(condition: Callable[[], object], timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, called("squeue")
        time.sleep(0.1)


def has_states(sweep: Path) -> bool:
    return all(any(sweep.glob(f"{k}*/checkpoints/step_*.pth")) for k in (0, 1))


def test_jobs_that_fail_and_one_that_is_killed(slurm: None, tmp_path: Path) -> None:
    sweep = tmp_path / "outputs" / "mine"
    command = processes.Command(tmp_path, (
        "--multirun", *SMALL, "data.num_train=20000", "epochs=10", "optimizer.lr=0.02,0.01,1e30",
        "launcher=slurm", "jobs=2", "sweep.name=mine",
    ))  # fmt: skip
    command.wait_for(lambda: any(sweep.glob("0*/checkpoints/step_*.pth")))
    (killed,) = sweep.glob("0*/.lock")
    os.kill(int(killed.read_text().split()[1]), signal.SIGKILL)
    ended = command.wait()
    assert ended.code == 1, ended.output
    jobs = check_one_killed_one_finished_one_diverged(sweep)
    assert "epoch 10/10" in (sweep / jobs[1]["folder"] / "terminal.log").read_text()
    assert not (sweep / ".slurm").exists()
    assert not queue()


def test_put_back_into_the_queue_and_found_again(slurm: None, tmp_path: Path) -> None:
    """By an administrator, by a time limit; and the controller is killed meanwhile."""
    sweep = tmp_path / "outputs" / "mine"
    command = processes.Command(tmp_path, ON_SLURM)
    command.wait_for(lambda: has_states(sweep))
    command.kill()
    before = queue()
    assert set(before.values()) == {"RUNNING"}
    requeued, limited = sorted(before)
    subprocess.run(["scontrol", "requeue", requeued], check=True)
    subprocess.run(["scancel", "--batch", "--signal=USR2", limited], check=True)
    wait_until(lambda: set(queue().values()) == {"PENDING"})
    states = [summary(file.parent)["status"] for file in sweep.glob("*/summary.json")]
    assert states == ["interrupted"] * 2
    again = processes.Command(tmp_path, ("resume", "outputs/mine"))
    again.wait_for(lambda: again.stdout.count("still there") == 2)
    for task in before:  # Slurm holds them back for two minutes
        subprocess.run(["scontrol", "update", f"JobId={task}", "StartTime=now"], check=True)
    ended = again.wait()
    assert ended.code == 0, ended.output
    assert [job["attempts"] for job in jobs_of(sweep)] == [1, 1]
    for job in jobs_of(sweep):
        log = (sweep / job["folder"] / "terminal.log").read_text()
        assert log.count("SIGTERM: stopping") == log.count("resuming from step") == 1
    whole = run_trainer(*LONG, "jobs=2", "sweep.name=whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.output
    assert hashes(sweep) == hashes(tmp_path / "outputs" / "whole")


def test_a_signal_cancels_and_saves(slurm: None, tmp_path: Path) -> None:
    sweep = tmp_path / "outputs" / "mine"
    words = (*ON_SLURM, "epochs=50000")
    command = processes.Command(tmp_path, words)
    command.wait_for(lambda: has_states(sweep))
    command.send(signal.SIGHUP)  # a terminal that is closed
    assert command.wait().code == 129
    assert set(queue().values()) == {"RUNNING"}
    again = processes.Command(tmp_path, words)
    again.wait_for(lambda: again.stdout.count("still there") == 2)
    again.send(signal.SIGINT)
    ended = again.wait()
    assert ended.code == 130, ended.output
    assert [job["state"] for job in jobs_of(sweep)] == ["interrupted"] * 2
    assert not queue()


def test_what_slurm_refuses_is_told(
    slurm: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SBATCH_PARTITION", "none")
    done = run_trainer(*ON_SLURM, cwd=tmp_path)
    assert done.returncode == 2
    assert "launcher=slurm: sbatch: invalid partition specified: none" in done.stderr
    assert "SBATCH_PARTITION" in done.stderr
    assert "Traceback" not in done.output


def test_without_slurm_it_is_told(dispatch: Callable[..., Finished], tmp_path: Path,
                                  monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setenv("PATH", str(tmp_path))
    done = dispatch(*ON_SLURM)
    assert done.returncode == 2
    assert "launcher=slurm: sbatch was not found on this machine's PATH" in done.stderr
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("answers", [False, True])
def test_a_slurm_that_does_not_answer_is_told_before_the_sweep_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    for name in on_slurm.COMMANDS:
        fails = name == "sinfo" and not answers
        (tmp_path / name).write_text(
            "#!/bin/sh\n" + ("echo 'no controller at c1' >&2; exit 1" if fails else "exit 0")
        )
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    if answers:
        on_slurm.check()
        return
    with pytest.raises(UserError, match=r"Slurm does not answer: no controller at c1\n.*local"):
        on_slurm.check()

"""A training that was cut off ends in the same bits as one that was not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.helpers.commands import Finished, TrainedRun, read_json, run_trainer, train

# With this threshold no loss is low enough, so that the rate falls after each epoch.
ARGV = ("model.dropout=0.3", "epochs=6", "scheduler=plateau", "scheduler.patience=0",
        "scheduler.threshold=0.9")  # fmt: skip


def cut_off(cwd: Path, *argv: str, after_rows: int) -> TrainedRun:
    """A training killed by SIGKILL once it has written so many rows."""
    process = subprocess.Popen(
        [sys.executable, "-m", "trainer", *argv, "hydra.run.dir=run"],
        cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    rows, deadline = cwd / "run" / "metrics.jsonl", time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if rows.exists() and len(rows.read_text().splitlines()) >= after_rows:
            break
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return TrainedRun(Finished(process.returncode, "", ""), cwd / "run")


def without_speed(run: TrainedRun) -> list[dict[str, object]]:
    return [{k: v for k, v in row.items() if k != "images_per_s"} for row in run.rows]


@pytest.mark.slow
def test_killed_and_resumed(tmp_path: Path) -> None:
    whole = train(tmp_path, *ARGV, folder="whole")
    killed = cut_off(tmp_path, *ARGV, after_rows=6)
    assert killed.rows[0]["lr"] > killed.rows[4]["lr"], "the schedule has a state by now"
    assert not (killed.folder / "summary.json").exists()
    resumed = run_trainer("resume", "run", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.output
    assert "resuming from step" in resumed.stdout
    assert killed.summary["weights_sha256"] == whole.summary["weights_sha256"]
    assert without_speed(killed) == without_speed(whole)
    events = EventAccumulator(str(killed.folder / "tensorboard")).Reload()
    steps = [point.step for point in events.Scalars("loss/train")]
    assert steps == [row["step"] for row in whole.rows if row["split"] == "train"]


@pytest.mark.slow
def test_stopped_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    """SIGTERM on a long epoch; the default run to go on with is the unfinished one."""
    argv = ("model.dropout=0.3", "batch_size=2", "epochs=2")
    whole = train(tmp_path, *argv, folder="outputs/whole")
    process = subprocess.Popen(
        [sys.executable, "-m", "trainer", *argv, "hydra.run.dir=outputs/cut"],
        cwd=tmp_path, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("device"):
            break
    time.sleep(0.4)
    process.terminate()
    process.communicate()
    assert process.returncode == 143
    summary = read_json(tmp_path / "outputs" / "cut" / "summary.json")
    assert summary["steps"] % 1800 != 0, "the signal came between two epochs"
    resumed = run_trainer("resume", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.output
    done = read_json(tmp_path / "outputs" / "cut" / "summary.json")
    assert done["status"] == "finished"
    assert done["weights_sha256"] == whole.summary["weights_sha256"]


@pytest.mark.slow
def test_a_damaged_state_is_named_and_the_one_before_is_taken(tmp_path: Path) -> None:
    whole = train(tmp_path, *ARGV, folder="whole")
    killed = cut_off(tmp_path, *ARGV, after_rows=6)
    states = sorted((killed.folder / "checkpoints").glob("step_*.pth"), key=lambda p: len(p.name))
    newest = max(states, key=lambda path: int(path.stem.partition("_")[2]))
    newest.write_bytes(newest.read_bytes()[:-100])
    resumed = run_trainer("resume", "run", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.output
    assert newest.name in resumed.stdout
    assert "damaged" in resumed.stdout
    assert killed.summary["weights_sha256"] == whole.summary["weights_sha256"]
    for state in (killed.folder / "checkpoints").glob("step_*.pth"):
        state.write_bytes(b"")
    none_left = run_trainer("resume", "run", "epochs=9", cwd=tmp_path)
    assert none_left.returncode == 2
    assert "no intact state" in none_left.stderr


@pytest.mark.slow
def test_a_finished_run_is_extended_by_more_epochs(tmp_path: Path) -> None:
    argv = ("scheduler=constant", "limit_batches=3")
    whole = train(tmp_path, *argv, "epochs=4", folder="whole")
    train(tmp_path, *argv, "epochs=2", folder="run")
    refused = run_trainer("resume", "run", cwd=tmp_path)
    assert refused.returncode == 2
    assert "epochs" in refused.stderr
    resumed = run_trainer("resume", "run", "epochs=4", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.output
    done = read_json(tmp_path / "run" / "summary.json")
    assert done["weights_sha256"] == whole.summary["weights_sha256"]
    assert done["epochs"] == 4


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["optimizer.lr=0.5"], ["optimizer.lr: 0.001 -> 0.5", "--force"]),
        (["seed=3"], ["seed: 0 -> 3", "--force"]),
        (["epochs=1"], ["epochs: 20 -> 1"]),
        (["epocs=30"], ["'epocs'", "epochs"]),
    ],
)
def test_dangerous_changes_are_refused(
    default_run: TrainedRun, words: list[str], expected: list[str]
) -> None:
    before = default_run.summary
    more = [] if words[0].startswith("epochs=") else ["epochs=21"]
    done = run_trainer("resume", str(default_run.folder), *more, *words, cwd=default_run.folder)
    assert done.returncode == 2, done.output
    assert all(part in done.stderr for part in expected), done.stderr
    assert default_run.summary == before


def test_resume_where_there_is_nothing(tmp_path: Path) -> None:
    for words in (["resume"], ["resume", "."]):
        done = run_trainer(*words, cwd=tmp_path)
        assert done.returncode == 2
        assert "run" in done.stderr
        assert list(tmp_path.iterdir()) == []

"""For tests: words of a small training, and what it leaves in its folder."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

SMALL = (
    "data=synthetic", "data.num_train=301", "data.num_test=80", "data.num_classes=4",
    "data.shape=[1,8,8]", "model=mlp", "epochs=2", "tensorboard=false",
)  # fmt: skip


def summary(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return found


def predictions(folder: Path) -> list[dict[str, str]]:
    with open(folder / "predictions.csv", newline="") as file:
        return list(csv.DictReader(file))


def job_of(sweep: Path, number: int) -> Path:
    """Folder of a job of a sweep; its name begins with the job's number."""
    (found,) = [path for path in sweep.iterdir() if path.name.partition("_")[0] == str(number)]
    return found


def jobs_of(sweep: Path) -> list[dict[str, Any]]:
    """Jobs in a sweep's sweep.json."""
    jobs: list[dict[str, Any]] = json.loads((sweep / "sweep.json").read_text())["jobs"]
    return jobs


def hashes(sweep: Path) -> list[str]:
    """Digest of the last weights of each job."""
    return [summary(sweep / job["folder"])["weights_sha256"] for job in jobs_of(sweep)]


def check_one_killed_one_finished_one_diverged(sweep: Path) -> list[dict[str, Any]]:
    """What became of three jobs, in this order."""
    jobs = jobs_of(sweep)
    assert [job["state"] for job in jobs] == ["failed", "finished", "failed"]
    assert jobs[0]["reason"] == "killed by SIGKILL: out of memory?"
    assert "NaN or infinite" in jobs[2]["reason"]
    assert summary(sweep / jobs[0]["folder"])["status"] == "failed"
    assert summary(sweep / jobs[1]["folder"])["test_accuracy"] is not None
    return jobs

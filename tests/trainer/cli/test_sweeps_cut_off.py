"""A sweep that ended before all its jobs began: what is said of them is true."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.commands import Finished

Dispatch = Callable[..., Finished]

WORDS = [["seed=0", "optimizer.lr=0.1"], ["seed=0", "optimizer.lr=0.2"],
         ["seed=1", "optimizer.lr=0.1"], ["seed=1", "optimizer.lr=0.2"]]  # fmt: skip


def plan(number: int = 4) -> str:
    jobs = [
        {"index": k, "overrides": ["epochs=3", *words], "folder": str(k), "state": "waiting"}
        for k, words in enumerate(WORDS[:number])
    ]
    return json.dumps({"name": "sweep", "command": ["epochs=3"], "jobs": jobs})


@pytest.fixture
def sweep(dispatch: Dispatch) -> Path:
    """One job is done, one was cut off, two have not begun."""
    folder = Path("sweep")
    for number, words in ((0, "seed=0, optimizer.lr=0.1"), (1, "seed=0, optimizer.lr=0.2")):
        job = folder / str(number)
        for name in (".hydra", "checkpoints"):
            (job / name).mkdir(parents=True)
        (job / ".hydra" / "overrides.yaml").write_text(f"[epochs=3, {words}]")
    (folder / "0" / "summary.json").write_text(json.dumps({"status": "finished"}))
    (folder / "sweep.json").write_text(plan())
    return folder


def rows(done: Finished) -> dict[str, str]:
    lines = done.stdout.partition("\n\n")[0].splitlines()[1:]
    return {line.split()[0]: line for line in lines if line and line[0].isdigit()}


def test_the_jobs_that_had_not_begun_are_told(sweep: Path, dispatch: Dispatch) -> None:
    done = dispatch("report", "sweep")
    assert done.returncode == 0, done.output
    found = rows(done)
    assert list(found) == ["0", "1", "2", "3"]
    assert "finished" in found["0"]
    assert "unfinished" in found["1"]
    for number, lr in (("2", "0.1"), ("3", "0.2")):
        assert "not started" in found[number]
        assert f"seed=1 optimizer.lr={lr}" in found[number]
    page = (sweep / "report.html").read_text()
    assert page.count("not started") >= 3
    assert not (sweep / "2").exists()


def test_the_folder_above_tells_them_too(sweep: Path, dispatch: Dispatch) -> None:
    assert dispatch("report", ".").stdout.count("not started") == 2


def test_a_whole_sweep_has_no_more(sweep: Path, dispatch: Dispatch) -> None:
    (sweep / "sweep.json").write_text(plan(2))
    assert list(rows(dispatch("report", "sweep"))) == ["0", "1"]


@pytest.mark.parametrize(
    "content",
    ["", "5", "{}", '{"jobs": 5}', "[" * 2000, plan().replace('"index": 3', '"index": 5'),
     plan().replace('"folder": "3"', '"folder": "../3"'), plan().replace("waiting", "done")],
)  # fmt: skip
def test_where_it_cannot_be_told_nothing_is_made_up(
    sweep: Path, dispatch: Dispatch, content: str
) -> None:
    (sweep / "sweep.json").write_text(content)
    done = dispatch("report", "sweep")
    assert (done.returncode, list(rows(done))) == (0, ["0", "1"])


def test_no_message_leads_in_a_circle(sweep: Path, dispatch: Dispatch) -> None:
    again = dispatch("--multirun", "seed=0,1", "hydra.sweep.dir=sweep", "epochs=1")
    assert again.returncode == 2
    assert "holds a sweep already" in again.stderr
    assert "python -m trainer resume sweep`" in again.stderr


def test_a_sweep_of_a_launcher_of_hydras_is_resumed_job_by_job(
    sweep: Path, dispatch: Dispatch
) -> None:
    (sweep / "sweep.json").rename(sweep / "multirun.yaml")
    done = dispatch("resume", "sweep")
    assert done.returncode == 2
    assert "is a sweep of a launcher of Hydra's, which is resumed job by job" in done.stderr
    assert "python -m trainer resume sweep/1" in done.stderr

"""A sweep that ended before all its jobs began: what is said of them is true."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.commands import Finished

Dispatch = Callable[..., Finished]

MULTIRUN = """
hydra:
  sweep: {dir: sweep, subdir: '${hydra.job.num}'}
  sweeper:
    _target_: hydra._internal.core_plugins.basic_sweeper.BasicSweeper
    params: null
  overrides:
    task: [epochs=3, 'seed=0,1', 'optimizer.lr=0.1,0.2']
"""


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
    (folder / "multirun.yaml").write_text(MULTIRUN)
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
    text = MULTIRUN.replace("seed=0,1", "seed=0")
    (sweep / "multirun.yaml").write_text(text)
    assert list(rows(dispatch("report", "sweep"))) == ["0", "1"]


@pytest.mark.parametrize(
    "content",
    ["", "5", "hydra: 5", "hydra: {sweeper: 5}", "[" * 2000, MULTIRUN.replace("BasicSweeper", "X"),
     MULTIRUN.replace("${hydra.job.num}", "${hydra.job.override_dirname}"),
     MULTIRUN.replace("epochs=3,", "5, '(',"), MULTIRUN.replace("seed=0,1", "seed=range(")],
)  # fmt: skip
def test_where_it_cannot_be_told_nothing_is_made_up(
    sweep: Path, dispatch: Dispatch, content: str
) -> None:
    (sweep / "multirun.yaml").write_text(content)
    done = dispatch("report", "sweep")
    assert (done.returncode, list(rows(done))) == (0, ["0", "1"])


def test_no_message_leads_in_a_circle(sweep: Path, dispatch: Dispatch) -> None:
    done = dispatch("resume", "sweep")
    assert done.returncode == 2
    assert "is a sweep, which cannot be continued as a whole yet" in done.stderr
    assert "python -m trainer resume sweep/1" in done.stderr
    again = dispatch("--multirun", "seed=0,1", "hydra.sweep.dir=sweep", "epochs=1")
    assert again.returncode == 2
    assert "holds a sweep already" in again.stderr
    assert "resume sweep`" not in again.stderr

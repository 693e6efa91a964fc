"""What the system under a command refuses: one message, nothing half-made, a way on. The whole
campaign is `python -m tests.campaigns.system_faults`."""

from __future__ import annotations

import errno
import functools
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.campaigns import system_faults
from tests.helpers import processes, results
from tests.helpers.commands import run_trainer
from tests.helpers.tiny_training import (
    TINY,
    limit_file_size,
    refused,
    train,
    whole_run,
    without_privileges,
)
from trainer.errors import exit_code, fault_in, in_words

RUN = (*TINY, "hydra.run.dir=run")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole_run(), tmp_path / "run"))


# --- streams --------------------------------------------------------------------------------------


def shell(folder: Path, redirected: str, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", f'"$@" {redirected}', "sh", sys.executable, "-m", "trainer", *argv],
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    "closed", ["<&- >&- 2>&-", *(pytest.param(c, marks=pytest.mark.slow) for c in (">&-", "2>&-"))]
)
def test_closed_streams(tmp_path: Path, closed: str) -> None:
    """And none of the run's files got what was meant for the terminal."""
    done = shell(tmp_path, closed, *RUN, "epochs=1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert results.summary(tmp_path / "run")["status"] == "finished"
    assert [row["split"] for row in results.rows(tmp_path / "run")] == ["train", "val", "test"]


@pytest.mark.slow
@pytest.mark.parametrize("words", [("report", "run"), ("summary",), ("model=nope",)])
def test_closed_streams_of_other_commands(run: Path, words: tuple[str, ...]) -> None:
    code = 2 if "model=nope" in words else 0
    assert shell(run.parent, "<&- >&- 2>&-", *words).returncode == code


@pytest.mark.slow
def test_a_folder_whose_name_is_no_text(tmp_path: Path) -> None:
    here = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    here.mkdir()
    best = "run/checkpoints/best.pth"
    for words in ((*RUN, "tensorboard=true"), ("report", "run"), ("resume", "run", "epochs=3"),
                  ("evaluate", best), ("export", best, "--format", "state_dict"),
                  ("report", str(here))):  # fmt: skip
        ended = run_trainer(*words, cwd=here)  # with the streams of its own start
        assert ended.returncode == 0, ended.output
    # TensorBoard itself does not read there.
    copied = Path(shutil.copytree(here / "run", tmp_path / "copied"))
    assert [step for step, _ in results.curves(copied)["loss/val"]] == [4, 8, 12]
    assert "caf" in (here / "run" / "report.html").read_text("utf-8")


# --- event files ----------------------------------------------------------------------------------


def test_an_event_file_that_the_disk_does_not_take(tmp_path: Path) -> None:
    prepare = functools.partial(limit_file_size, 6000)
    ended = processes.run(tmp_path, *RUN, "tensorboard=true", prepare=prepare)
    refused(ended, "Not enough disk space", "tfevents", code=1)
    assert "Exception in thread" not in ended.output
    again = processes.run(tmp_path, *RUN, "tensorboard=true")  # there is room again
    assert again.code == 0, again.output
    steps = [step for step, _ in results.curves(tmp_path / "run")["loss/val"]]
    assert steps == [4, 8]  # each once


def move_away(what: str, at: int) -> None:
    """Before the `at`-th training step, counted from 0."""
    from trainer.training import loop

    step, count = loop.train_step, iter(range(at))

    def stepping(*args: Any) -> Any:
        if next(count, None) is None and os.path.exists(what):
            os.rename(what, "moved")
        return step(*args)

    loop.train_step = stepping


@pytest.mark.slow
def test_what_is_moved_under_a_run(tmp_path: Path) -> None:
    prepare = functools.partial(move_away, "run/tensorboard", 5)
    ended = processes.run(tmp_path, *RUN, "tensorboard=true", prepare=prepare)
    assert ended.code == 0, ended.output
    assert "was moved or removed" in ended.output
    shutil.rmtree(tmp_path / "run")
    shutil.rmtree(tmp_path / "moved")
    prepare = functools.partial(move_away, "run", 5)
    ended = processes.run(tmp_path, *RUN, "tensorboard=true", prepare=prepare)
    refused(ended, "run", "No such file or directory", code=1)
    assert "Exception" not in ended.output
    assert processes.run(tmp_path, "resume", "moved").code == 0


# --- folders that nothing came of -----------------------------------------------------------------


def hydra_cannot_write(number: int, name: str) -> None:
    """The disk takes no more when Hydra closes this file of `.hydra/`."""

    def act(call: str, path: str) -> None:
        if call == "write" and path.endswith(name):
            raise OSError(number, os.strerror(number))

    system_faults.install(os.getcwd(), act)


NUMBERS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


@pytest.mark.parametrize(
    ("number", "name"),
    [(NUMBERS[0], "hydra.yaml"),
     *(pytest.param(n, ".hydra/config.yaml", marks=pytest.mark.slow) for n in NUMBERS[1:])],
)  # fmt: skip
def test_a_disk_that_is_full_when_a_run_begins(tmp_path: Path, number: int, name: str) -> None:
    prepare = functools.partial(hydra_cannot_write, number, name)
    ended = processes.run(tmp_path, *RUN, prepare=prepare)
    refused(ended, str(tmp_path / "run"), os.strerror(number), code=1)
    assert "stdout" not in ended.output
    assert not (tmp_path / "run").exists()
    assert processes.run(tmp_path, *RUN, "epochs=1").code == 0


@pytest.mark.slow
def test_a_folder_without_a_state_can_be_taken_again(tmp_path: Path) -> None:
    """Its twin, with a state, is refused."""
    train(tmp_path)
    run = tmp_path / "run"
    refused(processes.run(tmp_path, *RUN), "holds a run already")
    shutil.rmtree(run / "checkpoints")
    refused(processes.run(tmp_path, *RUN), "holds a run already")  # its result is there
    (run / "summary.json").write_text('{"status": "failed", "reason": "the disk was full"}')
    refused(processes.run(tmp_path, "resume", "run"), "no run to resume", "its own command")
    assert processes.run(tmp_path, *RUN).code == 0
    results.assert_same(run, whole_run())


# --- rights ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("closed", "words", "parts"),
    [
        ("run/checkpoints/best.pth", ("evaluate", "run/checkpoints/best.pth"), ["best.pth"]),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in [
            ("run/checkpoints/best.pth", ("predict", "run/checkpoints/best.pth", "x.png"),
             ["best.pth"]),
            ("run/checkpoints", ("evaluate", "run/checkpoints/best.pth"), ["checkpoints/best.pth"]),
            ("run/checkpoints", ("resume", "run", "epochs=3"), ["checkpoints"]),
            ("run", ("report", "run"), ["run"]),
            ("out", ("export", "run/checkpoints/best.pth", "--format", "state_dict", "-o",
                     "out/x.pth"), ["out/x.pth"]),
            ("out", ("evaluate", "run/checkpoints/best.pth", "-o", "out/x"), ["out/x"]),
            ("out", (*TINY, "hydra.run.dir=out/run"), ["out/run"]),
        ]),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)  # fmt: skip
def test_what_may_not_be_read_or_written(
    run: Path, closed: str, words: tuple[str, ...], parts: list[str]
) -> None:
    here = run.parent
    (here / "out").mkdir()
    (here / "x.png").touch()
    (here / closed).chmod(0)
    try:
        ended = processes.run(here, *words, prepare=without_privileges)
    finally:
        (here / closed).chmod(stat.S_IRWXU)
    refused(ended, "ermission denied", *parts)


def test_what_an_error_of_the_system_says() -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "a/b")
    assert in_words(full).startswith("a/b: No space left on device.\nFree disk space")
    assert exit_code(full) == 1
    assert exit_code(FileNotFoundError(errno.ENOENT, "No such file or directory", "a")) == 2
    wrapped = ValueError("Unable to configure handler")
    wrapped.__cause__ = full
    assert fault_in(wrapped) is full
    assert fault_in(ValueError("no fault of the system")) is None


# --- the campaign ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "every"),
    [("training", 83), ("resume", 107), ("packing", 47), ("evaluate", 19), ("export", 9),
     ("report", 31)],
)  # fmt: skip
def test_failing_calls(tmp_path: Path, name: str, every: int) -> None:
    """Some of them: every so many-th."""
    ended = list(system_faults.failures(tmp_path, name, every))
    assert len(ended) > 2
    assert [way for _, way in ended if way.startswith(system_faults.SHORT)] == []

"""What the system under a command refuses: one message, nothing half-made, a way on. The whole
campaign is `python -m tests.campaigns.system_faults`."""

from __future__ import annotations

import errno
import functools
import os
import pty
import select
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.campaigns import system_faults
from tests.helpers import processes, results
from tests.helpers.commands import run_trainer
from tests.helpers.tiny_training import TINY, limit_file_size, refused, signal_at, train, whole_run
from tests.trainer.training.test_faults import without_privileges
from trainer.errors import exit_code, fault_in, in_words
from trainer.runs import lock

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


# --- the lock, asked ------------------------------------------------------------------------------


def ask_all_the_time(folder: str) -> None:
    while True:
        lock.is_locked(Path(folder))


def test_asking_takes_nothing_and_needs_no_right_to_write(tmp_path: Path) -> None:
    with lock.locked(tmp_path):
        pass
    (tmp_path / lock.NAME).chmod(0o444)
    pid = os.fork()
    if pid == 0:
        without_privileges()
        ask_all_the_time(str(tmp_path))
    try:
        (tmp_path / lock.NAME).chmod(0o644)
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            with lock.locked(tmp_path):  # never refused
                pass
        assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


# --- signals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (signal.SIGHUP, "SIGHUP: stopping after this batch; a second signal stops now"),
        (signal.SIGINT, "stopping after this batch; Ctrl-C again stops now"),
    ],
)
def test_a_signal_is_answered_and_saved(tmp_path: Path, number: int, said: str) -> None:
    prepare = functools.partial(signal_at, number, 5, False, times=1 + (number == signal.SIGHUP))
    ended = processes.run(tmp_path, *RUN, prepare=prepare)
    assert ended.code == 128 + number, ended.output
    assert ended.output.count(said) == 1
    assert results.sound_steps(tmp_path / "run") == [4, 6]
    assert results.summary(tmp_path / "run")["status"] == "interrupted"


def ignore_hang_ups() -> None:
    """As nohup does."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal_at(signal.SIGHUP, 2, False)


def test_what_nohup_started_outlives_its_terminal(tmp_path: Path) -> None:
    ended = processes.run(tmp_path, *RUN, prepare=ignore_hang_ups)
    assert ended.code == 0, ended.output
    assert "stopping" not in ended.output


@pytest.mark.slow
@pytest.mark.parametrize("hang_up", [False, True])
def test_the_bar_of_a_terminal_gives_way(tmp_path: Path, hang_up: bool) -> None:
    """A real terminal: Ctrl-C, or the window is closed."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "trainer", *TINY, "epochs=100000", "hydra.run.dir=run"],
        cwd=tmp_path, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    while results.newest_step(tmp_path / "run") < 20 and process.poll() is None:
        if select.select([ours], [], [], 0.05)[0]:
            seen += os.read(ours, 65536)
    if hang_up:
        os.close(ours)
    process.send_signal(signal.SIGHUP if hang_up else signal.SIGINT)
    while not hang_up and process.poll() is None:
        if select.select([ours], [], [], 0.05)[0]:
            try:
                seen += os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
    assert process.wait(60) == (129 if hang_up else 130)
    assert results.summary(tmp_path / "run")["status"] == "interrupted"
    assert results.sound_steps(tmp_path / "run")
    if not hang_up:
        _, _, after = seen.partition(b"\r\x1b[Kstopping after this batch; Ctrl-C again stops now")
        assert after
        assert b"batch/s" not in after  # it is not drawn again
        assert b"Stopped. Continue with" in after


# --- the campaign ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "every"),
    [("training", 41), ("resume", 53), ("packing", 23), ("evaluate", 9), ("export", 9),
     ("report", 15)],
)  # fmt: skip
def test_failing_calls(tmp_path: Path, name: str, every: int) -> None:
    """Some of them: every so many-th."""
    ended = list(system_faults.failures(tmp_path, name, every))
    assert len(ended) > 2
    assert [way for _, way in ended if way.startswith(system_faults.SHORT)] == []

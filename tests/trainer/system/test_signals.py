"""A signal ends a command with its own exit code, whatever the code that it meets makes of it."""

from __future__ import annotations

import contextlib
import functools
import os
import pty
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import processes, results
from tests.helpers.tiny_training import TINY, signal_at
from trainer.errors import Stopped
from trainer.system import signals
from trainer.system.signals import StopSignals

BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)


def interrupted_tidying(number: int | None) -> None:
    """As OmegaConf does: what it raises while it tidies up takes the place of the signal."""
    try:
        if number is not None:
            os.kill(os.getpid(), number)
    finally:
        raise AttributeError("half made")


@BOTH
def test_an_error_that_a_signal_caused_is_the_signal(number: int) -> None:
    with pytest.raises(Stopped) as stopped, StopSignals().raised():
        interrupted_tidying(number)
    assert stopped.value.exit_code == 128 + number
    with pytest.raises(AttributeError), StopSignals().raised():
        interrupted_tidying(None)


@BOTH
def test_the_first_is_noted_the_second_acts(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "REPEATED_S", 0.0)
    before, seen = signal.getsignal(number), []

    def work() -> None:
        with StopSignals().noted() as noted:
            for _ in range(2):
                os.kill(os.getpid(), number)
                seen.append(noted.received)

    with pytest.raises(Stopped), StopSignals().raised():
        work()
    assert seen == [number]
    assert signal.getsignal(number) is before


def test_one_that_is_sent_twice_is_one() -> None:
    """As torchrun's processes get SIGTERM under Slurm; Ctrl-C twice still stops at once."""
    seen = []

    def work() -> None:
        with StopSignals().noted() as noted:
            for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
                os.kill(os.getpid(), number)
                seen.append(noted.received)

    with pytest.raises(Stopped) as stopped, StopSignals().raised():
        work()
    assert (seen, stopped.value.exit_code) == ([signal.SIGTERM] * 2, 130)


def test_one_that_was_swallowed_is_not_forgotten() -> None:
    seen = []

    def work() -> None:
        with contextlib.suppress(BaseException):
            os.kill(os.getpid(), signal.SIGINT)
        with StopSignals().noted() as noted:
            seen.append(noted.received)

    with pytest.raises(Stopped), StopSignals().raised():
        work()
    assert seen == [signal.SIGINT]
    with StopSignals().raised(), StopSignals().noted() as noted:
        assert noted.received is None


def test_one_that_the_shell_has_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopSignals().raised():
            os.kill(os.getpid(), signal.SIGINT)
            with StopSignals().noted() as noted:  # but a training can be asked to stop
                os.kill(os.getpid(), signal.SIGINT)
                assert noted.received == signal.SIGINT
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def spoil_composing(number: int | None) -> None:
    from trainer.config import compose

    compose.Composer.master = lambda self: interrupted_tidying(number)


@BOTH
def test_a_signal_that_the_configuration_turns_into_an_error(tmp_path: Path, number: int) -> None:
    """Through the command; its twin is the same error without a signal."""
    prepare = functools.partial(spoil_composing, number)
    ended = processes.run(tmp_path, *TINY, "hydra.run.dir=run", prepare=prepare)
    assert (ended.code, ended.output) == (128 + number, "")
    assert list(tmp_path.iterdir()) == []
    ended = processes.run(tmp_path, *TINY, prepare=functools.partial(spoil_composing, None))
    assert ended.code == 1
    assert "half made" in ended.output


def swallow_one() -> None:
    """As a finaliser does, whose errors Python leaves aside."""
    from trainer import job

    train = job.run

    def run(*words: Any, **options: Any) -> None:
        with contextlib.suppress(BaseException):
            os.kill(os.getpid(), signal.SIGTERM)
        train(*words, **options)

    job.run = run


def test_a_signal_that_a_library_swallows_stops_the_training(tmp_path: Path) -> None:
    ended = processes.run(
        tmp_path, *TINY, "epochs=100000", "hydra.run.dir=run", prepare=swallow_one
    )
    assert ended.code == 143, ended.output
    assert "Stopped" in ended.output


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (signal.SIGHUP, "SIGHUP: stopping after this batch; a second signal stops now"),
        (signal.SIGINT, "stopping after this batch; Ctrl-C again stops now"),
    ],
)
def test_a_signal_is_answered_and_saved(tmp_path: Path, number: int, said: str) -> None:
    prepare = functools.partial(signal_at, number, 5, False, times=1 + (number == signal.SIGHUP))
    ended = processes.run(tmp_path, *TINY, "hydra.run.dir=run", prepare=prepare)
    assert ended.code == 128 + number, ended.output
    assert ended.output.count(said) == 1
    assert results.sound_steps(tmp_path / "run") == [4, 6]
    assert results.summary(tmp_path / "run")["status"] == "interrupted"


def ignore_hang_ups() -> None:
    """As nohup does."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal_at(signal.SIGHUP, 2, False)


def test_what_nohup_started_outlives_its_terminal(tmp_path: Path) -> None:
    ended = processes.run(tmp_path, *TINY, "hydra.run.dir=run", prepare=ignore_hang_ups)
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

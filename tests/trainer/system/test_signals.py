"""A signal ends a command with its own exit code, whatever the code that it meets makes of it."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import processes
from tests.helpers.tiny_training import TINY
from trainer.errors import Stopped
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
def test_the_first_is_noted_the_second_acts(number: int) -> None:
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

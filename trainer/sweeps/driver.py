"""Driver of a sweep: starts its jobs as there is room for them, and notes what becomes of each.

It knows of a job what its folder says and the exit code of its process, the same on every engine
that can run a command.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from trainer.errors import Stopped
from trainer.monitoring.summary import write_summary
from trainer.runs import sweep_file
from trainer.runs.side_files import read_text, readable
from trainer.runs.sweep_file import Job, Sweep
from trainer.sweeps.processes import LOG_NAME
from trainer.sweeps.progress import Reporter
from trainer.sweeps.room import Room
from trainer.sweeps.search import Search
from trainer.system.signals import NUMBERS, StopSignals

TICK_S = 0.5
STOPPED = tuple(128 + number for number in NUMBERS)
PATIENCE_S = 120.0  # with jobs that another process is still at work on


class Launcher(Protocol):
    """Runs commands, each in a process of its own; see `LocalProcesses`."""

    def start(self, key: int, words: Sequence[str], log: Path, env: Mapping[str, str]) -> None: ...
    def going(self, folders: Mapping[int, Path]) -> list[int]: ...
    def ended(self, timeout_s: float) -> list[tuple[int, int]]: ...
    def send(self, key: int, number: int) -> None: ...
    def stop(self, number: int) -> list[tuple[int, int]]: ...


def run_jobs(
    sweep: Sweep,
    search: Search,
    command_of: Callable[[Job], list[str]],
    launcher: Launcher,
    room: Room,
    reporter: Reporter,
) -> None:
    """Run the jobs of a sweep that its search asks for, each to its end. Their states are noted in
    sweep.json.

    Args:
        command_of: words of the command that does a job, or goes on with it.

    Raises:
        Stopped: a signal arrived; all jobs have been stopped and have saved their states.
    """
    waiting: list[Job] = []
    last_news = time.monotonic()
    with StopSignals().noted() as signals:
        try:
            take_up(sweep, launcher, room, reporter)
            while signals.received is None:
                if not waiting and not room.is_full:
                    new = search.more(sweep, room.taken)
                    waiting += [job for job in new if job.index not in room.taken]
                if not waiting and not room.taken:
                    break
                last_news = max(last_news, start_next(sweep, waiting, command_of, launcher, room,
                                                      reporter))  # fmt: skip
                for index, code in launcher.ended(TICK_S):
                    note_end(sweep, sweep.jobs[index], code, room)
                    search.ended(sweep, sweep.jobs[index])
                    sweep.save()
                    reporter.ended(sweep, sweep.jobs[index])
                    last_news = time.monotonic()
                for index in search.to_stop(sweep, room.taken):
                    launcher.send(index, signal.SIGTERM)
                reporter.tick(sweep)
                if not room.taken and time.monotonic() - last_news > PATIENCE_S:
                    break  # what is left is in other hands
        except BaseException:
            stop_all(sweep, launcher, signals.received or signal.SIGTERM, room, reporter)
            raise
        if signals.received is not None:
            stop_all(sweep, launcher, signals.received, room, reporter)
            raise Stopped(signals.received)


def run_command(launcher: Launcher, words: Sequence[str], folder: Path) -> int:
    """Run one more command of a job, to its end. Returns its exit code."""
    launcher.start(0, words, folder / LOG_NAME, {})
    try:
        while not (ended := launcher.ended(TICK_S)):
            pass
    except BaseException:
        launcher.stop(signal.SIGTERM)
        raise
    return ended[0][1]


def take_up(sweep: Sweep, launcher: Launcher, room: Room, reporter: Reporter) -> None:
    """Wait, from now on, for jobs that are at work on another machine, where they did not end with
    the process that started them."""
    ended = (sweep_file.FINISHED, sweep_file.FAILED)
    jobs = [job for job in sweep.jobs if job.state not in ended]
    for index in launcher.going({job.index: sweep.folder_of(job) for job in jobs}):
        job = sweep.jobs[index]
        job.state = sweep_file.RUNNING
        room.hold(job)
        reporter.started(job, "still there")
    sweep.save()


def start_next(
    sweep: Sweep,
    waiting: list[Job],
    command_of: Callable[[Job], list[str]],
    launcher: Launcher,
    room: Room,
    reporter: Reporter,
) -> float:
    """Start jobs, in order, until one finds no room. Returns the time of the last start. A job that
    another process is at work on, such as one whose sweep was killed a moment ago, is put off."""
    last = 0.0
    for _ in range(len(waiting)):
        job = waiting[0]
        folder = sweep.folder_of(job)
        if sweep_file.state_in(folder)[0] == sweep_file.RUNNING:
            waiting.append(waiting.pop(0))
            continue
        env = room.take(job)
        if env is None:
            break
        waiting.pop(0)
        folder.mkdir(exist_ok=True)
        job.state, job.reason, job.attempts = sweep_file.RUNNING, None, job.attempts + 1
        sweep.save()
        launcher.start(job.index, command_of(job), folder / LOG_NAME, env)
        reporter.started(job)
        last = time.monotonic()
    return last


def stop_all(sweep: Sweep, launcher: Launcher, number: int, room: Room, reporter: Reporter) -> None:
    reporter.stopping(len(room.taken))
    for index, code in launcher.stop(number):
        note_end(sweep, sweep.jobs[index], code, room)
        sweep.save()
        reporter.ended(sweep, sweep.jobs[index])


def note_end(sweep: Sweep, job: Job, code: int, room: Room) -> None:
    """Note what a job whose process has ended left in its folder; if it died, write the summary
    that it could not write."""
    room.leave(job.index)
    folder = sweep.folder_of(job)
    job.state, job.reason = sweep_file.state_in(folder)
    if code in STOPPED and job.state == sweep_file.WAITING and (folder / ".hydra").is_dir():
        with contextlib.suppress(OSError):
            reason = "stopped before its first saved state"
            write_summary(folder, {"status": sweep_file.INTERRUPTED, "reason": reason})
        job.state, job.reason = sweep_file.state_in(folder)
    is_paused = code == 0 and job.state == sweep_file.INTERRUPTED  # at its stop_epoch
    if job.state != sweep_file.FINISHED and code not in STOPPED and not is_paused:
        if job.state != sweep_file.FAILED:
            job.reason = reason_of(code, folder / LOG_NAME)
            with contextlib.suppress(OSError):  # the disk may be full
                write_summary(folder, {"status": sweep_file.FAILED, "reason": job.reason})
        job.state = sweep_file.FAILED


def reason_of(code: int, log: Path) -> str:
    """Reason of a job that ended without a result of its own."""
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        is_kill = -code == signal.SIGKILL
        return f"killed by {name}{': out of memory?' if is_kill else ''}"
    lines = [line for line in readable("", read_text, log).splitlines() if line.strip()]
    said = f"; the last line of its log: {lines[-1]:.300}" if lines else ""
    return f"ended with exit code {code} and no result{said}"

"""Progress of a sweep: a line per event, and on a terminal a line below them per running job."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Sequence

from trainer.runs import sweep_file
from trainer.runs.read import duration, read_metrics, share
from trainer.runs.side_files import read_json, read_yaml, readable
from trainer.runs.sweep_file import Job, Sweep
from trainer.sweeps.plan import swept
from trainer.system.paths import shell_path
from trainer.system.progress_bars import Terminal, is_watched
from trainer.text.printable import printable
from trainer.text.values import count

REDRAW_S = 1.0
MOST_LINES = 16  # of running jobs on the terminal


class Reporter:
    """Reporter of a sweep's progress on standard output.

    Args:
        jobs: all of the sweep, also those that are done.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs = jobs
        self._names: list[str] = []
        self.terminal = Terminal() if is_watched() else None
        self.began: dict[int, float] = {}
        self.seen: dict[int, tuple[int, float]] = {}  # job -> its first epoch, and when
        self.took: list[float] = []
        self.drawn = 0
        self.last_drawn = -math.inf

    @property
    def names(self) -> list[str]:
        """What was swept, of each job; more of them may have come."""
        if len(self._names) != len(self.jobs):
            words = swept([job.overrides for job in self.jobs])
            one = [job.folder.partition("_")[2] for job in self.jobs]
            self._names = [
                " ".join(own) or name or "-" for own, name in zip(words, one, strict=True)
            ]
        return self._names

    def started(self, job: Job, how: str = "") -> None:
        self.began[job.index] = time.monotonic()
        how = how or ("started" if job.attempts == 1 else "resumed")
        self.say(f"{job.index:>4}  {how:<12} {self.names[job.index]}")

    def ended(self, sweep: Sweep, job: Job) -> None:
        took_s = time.monotonic() - self.began.pop(job.index, time.monotonic())
        if job.state == sweep_file.FINISHED:
            self.took.append(took_s)
        summary = readable({}, read_json, sweep.folder_of(job) / "summary.json")
        val = summary.get("val_accuracy")
        told = f"val {share(val)}" if isinstance(val, float) else ""
        if sweep_file.is_given_up(job.state, job.reason):
            told += f"   {job.reason}"
        if job.state == sweep_file.FAILED:
            told = f"{job.reason or '?'!s:.200}; see {shell_path(sweep.folder_of(job))}"
        done = sum(one.state in (sweep_file.FINISHED, sweep_file.FAILED) for one in sweep.jobs)
        end = f"{duration(took_s)}   [{done} of {len(sweep.jobs)}{self.left(sweep)}]"
        name = self.names[job.index]
        is_over = job.state in (sweep_file.FINISHED, sweep_file.FAILED)
        self.say(
            f"{job.index:>4}  {job.state if is_over else 'stopped':<12} {name}   {told}   {end}"
        )

    def stopping(self, running: int) -> None:
        self.say(f"stopping {count(running, 'job')}")

    def left(self, sweep: Sweep) -> str:
        """Time that the jobs without an end will take, by those that have ended."""
        open_jobs = [j for j in sweep.jobs if j.state in (sweep_file.WAITING, sweep_file.RUNNING)]
        if not self.took or not open_jobs:
            return ""
        parallel = max(1, len(self.began))
        seconds = sum(self.took) / len(self.took) * len(open_jobs) / parallel
        return f", {in_words(seconds)} left"

    def say(self, line: str) -> None:
        self.erase()
        print(line.rstrip(), flush=True)

    def tick(self, sweep: Sweep) -> None:
        """Draw the running jobs anew, on a terminal."""
        if self.terminal is None or time.monotonic() - self.last_drawn < REDRAW_S:
            return
        lines = [self.line_of(sweep, index) for index in list(self.began)[:MOST_LINES]]
        self.erase()
        width = shutil.get_terminal_size().columns - 1
        self.terminal.write("".join(f"{printable(line)[:width]}\n" for line in lines))
        self.terminal.flush()
        self.drawn, self.last_drawn = len(lines), time.monotonic()

    def erase(self) -> None:
        if self.terminal is not None and self.drawn:
            self.terminal.write(f"\x1b[{self.drawn}F\x1b[J")
            self.terminal.flush()
            self.drawn = 0

    def line_of(self, sweep: Sweep, index: int) -> str:
        """Job, epoch, last validation and time left of a running job."""
        folder = sweep.folder_of(sweep.jobs[index])
        rows = readable([], read_metrics, folder / "metrics.jsonl")
        config = readable({}, read_yaml, folder / ".hydra" / "config.yaml")
        epochs = config.get("epochs") if isinstance(config, dict) else None
        val = [row for row in rows if row["split"] == "val"]
        told = f"epoch {rows[-1]['epoch'] if rows else 0} of {epochs}" if epochs else "starts"
        if val:
            told += f"   val {share(val[-1]['accuracy'])}"
        if rows and isinstance(epochs, int):
            told += self.left_of(index, rows[-1]["epoch"], epochs)
        return f"{index:>4}  {told:<44} {self.names[index]}"

    def left_of(self, index: int, epoch: int, epochs: int) -> str:
        """Time that a job will take, by the epochs since it was first seen in one."""
        now = time.monotonic()
        first, since = self.seen.setdefault(index, (epoch, now))
        if epoch == first:
            return ""
        return f"   {in_words((now - since) / (epoch - first) * (epochs - epoch))} left"


def in_words(seconds: float) -> str:
    """Time that is a guess: "about 40 s", "about 12 min"."""
    if seconds < 100:
        return f"about {seconds:.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 6000 else f"about {seconds / 3600:.1f} h"

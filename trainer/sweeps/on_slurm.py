"""Jobs of a sweep on Slurm, by its own commands: an array of jobs for those that start together.

Before an array is submitted, a note in the sweep's folder says which job of the sweep each of its
tasks is, and the queue knows the array by the note's name. So whoever goes on with the sweep finds
what is queued or running, whatever became of the process that submitted it. A task leaves its exit
code in a file; one that is in no queue any more and has left none was killed. Slurm's accounting,
which not every cluster has, is not asked.

Options of sbatch (partition, time limit, memory, account) are taken from its own environment
variables, such as SBATCH_PARTITION.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.errors import UserError
from trainer.runs.side_files import read_json, readable
from trainer.sweeps.elsewhere import ROOT, Needs
from trainer.sweeps.slurm_task import SAVED, exit_file, write_whole
from trainer.system.signals import HANG_UP, NUMBERS

NOTES = ".slurm"  # folder in the sweep's
COMMANDS = ("sbatch", "squeue", "scancel", "scontrol", "sinfo")
LONGEST_ARRAY = 1000  # by Slurm's own default
ASK_S = 10.0  # between two looks at the queue
STOP_S = 90.0  # for cancelled jobs to save their states; Slurm's KillWait is shorter
LATE_S = 60.0  # for a file to be seen through a network drive
STOPPED = {128 + number for number in NUMBERS}
# Ends that are no fault of the job's: it is gone on with when the sweep is resumed.
OUTER_ENDS = ("CANCELLED", "PREEMPTED", "TIMEOUT", "NODE_FAIL", "BOOT_FAIL", "DEADLINE", "")

SCRIPT = """#!/bin/sh
#SBATCH --ntasks=1
#SBATCH --cpus-per-task={threads}
{gpus}#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR2@120
export PYTHONPATH={path}
exec {python} -m trainer.sweeps.slurm_task {note}
"""


@dataclass
class Task:
    """A job of the sweep as a task of an array.

    Attributes:
        note: file of the array; None: not submitted yet.
        place: in the array.
        id: Slurm's, of the array and the place.
        over_at: time at which it was first seen to be over.
    """

    words: list[str]
    log: Path
    note: Path | None = None
    place: int = 0
    id: str = ""
    over_at: float | None = None

    def exit_code(self) -> int | None:
        """Exit code of its command; None: there is none yet."""
        assert self.note
        return readable(None, _read_code, exit_file(self.note, self.place))


Queue = dict[tuple[str, int], tuple[str, str]]  # name of the array, place -> id, state


class Slurm:
    """Slurm, as a launcher.

    Args:
        sweep: the sweep's folder, which the nodes see under the same path.
        needs: what the job in a folder is to be given.
    """

    def __init__(self, sweep: Path, needs: Callable[[Path], Needs]) -> None:
        self.notes = sweep.absolute() / NOTES
        self.needs = needs
        self.tasks: dict[int, Task] = {}
        self.asked_at = self.refused_at = -math.inf

    def start(self, key: int, words: Sequence[str], log: Path, env: Mapping[str, str]) -> None:
        """Have a command submitted, with others that are started before `ended` is called."""
        self.tasks[key] = Task(list(words), log.absolute())

    def going(self, folders: Mapping[int, Path]) -> list[int]:
        """Of the jobs in these folders those that an earlier process has submitted and that have
        not ended. `ended` tells of them as of those that were started here."""
        wanted = {str(folder.absolute()): key for key, folder in folders.items()}
        notes = {note.stem: note for note in self.notes.glob("*.json")}
        jobs = {name: readable([], _jobs_in, note) for name, note in notes.items()}
        deadline = time.monotonic() + STOP_S
        queue = self.queue(notes)
        while any(s == "COMPLETING" for _, s in queue.values()) and time.monotonic() < deadline:
            time.sleep(1.0)
            queue = self.queue(notes)
        for (name, place), (number, _) in queue.items():
            task = Task([], Path(jobs[name][place]["log"]), notes[name], place, number)
            key = wanted.get(str(task.log.parent))
            if key is not None and task.exit_code() in (None, *STOPPED):
                self.tasks[key] = task
        self.tidy({name for name, _ in queue})
        return list(self.tasks)

    def ended(self, timeout_s: float) -> list[tuple[int, int]]:
        """Keys and exit codes of those that have ended; waits for the first."""
        self.submit()
        deadline = time.monotonic() + timeout_s
        while not (found := dict(self.look())) and time.monotonic() < deadline:
            time.sleep(0.2)
        for key in found:
            del self.tasks[key]
        if found:
            self.tidy({task.note.stem for task in self.tasks.values() if task.note})
        return list(found.items())

    def send(self, key: int, number: int) -> None:
        """Cancel one, which Slurm sends SIGTERM."""
        if key in self.tasks and self.tasks[key].id:
            _call("scancel", self.tasks[key].id)

    def stop(self, number: int) -> list[tuple[int, int]]:
        """Cancel all, and wait for their states; but a terminal that was closed stops nothing that
        is submitted."""
        found = [(key, SAVED) for key, task in self.tasks.items() if not task.note]
        self.tasks = {key: task for key, task in self.tasks.items() if task.note}
        if number == HANG_UP or not self.tasks:
            return found
        _call("scancel", *(task.id for task in self.tasks.values()))
        deadline = time.monotonic() + STOP_S
        while self.tasks and time.monotonic() < deadline:
            self.asked_at = -math.inf
            found += self.ended(1.0)
        return [*found, *((key, SAVED) for key in self.tasks)]

    def submit(self) -> None:
        """Submit what was started, an array for all that need the same. Raises UserError if Slurm
        refuses it and nothing else runs; else it is tried again later, since the user's limit of
        jobs may be reached."""
        alike: dict[Needs, list[Task]] = {}
        for task in self.tasks.values():
            if not task.note:
                alike.setdefault(self.needs(task.log.parent), []).append(task)
        others = any(task.note for task in self.tasks.values())
        if time.monotonic() - self.refused_at < ASK_S:
            return
        for needs, tasks in alike.items():
            for first in range(0, len(tasks), LONGEST_ARRAY):
                if not (reason := self.submit_array(needs, tasks[first : first + LONGEST_ARRAY])):
                    continue
                self.refused_at = time.monotonic()
                if not others:
                    raise UserError(
                        f"launcher=slurm: sbatch: {reason}.\nPartition, time limit, memory and "
                        "account are taken from sbatch's variables: SBATCH_PARTITION, "
                        "SBATCH_TIMELIMIT, SBATCH_MEM_PER_CPU, SBATCH_ACCOUNT. jobs=N submits N at "
                        "a time."
                    )

    def submit_array(self, needs: Needs, tasks: Sequence[Task]) -> str:
        """Submit an array. Returns Slurm's reason if it is refused, else nothing."""
        self.notes.mkdir(exist_ok=True)
        title = re.sub(r"[^\w-]+", "-", self.notes.parent.name)[:40]
        note = self.notes / f"{title}.{secrets.token_hex(4)}.json"
        jobs = [{"words": task.words, "log": str(task.log), "threads": needs.threads}
                for task in tasks]  # fmt: skip
        write_whole(note, json.dumps({"jobs": jobs}))
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        script = SCRIPT.format(
            threads=needs.threads, gpus="#SBATCH --gres=gpu:1\n" if needs.gpus(has_gpus) else "",
            path=shlex.quote(path), python=shlex.quote(sys.executable), note=shlex.quote(str(note)),
        )  # fmt: skip
        done = _call(
            "sbatch", "--parsable", f"--job-name={note.stem}", f"--array=0-{len(tasks) - 1}",
            f"--output={str(note.with_suffix('.log')).replace('%', '%%')}", text=script,
        )  # fmt: skip
        if done.returncode:
            note.unlink()
            return done.stderr.strip().removeprefix("sbatch: error: ").replace("\n", "; ")
        number = done.stdout.strip().partition(";")[0]
        for place, task in enumerate(tasks):
            task.note, task.place, task.id = note, place, f"{number}_{place}"
        return ""

    def look(self) -> Iterator[tuple[int, int]]:
        """Keys and exit codes of those that have ended. An exit code says so, but for that of a
        training that was stopped, which Slurm may have put back into the queue."""
        submitted = {key: task for key, task in self.tasks.items() if task.note}
        codes = {key: task.exit_code() for key, task in submitted.items()}
        left = {key for key, code in codes.items() if code is None or code in STOPPED}
        for key in codes.keys() - left:
            if _is_told(submitted[key], codes[key]):
                yield key, codes[key] or 0
        if not left or time.monotonic() - self.asked_at < ASK_S:
            return
        self.asked_at = time.monotonic()
        try:
            queue = self.queue({task.note.stem for task in submitted.values() if task.note})
        except UserError:
            return  # Slurm does not answer now
        for key in left:
            task = submitted[key]
            assert task.note
            if (task.note.stem, task.place) in queue:
                task.over_at = None
                continue
            code = task.exit_code()  # it may have come in between
            task.over_at = task.over_at or time.monotonic()
            if code is not None:
                yield key, code
            elif time.monotonic() - task.over_at > ASK_S:
                yield key, _killed(task)

    def queue(self, names: Collection[str]) -> Queue:
        """What is in the queue of the arrays with these names. Raises UserError."""
        if not names:
            return {}
        done = _call("squeue", "--noheader", "--array", f"--name={','.join(sorted(names))}",
                     "--format=%j|%K|%i|%T")  # fmt: skip
        if done.returncode:
            raise UserError(f"launcher=slurm: squeue: {done.stderr.strip()}")
        rows = [line.split("|") for line in done.stdout.splitlines() if line.count("|") == 3]
        return {(name, int(place)): (number, state) for name, place, number, state in rows}

    def tidy(self, kept: set[str]) -> None:
        """Remove the files of all arrays but these, and what Slurm said of them if that is
        nothing."""
        for file in self.notes.glob("*"):
            name = ".".join(file.name.split(".")[:2])
            if name not in kept and (file.suffix != ".log" or not file.stat().st_size):
                file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty
            self.notes.rmdir()


def check() -> None:
    """Raises UserError where Slurm's commands are missing."""
    if missing := [name for name in COMMANDS if not shutil.which(name)]:
        raise UserError(
            f"launcher=slurm: {missing[0]} was not found on this machine's PATH. Start the sweep "
            "where Slurm's commands are installed, or use launcher=local."
        )
    if (asked := _call("sinfo", "--noheader")).returncode:
        raise UserError(
            f"launcher=slurm: Slurm does not answer: {asked.stderr.strip():.300}\nStart the sweep "
            "where `sinfo` works, or use launcher=local."
        )


def has_gpus() -> bool:
    """True if the partition that jobs are submitted to has GPUs."""
    partition = os.environ.get("SBATCH_PARTITION")
    chosen = [f"--partition={partition}"] if partition else []
    return "gpu" in _call("sinfo", "--noheader", "--format=%G", *chosen).stdout


def _call(*words: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, input=text, capture_output=True, text=True, check=False)


def _read_code(file: Path) -> int:
    return int(file.read_text("utf-8"))


def _jobs_in(note: Path) -> list[dict[str, str]]:
    return list(read_json(note)["jobs"])


def _is_told(task: Task, code: int | None) -> bool:
    """False: the summary of a job that has ended is not there yet, since a network drive shows it
    late."""
    task.over_at = task.over_at or time.monotonic()
    is_late = code in (0, 1) and not (task.log.parent / "summary.json").exists()
    return not is_late or time.monotonic() - task.over_at > LATE_S


def _killed(task: Task) -> int:
    """Exit code for a task that has left none, and its end in its log."""
    said = re.search(r"JobState=(\w+)", _call("scontrol", "-o", "show", "job", task.id).stdout)
    state = said[1] if said else ""
    with contextlib.suppress(OSError), open(task.log, "a", encoding="utf-8") as log:
        log.write(f"Slurm job {task.id}: {state or 'is in no queue any more'}\n")
    return SAVED if state in OUTER_ENDS else 1

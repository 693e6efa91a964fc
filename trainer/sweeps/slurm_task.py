"""One job of a sweep, inside of its Slurm job: `python -m trainer.sweeps.slurm_task NOTE`.

Slurm sends SIGTERM to all processes of a job that it cancels or puts back into the queue, and the
training saves its state. SIGUSR2, which it sends some time before the time limit, comes here alone:
the training is stopped, and the job put back into the queue, to go on from there.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from trainer.sweeps import elsewhere

SAVED = 128 + signal.SIGTERM  # exit code of a training that has saved its state


class Task:
    """Task of a Slurm array.

    Args:
        note: file with the jobs of the array.
        place: of this one in it.
    """

    def __init__(self, note: Path, place: int) -> None:
        self.job = json.loads(note.read_text("utf-8"))["jobs"][place]
        self.exit = exit_file(note, place)
        self.process: subprocess.Popen[bytes] | None = None
        self.signals: list[int] = []

    def run(self) -> int:
        """Run the command to its end. Returns its exit code."""
        for number in (signal.SIGTERM, signal.SIGUSR2):
            signal.signal(number, self.noted)
        self.exit.unlink(missing_ok=True)  # of the time before it was put back
        began = time.time()
        self.process = elsewhere.begin(self.job["words"], self.job["log"], self.job["threads"])
        if self.signals:  # while it was being started
            self.process.terminate()
        code = self.process.wait()
        write_whole(self.exit, str(code))
        if signal.SIGUSR2 in self.signals and code == SAVED and self.has_saved_since(began):
            subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=False)
        return code if code >= 0 else 128 - code

    def noted(self, number: int, frame: FrameType | None) -> None:
        self.signals.append(number)
        if number == signal.SIGUSR2 and self.process is not None:
            self.process.terminate()

    def has_saved_since(self, began: float) -> bool:
        """False: it would start from the same place again, and again."""
        states = Path(self.job["log"]).parent.glob("checkpoints/*.pth")
        return any(state.stat().st_mtime >= began for state in states)


def exit_file(note: Path, place: int) -> Path:
    """File that holds the exit code of a task that has ended."""
    return note.with_name(f"{note.stem}.{place}.exit")


def write_whole(file: Path, text: str) -> None:
    part = file.with_suffix(".part")
    part.write_text(text, "utf-8")
    os.replace(part, file)


if __name__ == "__main__":
    sys.exit(Task(Path(sys.argv[1]), int(os.environ["SLURM_ARRAY_TASK_ID"])).run())

"""Kill a sweep's controller again and again: does it end in the table of one that nobody touched?

    python -m tests.campaigns.sweep_kills [--kills 20] [--jobs 12] [--seed 0]

SIGKILL goes to the controller alone, at random moments; the kernel tells its jobs, which save and
end. `resume` follows at once, while they may still be at it. At the end each job's weights and
validation must be those of the same command alone in the undisturbed sweep, no job may have been
started again once it was finished, and the controller's memory must not have grown with the jobs.
"""

from __future__ import annotations

import argparse
import datetime
import random
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.helpers import processes
from tests.helpers.small_sweeps import SMALL, jobs_of, summary


def results(sweep: Path) -> list[tuple[Any, ...]]:
    keys = ("weights_sha256", "val_accuracy", "val_loss", "best_epoch", "steps", "test_accuracy")
    rows = (summary(sweep / job["folder"]) for job in jobs_of(sweep))
    return [tuple(row[key] for key in keys) for row in rows]


def peak_kb(pid: int) -> int:
    """Largest memory of a process so far that is its own (VmHWM), in kB; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


def campaign(folder: Path, kills: int, jobs: int, seed: int) -> list[int]:
    """Two sweeps below `folder`. Returns the controller's peak memory in kB, at each of its ends.
    Raises AssertionError."""
    words = ("--multirun", *SMALL, "epochs=25", "jobs=2", f"seed=range({jobs // 2})",
             "optimizer.lr=0.1,0.01")  # fmt: skip
    done = processes.run(folder, *words, "sweep.name=whole")
    assert done.code == 0, done.output
    chooser, sweep = random.Random(seed), folder / "outputs" / "killed"
    attempts: dict[str, int] = {}
    memory, ended = [], None
    for kill in range(kills + 1):
        argv = ["resume", str(sweep)] if (sweep / "sweep.json").exists() else [
            *words, "sweep.name=killed"]  # fmt: skip
        command = processes.Command(folder, argv)
        if kill < kills:
            time.sleep(chooser.uniform(0.2, 3.0))
            memory.append(peak_kb(command.pid))
            command.send(9)
        ended = command.wait()
        for job in jobs_of(sweep) if (sweep / "sweep.json").exists() else []:
            name = job["folder"]
            status = (sweep / name / "summary.json").exists() and summary(sweep / name)["status"]
            if name in attempts:
                assert job["attempts"] == attempts[name], f"{name} was started again when finished"
            elif status == "finished":
                attempts[name] = job["attempts"]
    assert ended is not None
    assert ended.code == 0, ended.output
    assert results(sweep) == results(folder / "outputs" / "whole")
    return memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        memory = campaign(Path(name), args.kills, args.jobs, args.seed)
    print(f"{datetime.date.today()}: {args.jobs} jobs, {args.kills} kills of the controller: the "
          f"same table; its peak memory {min(filter(None, memory)) / 1024:.0f} to "
          f"{max(memory) / 1024:.0f} MB")  # fmt: skip


if __name__ == "__main__":
    main()

"""A long run, cut off again and again: do memory, open files and the folder stay as they are?

    python -m benchmarks.soak [--epochs 300] [--cuts 20] [--seed 0]

First one leg without a cut: its memory and open files are read along the way, every fiftieth epoch.
Then the same training with SIGKILL, SIGTERM and SIGINT by turns at random epochs, each followed by
a `resume`. Prints both as tables; ends with an error if a figure grows.
"""

from __future__ import annotations

import argparse
import datetime
import os
import random
import signal
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.helpers import processes, results

# Four steps an epoch, saved in the middle, too.
WORDS = ("data=synthetic", "data.num_train=48", "data.val_size=0.34", "data.num_test=20",
         "data.shape=[1,4,4]", "model.hidden=[8]", "model.dropout=0.3", "augment=strong",
         "batch_size=8", "save_every_steps=3", "hydra.run.dir=run")  # fmt: skip

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Reading:
    """Of a running process and its folder at some epoch."""

    epoch: int
    memory: int  # resident, bytes, without files that are mapped
    open_files: int
    threads: int
    checkpoints: int  # bytes
    files: int  # in the run's folder, but for TensorBoard's: one per leg


def read(command: processes.Command, run: Path) -> Reading:
    proc = Path(f"/proc/{command.pid}")
    resident, shared = (int(n) * PAGE for n in (proc / "statm").read_text().split()[1:3])
    stats = [path.stat() for path in (run / "checkpoints").iterdir()]
    sizes = {stat.st_ino: stat.st_size for stat in stats}  # last.pth is a link
    others = [path for path in run.rglob("*") if path.is_file() and "tfevents" not in path.name]
    threads = len(list((proc / "task").iterdir()))
    open_files = len(list((proc / "fd").iterdir()))
    return Reading(epoch(run), resident - shared, open_files, threads, sum(sizes.values()),
                   len(others))  # fmt: skip


def epoch(run: Path) -> int:
    """How many are complete, by the rows."""
    try:
        return (run / "metrics.jsonl").read_bytes().count(b'"train"')
    except FileNotFoundError:
        return 0


def reached(command: processes.Command, run: Path, goal: int) -> Reading | None:
    """The figures when so many epochs are complete and saved; None if it ended before. Read while
    the process stands still, so that no file comes or goes meanwhile."""
    if not command.wait_for(lambda: epoch(run) >= goal):
        return None
    while command.is_running:
        command.send(signal.SIGSTOP)
        steps = results.sound_steps(run)
        if not results.leftovers(run) and len(steps) <= 2 and steps[-1:] >= [4 * goal]:
            reading = read(command, run)
            command.send(signal.SIGCONT)
            return reading
        command.send(signal.SIGCONT)
        time.sleep(0.005)
    return None


def uninterrupted(folder: Path, epochs: int, every: int) -> list[Reading]:
    run = folder / "run"
    command = processes.Command(folder, [*WORDS, f"epochs={epochs}"])
    found = [reached(command, run, goal) for goal in range(every, epochs, every)]
    ended = command.wait()
    assert ended.code == 0, ended.output
    return [reading for reading in found if reading]


def interrupted(folder: Path, epochs: int, cuts: int, seed: int) -> list[Reading]:
    """One reading per leg, just before it is cut off."""
    chooser, run = random.Random(seed), folder / "run"
    goals = sorted(chooser.sample(range(2, epochs - 2), cuts))
    argv, found = [*WORDS, f"epochs={epochs}"], []
    for number, goal in enumerate(goals):
        command = processes.Command(folder, argv)
        reading = reached(command, run, goal)
        assert reading, command.output
        found.append(reading)
        kind = SIGNALS[number % len(SIGNALS)]
        command.send(kind, to_group=True)
        ended = command.wait()
        assert ended.code == (-kind if kind == signal.SIGKILL else 128 + kind), ended.output
        argv = ["resume", "run"]
    ended = processes.run(folder, *argv)
    assert ended.code == 0, ended.output
    return found


def check_flat(readings: list[Reading], memory_slack: int) -> None:
    """The later half holds no more than the earlier one, but for that much memory."""
    half = len(readings) // 2
    early, late = readings[:half], readings[half:]
    memory = [statistics.median(r.memory for r in part) for part in (early, late)]
    assert memory[1] <= memory[0] + memory_slack, memory
    for name in ("open_files", "threads", "files"):
        have, had = (max(getattr(r, name) for r in part) for part in (late, early))
        assert have <= had, f"{name}: {had}, then {have}"
    sizes = [max(r.checkpoints for r in part) for part in (early, late)]
    assert sizes[1] <= 1.05 * sizes[0], sizes


def table(readings: list[Reading]) -> str:
    lines = ["| epoch | memory, MB | open files | threads | checkpoints, kB | files |",
             "| --- " * 6 + "|"]  # fmt: skip
    lines += [
        f"| {r.epoch} | {r.memory / 1e6:.1f} | {r.open_files} | {r.threads} | "
        f"{r.checkpoints / 1e3:.1f} | {r.files} |"
        for r in readings
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--cuts", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        whole, cut = Path(name) / "whole", Path(name) / "cut"
        whole.mkdir()
        cut.mkdir()
        along = uninterrupted(whole, args.epochs, max(1, args.epochs // 12))
        legs = interrupted(cut, args.epochs, args.cuts, args.seed)
        results.assert_same(cut / "run", whole / "run")
        events = len(list((cut / "run" / "tensorboard").iterdir()))
    print(f"{datetime.date.today()}, {args.epochs} epochs, {args.cuts} cuts, seed {args.seed}: "
          f"the same bits; {events} event files, one per leg\n")  # fmt: skip
    print(f"Along one leg:\n\n{table(along)}\n\nAt the end of each leg:\n\n{table(legs)}")
    # The allocator's caches settle within a few megabytes.
    check_flat(along, memory_slack=4 << 20)
    check_flat(legs, memory_slack=8 << 20)


if __name__ == "__main__":
    main()

"""Die at every single write, sync, rename and removal of a training: is there always a way on?

    python -m tests.campaigns.crash_points [--every 1]

A tiny training is run once with an observer, which counts each call that changes the run's
folder: files opened for writing, writes, fsync, rename, link, removal. Then it is run again for
each of them and dies there, before the call is made, or with the write half done. Afterwards
there must be a sound state once one ever was, and `resume` must end in the bits of the run that
did not die, with nothing half-written left. The same for each change that a `resume` makes, after
two of these deaths.
"""

from __future__ import annotations

import argparse
import builtins
import datetime
import functools
import os
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from tests.helpers import processes, results

# Two epochs of four steps. Step 4 is saved twice: by count, and as the end of an epoch.
WORDS = ("data=synthetic", "data.num_train=48", "data.val_size=0.34", "data.num_test=20",
         "data.shape=[1,4,4]", "model.hidden=[8]", "model.dropout=0.3", "batch_size=8", "epochs=2",
         "save_every_steps=2", "optimizer.lr=0.01")  # fmt: skip
TRAIN = (*WORDS, "hydra.run.dir=run")

# Calls of the interpreter that change files, as its audit events name them.
CHANGES = {"open": "open", "os.rename": "rename", "os.remove": "remove", "os.link": "link"}

Happened = Callable[[str, str], None]  # what is about to be called, on which file
Change = tuple[str, str]  # the same; the name within the run, process numbers left out


def observe(folder: str, happened: Happened) -> None:
    """From now on, tell of each change in `folder` (absolute) before it happens.

    Audit hooks see every open, rename, link and removal, whoever calls them and however; fsync
    and writes have no such event, so these two are wrapped. TensorBoard's writer names its files
    as bytes and is left out: it appends in a thread of its own, at no certain moment, and a cut
    tail is dropped by whoever reads it."""

    def audit(event: str, args: tuple[Any, ...]) -> None:
        if event in CHANGES and isinstance(args[0], str | os.PathLike):
            path = os.path.abspath(os.fspath(args[0]))
            writes = event != "open" or args[2] & (os.O_WRONLY | os.O_RDWR)
            if path.startswith(folder) and writes:
                happened(CHANGES[event], path)

    def fsync(descriptor: int, original: Callable[[int], None] = os.fsync) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if path.startswith(folder):
            happened("fsync", path)
        original(descriptor)

    def opened(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        stream = original_open(file, mode, *args, **options)
        if mode == "wb" and os.path.abspath(file).startswith(folder):
            return _Watched(stream, happened)
        return stream

    original_open = builtins.open
    os.fsync = fsync  # type: ignore[assignment]
    builtins.open = opened
    sys.addaudithook(audit)


class _Watched:
    """A file that is written in two halves, with a moment in between."""

    def __init__(self, stream: IO[bytes], happened: Happened) -> None:
        self.stream, self.happened = stream, happened

    def write(self, content: bytes) -> int:
        half = len(content) // 2
        self.stream.write(content[:half])
        self.stream.flush()
        self.happened("write", str(self.stream.name))
        return half + self.stream.write(content[half:])

    def __enter__(self) -> _Watched:
        return self

    def __exit__(self, *error: object) -> None:
        self.stream.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def record(folder: str, into: str) -> None:
    """Write down each change, one a line."""
    descriptor = os.open(into, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def happened(call: str, path: str) -> None:
        os.write(descriptor, f"{call} {path}\n".encode())

    observe(folder, happened)


def die(folder: str, number: int) -> None:
    """End the process at the change of that number, counted from 0, as a SIGKILL would."""
    count = iter(range(number))

    def happened(call: str, path: str) -> None:
        if next(count, None) is None:
            os._exit(137)

    observe(folder, happened)


def photograph(folder: str, into: str) -> None:
    """Copy the folder before each change, to `into`/<number>/run: what a death there leaves."""
    count = iter(range(10**6))

    def happened(call: str, path: str) -> None:
        shutil.copytree(folder, f"{into}/{next(count):03}/run")

    observe(folder, happened)


def changes(folder: Path, *argv: str) -> list[Change]:
    """Run the command in `folder`, which must end well. Every change that it makes in `folder`/run,
    in order."""
    run, log = folder / "run", folder / "changes.txt"
    prepare = functools.partial(record, str(run), str(log))
    ended = processes.run(folder, *argv, prepare=prepare)
    assert ended.code == 0, ended.output
    lines = log.read_text().splitlines()
    log.unlink()
    pairs = [line.split(" ", 1) for line in lines]
    return [
        (call, re.sub(r"\.tmp\.\d+", ".tmp", os.path.relpath(path, run))) for call, path in pairs
    ]


def check_after(folder: Path, whole: Path, once_saved: bool) -> str:
    """After a death in `folder`/run: resume, and compare. Returns how the training went on.
    Raises AssertionError.

    Args:
        once_saved: a state had been saved whole before.
    """
    run = folder / "run"
    steps = results.sound_steps(run) if run.is_dir() else []
    if not steps:
        assert not once_saved, "there was a state, and it is gone"
        return "from the start"
    summary = run / "summary.json"
    if summary.exists() and results.summary(run)["status"] == "finished":
        results.assert_same(run, whole)
        return "was done"
    ended = processes.run(folder, "resume", "run")
    assert ended.code == 0, ended.output
    assert results.started_at(ended.output) == max(steps)
    assert "damaged" not in ended.output
    results.assert_same(run, whole)
    return f"from step {max(steps)}"


def first_saved(made: list[Change]) -> int:
    """The number of the change that puts the first whole state in its place."""
    return made.index(("rename", "checkpoints/.step_2.pth.tmp"))


def series(folder: Path, every: int) -> Counter[tuple[str, str]]:
    """All deaths of a training, and of a `resume` after two of them: one between two states, one
    between the last state and the best weights, which `resume` then has to write. Works below
    `folder`. How many went on in which way. Raises AssertionError."""
    whole, found = folder / "whole", Counter[tuple[str, str]]()
    whole.mkdir()
    made = changes(whole, *TRAIN)
    best = [i for i, change in enumerate(made) if change == ("open", "checkpoints/.best.pth.tmp")]
    bases = {"training": None, "resume": made.index(("write", "checkpoints/.step_6.pth.tmp")),
             "resume before best": best[-1]}  # fmt: skip
    for name, number in bases.items():
        base = folder / name
        base.mkdir()
        argv: tuple[str, ...] = TRAIN
        if number is not None:
            dying(base, TRAIN, number)
            argv = ("resume", "run")
        shutil.copytree(base, folder / "trial")
        made = changes(folder / "trial", *argv)
        shutil.rmtree(folder / "trial")
        for at in range(0, len(made), every):
            shutil.copytree(base, folder / "trial")
            dying(folder / "trial", argv, at)
            saved = number is not None or at > first_saved(made)
            try:
                found[name, check_after(folder / "trial", whole / "run", saved)] += 1
            except AssertionError as error:
                raise AssertionError(f"{name}: died at {at}, before {made[at]}") from error
            shutil.rmtree(folder / "trial")
    return found


def dying(folder: Path, argv: tuple[str, ...], number: int) -> None:
    """Run the command in `folder` up to the change of that number."""
    ended = processes.run(folder, *argv, prepare=functools.partial(die, f"{folder}/run", number))
    assert ended.code == 137, ended.output


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--every", type=int, default=1, help="only every so many-th point")
    args = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        found = series(Path(name), args.every)
    print(f"{datetime.date.today()}: {found.total()} deaths in {time.monotonic() - began:.0f} s\n")
    print("| died in the | went on | deaths | same bits |\n| --- | --- | --- | --- |")
    for (what, way), number in found.items():
        same = "nothing was saved yet" if "start" in way else "yes"
        print(f"| {what} | {way} | {number} | {same} |")


if __name__ == "__main__":
    main()

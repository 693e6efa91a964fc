"""Let every system call of a command fail: is it told in one message, and is there a way on?

    python -m tests.campaigns.system_faults [--every 1] [--only training]

A command is run once with an observer, which counts its calls that concern the files below its
folder: opening, writing, syncing, closing, renaming, linking, removing, listing, locking, making
folders. Then it is run again for each of them, which now fails: once, or from then on. Errors come
as the system gives them: a write that fails was short before, names no file, and fails when a
buffer is emptied. Afterwards there must be one message and no traceback; the states are sound; and
without the fault the run goes on to the bits of one that nothing happened to, or starts anew where
nothing had been saved.
"""

from __future__ import annotations

import argparse
import builtins
import contextlib
import datetime
import errno
import functools
import io
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.campaigns import crash_points
from tests.helpers import processes, results

# What each call may fail with; drawn by the number of the call, so that no stride keeps to one.
REASONS = {
    "open": (errno.EACCES, errno.EIO, errno.ENOSPC, errno.EMFILE, errno.EROFS),
    "write": (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG),
    "fsync": (errno.EIO, errno.ENOSPC, errno.EDQUOT),
    "close": (errno.EIO, errno.EDQUOT),
    "rename": (errno.EIO, errno.ENOSPC, errno.EACCES),
    "link": (errno.EPERM, errno.EMLINK, errno.ENOSPC),
    "remove": (errno.EACCES, errno.EIO),
    "mkdir": (errno.ENOSPC, errno.EACCES),
    "rmdir": (errno.EACCES,),
    "scandir": (errno.EIO, errno.EACCES),
    "lock": (errno.ENOLCK, errno.EIO),
}
AUDITED = {"open": "open", "os.rename": "rename", "os.link": "link", "os.remove": "remove",
           "os.mkdir": "mkdir", "os.rmdir": "rmdir", "os.scandir": "scandir",
           "os.listdir": "scandir", "fcntl.lockf": "lock", "fcntl.flock": "lock",
           "fcntl.fcntl": "lock"}  # fmt: skip

SHORT = "FELL SHORT"

Act = Callable[[str, str], None]  # the call and its file; raises what the call is to fail with


def install(folder: str, act: Act) -> None:
    """From now on `act` is asked before each call on what lies in `folder` (absolute). Audit hooks
    see most of them, whoever calls; writes, syncs and closes have no such event and are wrapped."""

    def asked(call: str, file: Any) -> None:
        path = path_of(file)
        if path.startswith(folder):
            act(call, path)

    def audit(event: str, args: tuple[Any, ...]) -> None:
        if event in AUDITED:
            asked(AUDITED[event], args[0])

    def opened(file: Any, mode: str = "r", buffering: int = -1, encoding: str | None = None,
               errors: str | None = None, newline: str | None = None, closefd: bool = True,
               opener: Any = None) -> Any:  # fmt: skip
        path = path_of(file)
        if set(mode).isdisjoint("wax+") or not path.startswith(folder) or buffering == 0:
            return original(file, mode, buffering, encoding, errors, newline, closefd, opener)
        raw = Raw(file, mode.replace("b", "").replace("t", ""), closefd, opener)
        raw.path, raw.act = path, act
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        if "b" in mode:
            return buffered
        return io.TextIOWrapper(buffered, encoding, errors, newline)

    def wrapped(call: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def calling(descriptor: int, *args: Any) -> Any:
            asked(call, descriptor)
            return function(descriptor, *args)

        return calling

    original = builtins.open
    builtins.open = io.open = opened
    os.fsync = wrapped("fsync", os.fsync)
    os.pwrite = wrapped("write", os.pwrite)
    sys.addaudithook(audit)


class Raw(io.FileIO):
    """A file below the buffers of Python, whose writes and whose closing may fail."""

    path = ""
    act: Act

    def write(self, content: Any) -> int:
        try:
            self.act("write", self.path)
        except OSError as error:
            view = memoryview(content).cast("B")
            if len(view) > 1 and self.writable():  # some of it goes first, as on a disk that fills
                super().write(view[: len(view) // 2])
            raise OSError(error.errno, error.strerror) from None
        return super().write(content) or 0

    def close(self) -> None:
        if self.closed:
            return
        super().close()
        try:
            self.act("close", self.path)
        except OSError as error:
            raise OSError(error.errno, error.strerror) from None


def path_of(file: Any) -> str:
    """Of what a call was given: a path of any kind or a descriptor."""
    with contextlib.suppress(OSError, TypeError, ValueError):
        if isinstance(file, int):
            return os.readlink(f"/proc/self/fd/{file}")
        if hasattr(file, "fileno"):
            return os.readlink(f"/proc/self/fd/{file.fileno()}")
        return os.path.abspath(os.fsdecode(file))
    return ""


def count(folder: str, into: str) -> None:
    """Write down each call, one a line."""
    descriptor = os.open(into, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def act(call: str, path: str) -> None:
        os.write(descriptor, f"{call} {path}\n".encode())

    install(folder, act)


def fail(folder: str, at: int, lasting: bool) -> None:
    """The call of that number fails, counted from 0; lasting: that kind of call from then on, for
    the same reason."""
    calls = iter(range(at))
    failed: list[tuple[str, int]] = []

    def act(call: str, path: str) -> None:
        if not failed and next(calls, None) is None:
            failed.append((call, random.Random(at).choice(REASONS[call])))
        elif not (failed and lasting and failed[0][0] == call):
            return
        raise OSError(failed[0][1], os.strerror(failed[0][1]), path)

    install(folder, act)


# --- what is run ----------------------------------------------------------------------------------

PICTURES = ("data=image_folder", "data.root=photos", "data.cache_dir=run/cache",
            "data.shape=[1,8,8]", "model.hidden=[8]", "batch_size=4", "epochs=1",
            "tensorboard=false", "hydra.run.dir=run/trained")  # fmt: skip
BEST = "run/checkpoints/best.pth"


@dataclass(frozen=True)
class Scenario:
    """A command, what must lie in its folder before, and whether it trains into `run`."""

    argv: tuple[str, ...]
    prepare: Callable[[Path], None]
    trains: bool = False


def nothing(folder: Path) -> None:
    pass


def trained(folder: Path) -> None:
    processes.train(folder, *crash_points.WORDS)


def cut_off(folder: Path) -> None:
    """Killed between two states."""
    made = crash_points.changes(shutil_folder(folder / "listed"), *crash_points.TRAIN)
    shutil.rmtree(folder / "listed")
    at = made.index(("write", "checkpoints/.step_6.pth.tmp"))
    crash_points.dying(folder, crash_points.TRAIN, at)


def shutil_folder(folder: Path) -> Path:
    folder.mkdir()
    return folder


def photographed(folder: Path) -> None:
    """Two classes of small images."""
    generator = np.random.default_rng(0)
    for label in ("dark", "light"):
        (folder / "photos" / label).mkdir(parents=True)
        for number in range(12):
            pixels = generator.integers(0, 128, (8, 8), np.uint8) + 127 * (label == "light")
            Image.fromarray(pixels.astype(np.uint8)).save(
                folder / "photos" / label / f"{number}.png"
            )
    (folder / "run").mkdir()


SCENARIOS = {
    "training": Scenario(crash_points.TRAIN, nothing, trains=True),
    "resume": Scenario(("resume", "run"), cut_off, trains=True),
    "packing": Scenario(PICTURES, photographed),
    "evaluate": Scenario(("evaluate", BEST, "-o", "run/looked"), trained),
    "export": Scenario(
        ("export", BEST, "--format", "state_dict", "-o", "run/x.pth", "--force"), trained
    ),
    "report": Scenario(("report", "run"), trained),
}


def calls_of(scenario: Scenario, base: Path, trial: Path) -> list[str]:
    shutil.copytree(base, trial)
    log = trial.parent / "calls.txt"
    prepare = functools.partial(count, str(trial / "run"), str(log))
    ended = processes.run(trial, *scenario.argv, prepare=prepare)
    assert ended.code == 0, ended.output
    lines = log.read_text().splitlines()
    log.unlink()
    shutil.rmtree(trial)
    return [line.replace(str(trial), "") for line in lines]


def check(scenario: Scenario, folder: Path, ended: processes.Ended, whole: Path) -> str:
    """One message, sound states, and a way on. Returns how it ended. Raises AssertionError."""
    output = ended.output
    for word in ("Traceback", "Exception in thread", "Exception ignored", "Logging error"):
        assert word not in output, output
    assert ended.code in (0, 1, 2), (ended.code, output)
    if ended.code:
        reasons = {os.strerror(number) for numbers in REASONS.values() for number in numbers}
        assert any(reason in output for reason in (*reasons, "Not enough disk space")), output
        assert "run" in output, output
    run = folder / "run"
    if not scenario.trains:
        again = processes.run(folder, *scenario.argv)
        known = "holds a run already" in again.output  # trained all the same, or up to a state
        assert again.code == 0 or known, again.output
        return f"exit code {ended.code}"
    steps = results.sound_steps(run) if run.is_dir() else []
    states = list((run / "checkpoints").glob("step_*.pth"))
    assert len(steps) == len(states), "a state is damaged"
    if (run / "summary.json").exists() and results.summary(run)["status"] == "finished":
        return f"exit code {ended.code}, finished"
    way = ("resume", "run") if steps else crash_points.TRAIN
    again = processes.run(folder, *way)
    assert again.code == 0, f"{output}\nthen:\n{again.output}"
    results.assert_same_but_curves(run, whole)
    return f"exit code {ended.code}, then {'resumed' if steps else 'started anew'}"


def failures(folder: Path, name: str, every: int, first: int = 0) -> Iterator[tuple[str, str]]:
    """Each call of a scenario's command, failed: the call, and how it ended, or how it fell short.
    Works below `folder`."""
    scenario = SCENARIOS[name]
    base, trial = shutil_folder(folder / f"{name} base"), folder / "trial"
    scenario.prepare(base)
    whole = folder / "whole" / "run"
    if not whole.exists():
        trained(shutil_folder(whole.parent))
    calls = calls_of(scenario, base, trial)
    for at in range(first, len(calls), every):
        for lasting in (False, True):
            shutil.copytree(base, trial)
            prepare = functools.partial(fail, str(trial / "run"), at, lasting)
            ended = processes.run(trial, *scenario.argv, prepare=prepare)
            try:
                yield calls[at].split()[0], check(scenario, trial, ended, whole)
            except (AssertionError, TimeoutError) as error:
                what = "from then on" if lasting else "once"
                yield calls[at], f"{SHORT} (call {at}, {what}): {error}"
            shutil.rmtree(trial)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--every", type=int, default=1, help="only every so many-th call")
    parser.add_argument("--first", type=int, default=0, help="from this call on")
    parser.add_argument("--only", choices=SCENARIOS, help="this command alone")
    args = parser.parse_args()
    began, found = time.monotonic(), Counter[tuple[str, str, str]]()
    with tempfile.TemporaryDirectory() as name:
        for scenario in [args.only] if args.only else SCENARIOS:
            for call, way in failures(Path(name), scenario, args.every, args.first):
                found[scenario, call, way] += 1
                if way.startswith(SHORT):
                    print(f"{scenario}: {call} {way}\n", flush=True)
    total, seconds = found.total(), time.monotonic() - began
    print(f"{datetime.date.today()}: {total} failing calls in {seconds:.0f} s\n")
    print("| command | call | ended | times |\n| --- | --- | --- | --- |")
    for (command, call, way), number in found.items():
        print(f"| {command} | {call} | {way.partition(':')[0]} | {number} |")
    sys.exit(int(any(way.startswith(SHORT) for _, _, way in found)))


if __name__ == "__main__":
    main()

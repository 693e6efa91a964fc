"""Damage the small files of a run's folder in every way that disks and people have: do `resume` and
`report` still read what is right, and say what is not?

    python -m tests.campaigns.side_files [--copies 5000] [--seed 0]

After each mutation `report` reads the folder, and `resume` mends it. Neither may raise, take long,
or show what the files do not say: a number is the file's or none, a row that is kept is one of the
file's lines in its order, a line that is left out is named, and what was written anew is readable.
"""

from __future__ import annotations

import argparse
import datetime
import json
import logging
import math
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.campaigns.damage import WORDS, cut, flips, zero_tail
from tests.helpers import processes
from trainer import checkpoints
from trainer.errors import UserError
from trainer.monitoring import run_logger
from trainer.monitoring.tensorboard import Events
from trainer.runs import mend, read, side_files
from trainer.runs.report import pages, runs_page
from trainer.runs.report.table import table
from trainer.runs.unfinished import newest_unfinished

LONGEST_S = 60  # for one copy, on a busy machine: far from what a hang or a bomb takes
FILES = (
    "metrics.jsonl", "summary.json", "findings.json", ".hydra/config.yaml", ".hydra/hydra.yaml",
    ".hydra/overrides.yaml", ".lock", "trainer.log", "events",
)  # fmt: skip

ODD = [
    "NaN", "Infinity", "-Infinity", "1e999", "9" * 400, "9" * 5000, "-1", "null", "true", '""',
    '"high"', '"\\u001b[31m\\u202e<script>"', "[]", "{}", "[[1]]", '{"a": {"b": 1}}', "1.5",
    "[" * 5000, "{" * 5000, "[" * 100_000 + "]" * 100_000, '"' + "x" * 70_000 + '"', "1e308", "0",
]  # fmt: skip
YAMLS = [
    "a: &a [x]\nb: &b [*a,*a]\nc: [*b,*b]\n", "!!python/object/apply:os.system ['true']\n",
    "- " * 3000, "[" * 3000, "{a: " * 3000, "2024-99-99\n", "? [a, b]\n: c\n", "hydra: 3\n",
    "- 0x" + "f" * 400 + "\n", "- 1_000:60:60\n", "- !!binary aGk=\n", "a: b: c\n", "\t\n", "- ~\n",
    "hydra:\n  runtime:\n    choices: [1]\n", "- {x: 1}\n", "- 190:20:30:40:50:60:70\n", "<<: 3\n",
]  # fmt: skip

Mutation = Callable[[bytes, random.Random], bytes]


def value_changed(content: bytes, chooser: random.Random) -> bytes:
    """One value of a JSON file is another, or no value."""
    places = [i for i, byte in enumerate(content) if byte in b":[,"] or [0]
    at = chooser.choice(places) + 1
    end = at
    while end < len(content) and content[end] not in b",}]\n":
        end += 1
    return content[:at] + b" " + chooser.choice(ODD).encode() + content[end:]


def lines_moved(content: bytes, chooser: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    for _ in range(chooser.randint(1, 3)):
        at, to = chooser.randrange(len(lines) + 1), chooser.randrange(len(lines) + 1)
        kind = chooser.choice(["drop", "double", "swap"])
        if kind == "drop":
            del lines[at : at + 1]
        elif kind == "double":
            lines[to:to] = lines[at : at + 1]
        else:
            lines[to:to], lines[at : at + 1] = lines[at : at + 1], []
    return b"".join(lines)


def digit_changed(content: bytes, chooser: random.Random) -> bytes:
    places = [i for i, byte in enumerate(content) if byte in b"0123456789"]
    if not places:
        return b""
    at = chooser.choice(places)
    return content[:at] + str(chooser.randrange(10)).encode() + content[at + 1 :]


def other_bytes(content: bytes, chooser: random.Random) -> bytes:
    at = chooser.randrange(len(content) + 1)
    odd = chooser.choice([b"\xff\xfe", b"\x00" * 9, b"\x1b[2J", b"\xe2\x80\xa8", b"\r\n", b"\x85"])
    return content[:at] + odd + content[at + chooser.randrange(4) :]


def another_file(content: bytes, chooser: random.Random) -> bytes:
    return chooser.choice([*ODD, *YAMLS]).encode() + chooser.choice([b"", b"\n"])


def nothing_left(content: bytes, chooser: random.Random) -> bytes:
    return chooser.choice([b"", b"\n", b" ", b"\x00"])


MUTATIONS: dict[str, Mutation] = {
    "bits flipped": flips, "cut off": cut, "tail of zeros": zero_tail,
    "another value": value_changed, "lines moved": lines_moved, "a digit changed": digit_changed,
    "bytes put in": other_bytes, "another content": another_file, "empty": nothing_left,
}  # fmt: skip


class Told(logging.Handler):
    """What the log says, all in one."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text += record.getMessage() + "\n"


def check_report(run: Path) -> str:
    """Read as `report` does. Hands back the status that it shows."""
    rows = read.read_runs(run.parent)
    assert [row.folder for row in rows] == [run]
    row = rows[0]
    assert isinstance(table(rows, run.parent), str)
    assert pages.run_page(row).rstrip().endswith("</html>")
    assert runs_page.runs_page(rows, run.parent, "report.html").rstrip().endswith("</html>")
    says = told_by(run / "summary.json")
    for name in read.NUMBERS:
        value = getattr(row, name)
        assert value is None or (math.isfinite(value) and abs(value) < 1e15), (name, value)
        if says is not None:
            assert value is None or value == says.get(name), (name, value)
    if says is None and (run / "summary.json").exists():
        assert row.status == "unreadable", row.status
        assert row.reason
    return row.status


def told_by(file: Path) -> dict[str, Any] | None:
    """What a JSON file says, read by Python's own reader; None if it says nothing."""
    try:
        found = json.loads(file.read_bytes().decode())
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def check_resume(run: Path, state: dict[str, Any], config: dict[str, Any], told: Told) -> None:
    """Mend the folder as `resume` does before it goes on from a state of step 8, epoch 2."""
    status = side_files.status_of(run)
    says = told_by(run / "summary.json")
    assert status is None or (says is not None and says["status"] == status)
    try:
        found = newest_unfinished(run.parent)
        assert found == run
        assert status not in ("finished", "failed")
    except UserError:
        assert status in ("finished", "failed")
    mend.mend_side_files(run, state["config"], config)
    if "hydra.yaml" in told.text:
        choices = read.noted_choices(run / ".hydra" / "hydra.yaml")
        assert set(choices) >= {"model", "data"}
    for name in (".hydra/config.yaml", ".hydra/hydra.yaml"):
        # Its form alone: of a number of 5,000 digits PyYAML makes no int.
        yaml.compose((run / name).read_text("utf-8"))
    before = (run / "metrics.jsonl").read_bytes()
    run_logger.drop_rows_after(run / "metrics.jsonl", state["step"], state["epoch"])
    check_rows(before, (run / "metrics.jsonl").read_bytes(), told.text, state)


def check_rows(before: bytes, after: bytes, told: str, state: dict[str, Any]) -> None:
    lines, kept = before.split(b"\n")[:-1], after.split(b"\n")[:-1]
    places, at = [], 0
    for line in kept:  # each one of the file's, in its order
        at = lines.index(line, at) + 1
        places.append(at)
    rows = [json.loads(line, parse_constant=float) for line in kept]
    order = [(row["epoch"], row["step"], side_files.SPLITS.index(row["split"])) for row in rows]
    assert order == sorted(set(order)), order
    assert all(row["step"] <= state["step"] and row["split"] != "test" for row in rows)
    for number in set(range(1, len(lines) + 1)) - set(places):
        row = side_files.as_row(lines[number - 1])
        comes_again = row and (row["step"] > state["step"] or row["split"] == "test")
        assert comes_again or "cannot be used" in told, (number, told)
    train = {row["epoch"] for row in rows if row["split"] == "train"}
    assert train >= set(range(1, state["epoch"] + 1)) or "the curves lack" in told, told


def campaign(whole: Path, copies: int, seed: int) -> dict[str, Counter[str]]:
    """How often each file was mutated, by the status that `report` then shows. `whole` is the
    folder of a finished run. Raises AssertionError, or whatever a reader raised, with the copy."""
    run = whole.parent / "mutated" / "run"
    shutil.copytree(whole, run)
    newest = checkpoints.states_in(run / "checkpoints")[-1]
    state = checkpoints.read(newest)
    config = yaml.safe_load(state["config"])
    sound = {name: (run / name).read_bytes() for name in FILES if name != "events"}
    found = {name: Counter[str]() for name in FILES}
    told = Told()
    logger = logging.getLogger("trainer")
    logger.addHandler(told)
    logger.propagate = False
    try:
        for number in range(copies):
            chooser = random.Random(f"{seed} {number}")
            name = FILES[number % len(FILES)]
            kind = chooser.choice(list(MUTATIONS))
            told.text = ""
            put_back(run, sound)
            if name == "events":
                odd_events(run / "tensorboard", chooser)
            else:
                (run / name).write_bytes(MUTATIONS[kind](sound[name], chooser))
            if chooser.random() < 0.3 and name != "summary.json":
                (run / "summary.json").unlink()
            began = time.monotonic()
            try:
                found[name][check_report(run)] += 1
                check_resume(run, state, config, told)
                if name == "events":
                    Events(run / "tensorboard", 4).close()
            except Exception as error:
                raise AssertionError(f"{name}, copy {number}, {kind}: {run}") from error
            took = time.monotonic() - began
            assert took < LONGEST_S, f"{name}, copy {number}, {kind}: {took:.1f} s"
    finally:
        logger.removeHandler(told)
        logger.propagate = True
    return found


def put_back(run: Path, sound: dict[str, bytes]) -> None:
    for name, content in sound.items():
        (run / name).write_bytes(content)
    for damaged in run.rglob("*.damaged"):
        damaged.unlink()
    shutil.rmtree(run / "tensorboard", ignore_errors=True)


def odd_events(folder: Path, chooser: random.Random) -> None:
    """Names that an event file may have; what is in it nobody of us reads."""
    folder.mkdir()
    odd = ["9" * 200, "²", "٣", "-1", "1e9", "", "17", "x", "0" * 12, "9" * 12]
    name = f"events.out.tfevents.{chooser.choice(odd)}.host.1.0"
    (folder / name).write_bytes(chooser.randbytes(chooser.randrange(99)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--copies", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        processes.train(Path(name), *WORDS)
        began = time.monotonic()
        found = campaign(Path(name) / "run", args.copies, args.seed)
    print(f"{datetime.date.today()}: {args.copies} mutations, seed {args.seed}, in "
          f"{time.monotonic() - began:.0f} s\n")  # fmt: skip
    print("| file | copies | status in the report |\n| --- | --- | --- |")
    for file, statuses in found.items():
        said = ", ".join(f"{str(status)[:20]} {count}" for status, count in statuses.most_common(4))
        print(f"| {file} | {statuses.total()} | {said} |")


if __name__ == "__main__":
    main()

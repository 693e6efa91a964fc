"""Plan of a sweep: its jobs in order, their folders, and what was added since it was begun."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.config.changes import differences, is_free
from trainer.errors import UserError
from trainer.runs.sweep_file import Job, Sweep, identity
from trainer.text.values import format_value

LONGEST_NAME = 120  # bytes of a job's folder, of the 255 that file systems take
PROGRAM = ("trainer", "models", "data", "configs")


def swept(jobs: Sequence[Sequence[str]]) -> list[list[str]]:
    """Of each job's overrides those that not all jobs have."""
    common = set.intersection(*map(set, jobs)) if jobs else set()
    return [[word for word in words if word not in common] for words in jobs]


def folder_name(index: int, words: Sequence[str]) -> str:
    """Name of a job's folder: its number, which no other has, and what was swept, as
    0_model=mlp_seed=0."""
    text = "_".join(
        re.sub(r"[^\w.=+,-]+", "-", word.lstrip("+").replace("'", "")) for word in words
    )
    name = f"{index}_{text}" if text else str(index)
    return name.encode()[:LONGEST_NAME].decode(errors="ignore").rstrip("-_.,")


def extend(sweep: Sweep, jobs: Sequence[list[str]], names: Sequence[str] | None = None) -> int:
    """Add the jobs that the sweep does not have yet. Returns their number; 0 if it has all.

    Args:
        jobs: overrides of each job.
        names: of their folders; None: by number and what is swept.
    """
    known = {identity(job.overrides) for job in sweep.jobs}
    before = len(sweep.jobs)
    times = Counter(frozenset(words) for words in jobs)
    if times and (most := times.most_common(1)[0])[1] > 1:
        raise UserError(
            f"{' '.join(sorted(most[0]))}: the sweep has this job {most[1]} times. Give each value "
            "once."
        )
    for place, (words, own) in enumerate(zip(jobs, swept(jobs), strict=True)):
        if identity(words) in known:
            continue
        index = len(sweep.jobs)
        name = names[place] if names else folder_name(index, own)
        sweep.jobs.append(Job(index, list(words), name))
    folders = Counter(job.folder for job in sweep.jobs)
    if twice := [name for name, number in folders.items() if number > 1]:
        raise UserError(
            f"hydra.sweep.subdir: gives {twice[0]} to several jobs of the sweep. Leave the "
            "key out: each job has a folder of its own, named by what is swept."
        )
    return len(sweep.jobs) - before


def beginning(
    root: Path, configs: Sequence[Mapping[str, Any]], datasets: Sequence[str]
) -> dict[str, Any]:
    """What the results of a sweep depend on beside its overrides.

    Args:
        root: folder of the program.
        configs: of the jobs, resolved; what they have in common counts.
        datasets: what tells each of its datasets from another.
    """
    first, *others = (dict(flat(config)) for config in configs)
    shared = {k: v for k, v in first.items() if all(k in o and o[k] == v for o in others)}
    return {"source": source_digest(root), "config": shared, "datasets": list(datasets)}


def flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each value of a configuration with its whole key."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def source_digest(root: Path) -> str:
    """Digest of the program's source and configuration."""
    found = hashlib.sha256()
    for name in PROGRAM:
        for file in sorted((root / name).rglob("*")):
            if file.suffix in (".py", ".yaml"):
                found.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes())
    return found.hexdigest()


def changes(sweep: Sweep, versions: Mapping[str, str], now: Mapping[str, Any]) -> Iterator[str]:
    """A line for each thing that is no longer as when the sweep was begun."""
    before = sweep.begun_with
    for name, old in before.get("config", {}).items():
        new = now["config"].get(name, old)  # a key that is missing has come to be swept
        if new != old and not is_free(name):
            yield f"configuration: {name}: {format_value(old)} -> {format_value(new)}"
    for old in before.get("datasets", ()):
        if old not in now["datasets"]:
            yield f"data: {old} -> {', '.join(now['datasets'])}"
    for name, old, new in differences(sweep.versions, versions):
        yield f"version of {name}: {old} -> {new}"
    if before.get("source", now["source"]) != now["source"]:
        yield "code: the program's source files have changed"

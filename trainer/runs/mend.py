"""What stands beside the states of a run and cannot be read, before `resume` goes on with it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from trainer.config import knobs
from trainer.config.choices import names, options
from trainer.runs.read import noted_choices, read_overrides
from trainer.runs.side_files import UNREADABLE, is_no_file, kept, read_json, read_yaml, set_aside

log = logging.getLogger("trainer")

# Written without being read first. The others are looked after where they are read.
WRITTEN = ("trainer.log", "metrics.jsonl", "checkpoints/last.pth", "checkpoints/best.pth")


def set_aside_no_files(folder: Path) -> list[str]:
    """What stands in the place of a file that the run writes and is a folder, a pipe or a device is
    kept under another name. Returns what is to be said of it."""
    return [
        f"{file}: is no file but a folder, a pipe or a device. {kept(file)}"
        for file in (folder / name for name in WRITTEN)
        if is_no_file(file)
    ]


def mend_side_files(folder: Path, config_text: str, config: Mapping[str, Any]) -> None:
    """What stands beside the states and cannot be read is kept under another name, and what the
    state tells of it is written anew. metrics.jsonl is looked after where its rows are read."""
    from trainer.system.files import write_bytes

    noted = {"hydra": {"runtime": {"choices": guessed_choices(config)}}}
    anew = {
        "summary.json": (read_json, None),
        ".hydra/config.yaml": (read_yaml, config_text),
        ".hydra/hydra.yaml": (noted_choices, yaml.safe_dump(noted)),
        ".hydra/overrides.yaml": (read_overrides, None),
    }
    for name, (read, content) in anew.items():
        file = folder / name
        try:
            read(file)
            continue
        except FileNotFoundError:
            if content is None or not file.parent.is_dir():
                continue
            what = "is missing"
        except UNREADABLE as error:
            if isinstance(error, OSError):  # it may be readable tomorrow
                log.warning("%s: cannot be read: %s.", file, error.strerror)
                continue
            what = f"cannot be read, and is kept as {set_aside(file)}"
        log.warning("%s: %s%s.", file, what, "" if content is None else "; it was written anew")
        if content is not None:
            write_bytes(file, content.encode())


def choices(folder: Path) -> dict[str, Any]:
    """The names of the run's choices, as Hydra noted them when it began."""
    try:
        return noted_choices(folder / ".hydra" / "hydra.yaml")
    except UNREADABLE:
        return {}


def guessed_choices(config: Mapping[str, Any]) -> dict[str, str]:
    """The same from the configuration: of each group the choice whose file has most in common."""
    guessed = {}
    for group in knobs.GROUPS:
        own = config[group]
        files = {name: options(group, name) for name in names(group)}
        alike = {
            name: sum(own.get(key) == value for key, value in choice.get(group, choice).items())
            for name, choice in sorted(files.items())
            if choice.get(group, choice).get("_target_") == own["_target_"]
        }
        name = str(own["_target_"]).rpartition(".")[2]
        guessed[group] = max(alike, key=alike.__getitem__, default=name)
    return guessed

"""Repair of the small files of a run before it is resumed: unreadable ones are renamed and
rewritten."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from trainer.config import knobs
from trainer.config.choices import names, options
from trainer.errors import UserError
from trainer.runs.read import noted_choices, read_overrides
from trainer.runs.side_files import UNREADABLE, is_no_file, kept, read_json, read_yaml, set_aside
from trainer.system.files import remove_half_written, write_bytes

log = logging.getLogger("trainer")

# Files that the run writes without reading them first. The others are checked where they are read.
WRITTEN = ("trainer.log", "metrics.jsonl", "checkpoints/last.pth", "checkpoints/best.pth")


def make_writable(folder: Path) -> list[str]:
    """Remove half-written files, and rename folders, pipes and devices that have the name of a file
    that the run writes. Returns lines for the log. Raises UserError if nothing can be written."""
    for path in (folder, folder / "checkpoints", folder / "trainer.log"):
        if path.exists() and not os.access(path, os.W_OK):
            raise UserError(f"{path}: cannot be written to: Permission denied.")
    remove_half_written(folder)
    return [
        f"{file}: is a folder, a pipe or a device, not a file. {kept(file)}"
        for file in (folder / name for name in WRITTEN)
        if is_no_file(file)
    ]


def mend_side_files(folder: Path, config_text: str, config: Mapping[str, Any]) -> None:
    """Rename unreadable files beside the states, and rewrite those that follow from the state.
    metrics.jsonl is checked where its rows are read.

    Args:
        config_text: configuration in the state, for .hydra/config.yaml.
        config: the same, changed and checked.
    """
    noted = {"hydra": {"runtime": {"choices": guessed_choices(config)}}}
    replacements = {
        "summary.json": (read_json, None),
        ".hydra/config.yaml": (read_yaml, config_text),
        ".hydra/hydra.yaml": (noted_choices, yaml.safe_dump(noted)),
        ".hydra/overrides.yaml": (read_overrides, None),
    }
    for name, (read, content) in replacements.items():
        file = folder / name
        try:
            read(file)
            continue
        except FileNotFoundError:
            if content is None or not file.parent.is_dir():
                continue
            what = "is missing"
        except UNREADABLE as error:
            if isinstance(error, OSError):  # the file itself may be intact
                log.warning("%s: cannot be read: %s.", file, error.strerror)
                continue
            what = f"cannot be read, and is kept as {set_aside(file)}"
        log.warning("%s: %s%s.", file, what, "" if content is None else "; it was rewritten")
        if content is not None:
            write_bytes(file, content.encode())


def guessed_choices(config: Mapping[str, Any]) -> dict[str, str]:
    """Choices guessed from the configuration: for each group the option whose file has the most
    values in common."""
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

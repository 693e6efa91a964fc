"""Checkpoints of a tiny training, with another configuration in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.helpers.commands import Finished
from tests.helpers.tiny_training import whole_run
from trainer import checkpoints
from trainer.config import stored

Dispatch = Callable[..., Finished]
Edit = Callable[[dict[str, Any]], Any]


def best() -> dict[str, Any]:
    return checkpoints.read(whole_run() / "checkpoints" / "best.pth")


def text_of(edit: Edit) -> str:
    config = yaml.safe_load(best()["config"])
    edit(config)
    return yaml.safe_dump(config, width=10**6)


def read(text: str, *words: str) -> dict[str, Any]:
    values = dict(word.split("=", 1) for word in words)
    return stored.configuration(best() | {"config": text}, values)


def write(path: Path, edit: Edit, of: Path | None = None) -> None:
    """A checkpoint with another configuration and a right digest."""
    entries = checkpoints.read(of) if of else best()
    config = yaml.safe_load(entries["config"])
    edit(config)
    entries["config"] = yaml.safe_dump(config, width=10**6)
    checkpoints.write(path, entries)

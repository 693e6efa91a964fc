"""The choices of a group as their YAML files say them, read without Hydra, which takes a third of a
second to import and resolves what a file of somebody else's must not."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainer.config.knobs import CONFIGS
from trainer.config.plain_yaml import parse
from trainer.errors import UserError
from trainer.text.values import unknown_name_message

MISSING = "???"  # as in Hydra: a key whose value another file has


def groups() -> list[str]:
    """Groups of the configuration, experiments included; Hydra's own are not."""
    own = (folder for folder in CONFIGS.iterdir() if any(folder.glob("*.yaml")))
    return sorted(folder.name for folder in own)


def names(group: str) -> list[str]:
    return sorted(file.stem for file in (CONFIGS / group).glob("*.yaml"))


def options(group: str, name: str, own: bool = False) -> dict[str, Any]:
    """The options of a choice, as Hydra merges its files. Raises UserError if the group has none of
    that name."""
    merged: dict[str, Any] = {}
    for file in files(group, name, own):
        for key, value in parse(file.read_text("utf-8")).items():
            if key != "defaults" and (value != MISSING or key not in merged):
                merged[key] = value
    return merged


def meanings(group: str, name: str, own: bool = False) -> dict[str, str]:
    """The comment behind each key of a choice; that of a base only where no choice has one."""
    found: dict[str, str] = {}
    for file in sorted(files(group, name, own), key=lambda file: file.parent.name == group):
        found |= comments(file.read_text("utf-8"))
    return found


def files(group: str, name: str, own: bool = False) -> Iterator[Path]:
    """Files of a choice in the order of its defaults list: its own, bases, which lie in a folder of
    the group and are no choices, and those of the choices that it extends.

    Args:
        own: without those of the choices that it extends.
    """
    for entry in parse(text_of(group, name)).get("defaults", ["_self_"]):
        if entry == "_self_" or "/" in entry:
            yield CONFIGS / group / f"{name if entry == '_self_' else entry}.yaml"
        elif not own:
            yield from files(group, entry)


def extended(group: str, name: str) -> list[str]:
    """The choices that a choice extends, by the defaults list of its file."""
    entries = parse(text_of(group, name)).get("defaults", ())
    texts = [entry for entry in entries if isinstance(entry, str)]
    return [text for text in texts if text != "_self_" and "/" not in text]


def comments(text: str) -> dict[str, str]:
    """The comment behind each key at the top level of a YAML text."""
    keys = re.finditer(r'^"?([a-z]\w*)"?:(?: .*?)?\s# (.*)$', text, re.MULTILINE)
    return {found[1]: found[2] for found in keys}


def text_of(group: str, name: str) -> str:
    if name not in names(group):
        raise UserError(unknown_name_message(f"choice for {group}", name, names(group)))
    return (CONFIGS / group / f"{name}.yaml").read_text("utf-8")


def title(group: str, name: str) -> str:
    """The comment at the top of a choice's file, without what is Hydra's or an example in it."""
    lines = text_of(group, name).splitlines()
    top = itertools.takewhile(lambda line: line.startswith("# "), lines)
    return " ".join(line[2:] for line in top if not line.startswith(("# @package", "#   ")))

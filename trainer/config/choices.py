"""The choices of a group as their YAML files say them, read without Hydra, which takes a third of a
second to import and resolves what a file of somebody else's must not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from trainer.config.knobs import CONFIGS
from trainer.config.plain_yaml import parse
from trainer.errors import UserError
from trainer.text.values import unknown_name_message


def names(group: str) -> list[str]:
    return sorted(file.stem for file in (CONFIGS / group).glob("*.yaml"))


def options(group: str, name: str) -> dict[str, Any]:
    """The options of a choice, after those of the choices that its defaults list extends. Raises
    UserError if the group has none of that name."""
    if name not in names(group):
        raise UserError(unknown_name_message(f"choice for {group}", name, names(group)))
    own = parse((CONFIGS / group / f"{name}.yaml").read_text("utf-8"))
    own.pop("defaults", None)
    extended: dict[str, Any] = {}
    for base in bases(group, name):
        extended.update(options(group, base))
    return {**extended, **own}


def bases(group: str, name: str) -> list[str]:
    """The choices that a choice extends, by the defaults list of its file."""
    own = parse((CONFIGS / group / f"{name}.yaml").read_text("utf-8"))
    return [base for base in own.get("defaults", ()) if base != "_self_"]


def meanings(group: str, name: str) -> dict[str, str]:
    """The comment behind each key of a choice, in its own file or in those that it extends."""
    found: dict[str, str] = {}
    for base in bases(group, name):
        found.update(meanings(group, base))
    return {**found, **comments(CONFIGS / group / f"{name}.yaml")}


def comments(file: Path) -> dict[str, str]:
    """The comment behind each key at the top level of a YAML file."""
    keys = re.finditer(r'^"?([a-z]\w*)"?:(?: .*?)?\s# (.*)$', file.read_text("utf-8"), re.MULTILINE)
    return {found[1]: found[2] for found in keys}

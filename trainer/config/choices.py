"""The choices of a group as their YAML files say them, read without Hydra, which takes a third of a
second to import and resolves what a file of somebody else's must not."""

from __future__ import annotations

import itertools
import re
from typing import Any

from trainer.config.knobs import CONFIGS
from trainer.config.plain_yaml import parse
from trainer.errors import UserError
from trainer.text.values import unknown_name_message


def groups() -> list[str]:
    """Groups of the configuration, experiments included; Hydra's own are not."""
    own = (folder for folder in CONFIGS.iterdir() if any(folder.glob("*.yaml")))
    return sorted(folder.name for folder in own)


def names(group: str) -> list[str]:
    return sorted(file.stem for file in (CONFIGS / group).glob("*.yaml"))


def options(group: str, name: str) -> dict[str, Any]:
    """The options of a choice, after those of the choices that its defaults list extends. Raises
    UserError if the group has none of that name."""
    extended: dict[str, Any] = {}
    for base in bases(group, name):
        extended.update(options(group, base))
    return {**extended, **own_options(group, name)}


def own_options(group: str, name: str) -> dict[str, Any]:
    """Options in the choice's own file."""
    return {k: v for k, v in parse(text_of(group, name)).items() if k != "defaults"}


def bases(group: str, name: str) -> list[str]:
    """The choices that a choice extends, by the defaults list of its file."""
    entries = parse(text_of(group, name)).get("defaults", ())
    return [entry for entry in entries if isinstance(entry, str) and entry != "_self_"]


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

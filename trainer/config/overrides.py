"""Overrides of a command line by key and value: optimizer.lr=0.10 is optimizer.lr=0.1."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from trainer.config.compose import as_typed
from trainer.config.hydra_errors import user_errors
from trainer.errors import UserError

# Texts in quotes, and all else but a comma before the next KEY=.
_WORD = re.compile(
    r"""(?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|,(?!\s*[+~]*[\w./@-]+=)|[^,'"]|['"])+"""
)


def divided(text: str) -> list[str]:
    """The words in KEY=VALUE,KEY=VALUE. A value may have commas of its own."""
    return [word for found in _WORD.findall(text) if (word := found.strip())]


def meaning(words: Iterable[str]) -> frozenset[tuple[str, str]]:
    """Key and value of each word, equal where Hydra takes them for the same; of a word in a file
    that Hydra does not understand, the word."""
    found = set()
    for word in words:
        try:
            found.add(parsed(word))
        except UserError:
            found.add(("", word))
    return frozenset(found)


@functools.lru_cache(maxsize=10_000)
def parsed(word: str) -> tuple[str, str]:
    """Key and value of a word, the value as JSON. Raises UserError."""
    with user_errors():
        (override,) = OverridesParser.create().parse_overrides([as_typed(word, multirun=False)])
    package = f"@{override.package}" if override.package else ""
    return override.key_or_group + package, json.dumps(_plain(override.value()), sort_keys=True)


def as_pasted(word: str) -> str:
    """The word without the quotes around a text that are added anyway, see `as_typed`."""
    name, _, value = word.partition("=")
    bare = f"{name}={value[1:-1]}"
    return bare if value[:1] in ("'", '"') and as_typed(bare, multirun=False) == word else word


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, bool | int | float | None) else str(value)

"""Keys whose values differ between runs, by the configurations in their folders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.config import knobs
from trainer.config.changes import is_free
from trainer.runs.read import Row, noted_choices
from trainer.runs.report.names import override_values
from trainer.runs.selection import REPEATS, own_overrides
from trainer.runs.side_files import read_yaml, readable
from trainer.text.values import format_value, listed

MOST_KEYS, MOST_VALUES = 12, 4
MADE = ("_target_", "_partial_")  # keys of a group that its choice says
LONGEST_VALUE = 60

Values = Mapping[str, str]


def configuration_of(folder: Path) -> dict[str, str]:
    """Keys of a run's configuration with their values as typed, a group's choice among them; {} if
    it cannot be read."""
    config = readable({}, read_yaml, folder / ".hydra" / "config.yaml")
    choices = readable({}, noted_choices, folder / ".hydra" / "hydra.yaml")
    known = {group: choices[group] for group in knobs.GROUPS if group in choices}
    flat = readable({}, lambda: dict(flattened(config)))  # a number of 5,000 digits has no text
    said = {f"{group}.{key}" for group in known for key in MADE}
    return known | {key: value for key, value in flat.items() if key not in said} if flat else {}


def flattened(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in config.items():
        if isinstance(value, dict) and value:
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", format_value(value)


def silent(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Keys that no override of these runs names and whose values differ between their
    configurations, such as the learning rate of `optimizer=sgd,adam`; each with its values. Options
    that only some choices of a swept group have are left out: they come with the choice."""
    runs = one_of_each(rows)
    configs = [configuration_of(row.folder) for row in runs]
    runs = [row for row, config in zip(runs, configs, strict=True) if config]
    configs = [config for config in configs if config]
    typed = [override_values(row.overrides) for row in runs]
    named = dict.fromkeys(key for values in typed for key in values)
    causes = [
        {key: config.get(key, values.get(key, "")) for key in named}
        for config, values in zip(configs, typed, strict=True)
    ]
    found = []
    for key in dict.fromkeys(key for config in configs for key in config):
        values = [config.get(key) for config in configs]
        group = key.partition(".")[0]
        comes_with_choice = group in named and group != key and None in values
        is_known = key in named or key in REPEATS or is_free(key) or comes_with_choice
        if len(set(values)) > 1 and not is_known:
            found.append((key, told([value or "-" for value in values], causes)))
    return found


def one_of_each(rows: Sequence[Row]) -> list[Row]:
    """The first run of each configuration that has a folder."""
    first: dict[tuple[str, ...], Row] = {}
    for row in rows:
        if (row.folder / ".hydra" / "config.yaml").is_file():
            first.setdefault(own_overrides(row), row)
    return list(first.values())


def told(values: Sequence[str], causes: Sequence[Values]) -> str:
    """As "0.05 with optimizer=sgd, 0.001 with optimizer=adam" where one of the keys that overrides
    name decides it."""
    values = [short(value) for value in values]
    for key in (key for key in causes[0] if all(words[key] for words in causes)):
        by_word: dict[str, set[str]] = {}
        for value, words in zip(values, causes, strict=True):
            by_word.setdefault(words[key], set()).add(value)
        if all(len(found) == 1 for found in by_word.values()) and len(by_word) > 1:
            phrases = [f"{found.pop()} with {key}={word}" for word, found in by_word.items()]
            return listed(phrases, MOST_VALUES)
    return listed(list(dict.fromkeys(values)), MOST_VALUES)


def short(value: str) -> str:
    return value if len(value) <= LONGEST_VALUE else f"{value[:LONGEST_VALUE]}..."


def side_by_side(folders: Sequence[Path]) -> list[tuple[str, ...]]:
    """Keys with other values in these runs, and the value in each; "-" where a run lacks it."""
    configs = [configuration_of(folder) for folder in folders]
    keys = dict.fromkeys(key for config in configs for key in config if not is_free(key))
    rows = [(key, *(short(config.get(key, "-")) for config in configs)) for key in keys]
    return [row for row in rows if len(set(row[1:])) > 1]

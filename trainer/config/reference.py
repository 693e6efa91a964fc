"""Reference of all keys, docs/configuration.md: `python -m trainer.config.reference` writes it to
standard output. Defaults and meanings come from configs/, types and ranges from the table of
knobs; nothing is said here a second time."""

from __future__ import annotations

import html
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, get_args, get_origin

from trainer.config import choices, knobs
from trainer.config.knob import KINDS, Knob
from trainer.config.plain_yaml import parse
from trainer.config.targets import locate
from trainer.text.values import format_value

COMMAND = "python -m trainer.config.reference > docs/configuration.md"
HEAD = f"""# Configuration

All keys of a training. Any of them may be given on the command line: `python -m trainer
model=lenet5 epochs=5 optimizer.lr=0.01`. A group (`model=`, `data=`, ...) takes one of its choices,
and with it the defaults of that choice. A key that does not exist, and a value that is not allowed,
end with exit code 2 and a message that names them, before anything is downloaded or written.

A name in parentheses is that of the choice for which a default or a meaning holds; it holds for the
choices that extend it, too, unless they have their own.

Generated from `configs/` and `trainer/config/knobs.py` by `{COMMAND}`.
"""


def reference() -> str:
    parts = [HEAD, "## The run\n", *of_the_run()]
    for group in knobs.GROUPS:
        parts += [f"\n## {group}\n", *of_choices(group), "", *of_options(group)]
    parts += ["\n## search\n", *of_choices("search"), "", *of_options("search")]
    parts += ["\n## experiment\n", *of_choices("experiment")]
    return "\n".join(parts) + "\n"


def of_the_run() -> Iterator[str]:
    text = (knobs.CONFIGS / "config.yaml").read_text("utf-8")
    defaults, meanings = parse(text), choices.comments(text)
    yield from head("key", "default", "allowed", "meaning")
    for key, meaning in meanings.items():
        meaning, default = html.escape(meaning, quote=False), defaults[key]
        if isinstance(default, dict):  # sweep: {name: null}
            ((name, default),) = default.items()
            key = f"{key}.{name}"
        knob = {**knobs.KNOBS, **knobs.SWEEP_KNOBS}[key]
        yield row(code(key), value(default), knob.allowed(), meaning)


def of_choices(group: str) -> Iterator[str]:
    """A row per choice: its name, and what its file's first comment says."""
    chosen: dict[str, str] = {}
    for entry in parse((knobs.CONFIGS / "config.yaml").read_text("utf-8"))["defaults"]:
        chosen.update(entry if isinstance(entry, dict) else {})
    yield from head("choice", "what it is")
    for name in choices.names(group):
        is_default = " (default)" if chosen.get(group) == name else ""
        extended = [f"Extends `{other}`." for other in choices.extended(group, name)]
        title = html.escape(choices.title(group, name), quote=False)
        yield row(f"`{group}={name}`{is_default}", " ".join([f"{title.rstrip('.')}.", *extended]))


def of_options(group: str) -> Iterator[str]:
    """A row per key of the group, over all choices whose files have it."""
    names = choices.names(group)
    defaults = {name: choices.options(group, name, own=True) for name in names}
    meanings = {name: choices.meanings(group, name, own=True) for name in names}
    keys = dict.fromkeys(key for own in defaults.values() for key in own if key[0] != "_")
    shared = {key for key in keys if all(key in choices.options(group, n) for n in names)}
    yield from head("key", "default", "allowed", "meaning")
    for key in keys:
        values = {name: own[key] for name, own in defaults.items() if key in own}
        said = {name: html.escape(own[key], quote=False) for name, own in meanings.items()
                if key in own}  # fmt: skip
        yield row(
            code(f"{group}.{key}"),
            told({name: value(default) for name, default in values.items()}, key in shared),
            told({name: allowed(group, name, key) for name in values}, True),
            told(said, True) or "taken from the dataset",
        )


def told(by_choice: Mapping[str, str], for_all: bool) -> str:
    """One text where there is one for all; else each with the choices in whose files it stands."""
    groups: dict[str, list[str]] = {}
    for name, text in by_choice.items():
        groups.setdefault(text, []).append(name)
    if len(groups) < 2 and for_all:
        return "".join(groups)
    return "<br>".join(f"{text} ({', '.join(names)})" for text, names in groups.items())


def allowed(group: str, name: str, key: str) -> str:
    """By the table of knobs, or by the annotation in the choice's class or function."""
    if knob := {**knobs.KNOBS, **knobs.SWEEP_KNOBS}.get(f"{group}.{key}"):
        return knob.allowed()
    target = locate(group, choices.options(group, name)["_target_"])
    return phrase(inspect.signature(target, eval_str=True).parameters[key].annotation)


def phrase(hint: Any) -> str:
    """Allowed values of an annotation, in words."""
    if isinstance(hint, type):
        return KINDS[hint.__name__]
    origin, (first, *others) = get_origin(hint), get_args(hint)
    if origin is Annotated and not isinstance(others[0], str):
        return Knob("str", choices=tuple(others[0])).allowed()
    if origin is Annotated:
        return others[0]
    if origin is Sequence:
        return f"a list, each {phrase(first)}"
    return f"{phrase(others[0])} per name" if origin is Mapping else f"{phrase(first)}, or null"


def value(default: Any) -> str:
    if isinstance(default, dict):
        return "one per file"
    if isinstance(default, list) and "://" in str(default):
        return "addresses"
    return code(format_value(default))


def code(text: str) -> str:
    return f"`{text}`"


def head(*columns: str) -> tuple[str, str]:
    return row(*columns), row(*("---" for _ in columns))


def row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    print(reference(), end="")

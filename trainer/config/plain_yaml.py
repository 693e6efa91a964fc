"""YAML that gives dicts, lists, texts, numbers, booleans and nulls, of bounded size and depth, and
nothing else: for the text in a file that anybody may have written."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import yaml

MOST_BYTES, MOST_DEPTH, LONGEST_NUMBER = 2**16, 8, 100


class UnplainError(ValueError):
    """It is no plain YAML; the message says why."""


# libyaml's, ten times as fast, where PyYAML was built with it.
_Loader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def parse(text: str) -> dict[str, Any]:
    """Keys and values of a YAML text, as `load` reads it. Raises UnplainError."""
    content = load(text)
    if not isinstance(content, dict):
        raise UnplainError("it does not consist of keys and values")
    return content


def load(text: str, most_bytes: int = MOST_BYTES) -> Any:
    """Dicts, lists, texts, numbers, booleans and nulls of a YAML text; keys are texts. Raises
    UnplainError."""
    if len(text) > most_bytes or len(text.encode("utf-8", "surrogatepass")) > most_bytes:
        raise UnplainError(f"it has more than {most_bytes:,} bytes")
    try:
        _check(yaml.parse(text, _Loader))
        loader = _Loader(text)
        node = loader.get_single_node()
        return _value(loader, node) if node else None
    except (yaml.YAMLError, UnicodeError) as error:
        raise UnplainError(f"it is no YAML: {' '.join(str(error).split())[:200]}") from error


def _check(events: Iterable[yaml.Event]) -> None:
    """Refuse what makes a small text large or deep, and what gives a value a type of its own,
    before anything is made of it."""
    depth = 0
    for event in events:
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise UnplainError("it has an anchor or an alias (& or *), which no training writes")
        if (tag := getattr(event, "tag", None)) is not None:
            raise UnplainError(f"it has a tag, {tag}, which no training writes")
        if isinstance(event, yaml.NodeEvent) and depth >= MOST_DEPTH:
            raise UnplainError(f"it is nested more than {MOST_DEPTH} levels deep")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)


def _value(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return [_value(loader, item) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        content: dict[str, Any] = {}
        for key, item in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value in content:
                raise UnplainError(f"a key is no text or stands twice: {str(key.value)[:60]!r}")
            content[key.value] = _value(loader, item)
        return content
    assert isinstance(node, yaml.ScalarNode)
    return _scalar(loader, node)


# As OmegaConf reads them, which has written the text: 1e-3 is a number.
_FLOAT = re.compile(r"[-+]?(\d[\d_]*\.[\d_]*|\d[\d_]*(?=[eE])|\.\d[\d_]*)([eE][-+]?\d+)?")


def _scalar(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> Any:
    """Value of a scalar without a tag; dates and the like stay texts."""
    text, kind = node.value, node.tag.rpartition(":")[2]
    if node.style or len(text) > LONGEST_NUMBER:
        return text
    if kind == "null":
        return None
    if kind == "bool":
        return loader.construct_yaml_bool(node)
    try:
        if kind == "int":
            return loader.construct_yaml_int(node)
        if kind == "float" or _FLOAT.fullmatch(text):
            return loader.construct_yaml_float(node)
    except ValueError:  # 1__2, 08
        pass
    return text

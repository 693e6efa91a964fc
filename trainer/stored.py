"""The configuration inside a checkpoint: somebody else's text, read as data and nothing more.

Plain YAML of bounded size; no interpolation, so that nothing of the user's goes anywhere; a target
only at the top of a group, and only one that this program's own YAMLs name, or one in a module
that the user trusts on this command line; values that the table of keys allows; no address, and
no place without a word. So what comes out of here can be built as if the user had typed it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from trainer import config as knobs
from trainer import runtime
from trainer.errors import UserError
from trainer.targets import calls_in, locate

MOST_BYTES, MOST_DEPTH, LONGEST_NUMBER = 2**16, 8, 100
HALF = ("bf16", "fp16")
PARTIAL = ("optimizer", "scheduler")  # whose YAMLs have _partial_
# Of a set of data: what lets the program fetch, and hold what it fetched for sound. Only this
# program's own YAML and this command line have a say in it.
SOURCES = ("mirrors", "download", "archive_md5", "file_md5", "verify")
PLACES = ("root", "cache_dir")  # taken, and told


class UnplainError(ValueError):
    """It is no plain YAML; the message says why."""


def configuration(
    entries: Mapping[str, Any], values: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The configuration inside a checkpoint, whole. Raises UserError if it holds what it may not.

    Args:
        values: the words of this command line, of which `trust` lengthens the list of what it
            may name; what the file itself trusts counts for nothing.
    """
    try:
        stored = parse(entries["config"])
        check_values(stored)
    except UnplainError as error:
        raise UserError(f"The checkpoint's configuration cannot be used: {error}.") from error
    stored.setdefault("augment", {"_target_": "data.augment.Augment"})  # older than the group
    for group in knobs.GROUPS:
        if not isinstance(stored.get(group), dict):
            raise UserError(f"The checkpoint's configuration is incomplete: {group} is missing.")
        check_group(group, stored[group], trusted(values or {}))
    check_data(stored["data"], entries)
    config = {**run_defaults(), **stored, "trust": []}
    if config["weights"] is None:  # a resumed training has them in its state
        config["replace_head"] = False
    try:
        knobs.check({**config, "data": {"_target_": None, **stored["data"]}})
    except UserError as error:
        raise UserError(f"The checkpoint's configuration cannot be used: {error}") from error
    return config


def check_data(options: Mapping[str, Any], entries: Mapping[str, Any]) -> None:
    """The sizes of the set against those of the network: whoever loads it takes memory for them."""
    if options.get("_target_") not in own_targets("data"):
        return
    for key, own in (("shape", entries["shape"]), ("num_classes", len(entries["classes"]))):
        if options.get(key) not in (None, own):
            raise UserError(
                f"The checkpoint's configuration cannot be used: data.{key}="
                f"{knobs.spell(options[key])[:100]}, and its network has {knobs.spell(own)}."
            )


def run_defaults() -> dict[str, Any]:
    """The run-wide keys of configs/config.yaml: older checkpoints lack those that came later."""
    content = parse((knobs.CONFIGS / "config.yaml").read_text("utf-8"))
    return {key: value for key, value in content.items() if key not in ("defaults", "hydra")}


def trusted(values: Mapping[str, str]) -> list[str]:
    """`trust=my_nets` or `trust=[my_nets,my_data]`. The folder where the command is started is
    searched for them, as for a training."""
    text, knob = values.get("trust", "[]"), knobs.KNOBS["trust"]
    try:
        value = parse(f"trust: {text}")["trust"]
    except UnplainError:
        value = None
    modules = value if isinstance(value, list) else [value]
    if not knob.allows(modules):
        raise UserError(f"trust={text}: must be {knob.allowed()}.")
    return modules


# --- the text ------------------------------------------------------------------------------------


class _Plain(yaml.SafeLoader):
    """Refuses what makes a small text large or deep, and what gives a value a type of its own,
    before anything is made of it."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise UnplainError("it has an anchor or an alias (& or *), which no training writes")
        if getattr(event, "tag", None) is not None:
            raise UnplainError(f"it has a tag, {event.tag}, which no training writes")
        self.depth += 1
        if self.depth > MOST_DEPTH:
            raise UnplainError(f"it is nested more than {MOST_DEPTH} levels deep")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def parse(text: str) -> dict[str, Any]:
    """Dicts, lists, texts, numbers, booleans and nulls of a YAML text; keys are texts. Raises
    UnplainError."""
    if len(text) > MOST_BYTES or len(text.encode("utf-8", "surrogatepass")) > MOST_BYTES:
        raise UnplainError(f"it has more than {MOST_BYTES:,} bytes")
    try:
        loader = _Plain(text)
        node = loader.get_single_node()
        content = _value(loader, node) if node else None
    except yaml.YAMLError as error:
        raise UnplainError(f"it is no YAML: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(content, dict):
        raise UnplainError("it does not consist of keys and values")
    return content


def _value(loader: _Plain, node: yaml.Node) -> Any:
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


def _scalar(loader: _Plain, node: yaml.ScalarNode) -> Any:
    """What the characters mean without a tag; dates and the like stay texts."""
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


def check_values(config: Mapping[str, Any]) -> None:
    """Raises UnplainError for what stands for another value. What training stores is resolved."""
    for key, text in (*texts(config), *((key, key) for key in keys(config))):
        if "${" in text:
            raise UnplainError(
                f"{key}: {text[:60]!r}: an interpolation (${{...}}) in a file is not resolved"
            )
        if "\0" in text:
            raise UnplainError(f"{key}: {text[:60]!r}: a NUL is in no text")
        if text == "???":
            raise UnplainError(f"{key}: ??? stands for a value that is missing")


def texts(node: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every text among the values of a tree of dicts and lists, with the key where it stands."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from texts(value, f"{prefix}.{key}" if prefix else key)
    elif isinstance(node, list):
        for value in node:
            yield from texts(value, prefix)
    elif isinstance(node, str):
        yield prefix, node


def keys(node: Any, prefix: str = "") -> Iterator[str]:
    """Every key in a tree of dicts and lists, with those above it."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield prefix + key
            yield from keys(value, f"{prefix}{key}.")
    elif isinstance(node, list):
        for value in node:
            yield from keys(value, prefix)


# --- the targets ---------------------------------------------------------------------------------


def check_group(group: str, options: dict[str, Any], trust: Sequence[str]) -> None:
    """Refuse a group of a file that calls anything but one target of ours, or of a trusted module.

    Raises UserError.
    """
    own = ("_target_", "_partial_") if group in PARTIAL else ("_target_",)
    for key in calls_in(options, own):
        raise UserError(
            f"The checkpoint's configuration cannot be used: {group}.{key}: only a group's own "
            "_target_ may say what is called."
        )
    if options.get("_partial_", True) is not True:
        raise UserError("The checkpoint's configuration cannot be used: _partial_ must be true.")
    if "_target_" not in options and group == "data":  # of import-weights, which knows none
        return
    target = options.get("_target_")
    if not isinstance(target, str):
        raise UserError(f"The checkpoint's configuration is incomplete: {group}._target_.")
    if not (is_own(group, target) or is_trusted(group, target, trust)):
        raise UserError(
            f"The checkpoint names {group}._target_={target[:200]}, which is none of this "
            "program's own, and is not run. If you know where the file comes from, "
            f"trust={target.partition('.')[0][:100]} takes it."
        )


def is_own(group: str, target: str) -> bool:
    return target in own_targets(group) or (group == "optimizer" and is_torch_optimizer(target))


@functools.cache
def own_targets(group: str) -> frozenset[str]:
    """What the YAMLs of configs/ name in a group."""
    found = (_target_of(file) for file in (knobs.CONFIGS / group).glob("*.yaml"))
    return frozenset(target for target in found if target)


def _target_of(file: Path) -> str | None:
    """Without parsing: there are half a hundred files, and every command waits for it."""
    found = re.search(r"^_target_: *([\w.]+)\s*$", file.read_text("utf-8"), re.MULTILINE)
    return found[1] if found else None


def is_torch_optimizer(target: str) -> bool:
    """One that a training may have been given by `optimizer._target_=torch.optim.NAdam`."""
    module, _, name = target.rpartition(".")
    if module != "torch.optim" or name.startswith("_"):
        return False
    import torch.optim

    found = getattr(torch.optim, name, None)
    base = torch.optim.Optimizer
    return isinstance(found, type) and issubclass(found, base) and found is not base


def is_trusted(group: str, target: str, trust: Sequence[str]) -> bool:
    """Whether it stands in a module that the user trusts, and is defined there: a module also
    holds what it has imported."""
    prefixes = tuple(f"{module}." for module in trust)
    if not target.startswith(prefixes) or any(p.startswith("_") for p in target.split(".")):
        return False
    home = getattr(locate(group, target), "__module__", "")
    return f"{home}.".startswith(prefixes)


# --- what belongs to the machine that trained ----------------------------------------------------


def own_sources(
    config: Mapping[str, Any], values: Mapping[str, str]
) -> tuple[dict[str, Any], list[str]]:
    """The configuration with its set of data fetched from, and verified by, what this program's own
    YAML says, and lines that tell what of the file is used for it and what is not.

    Args:
        values: the words of this command line, whose keys are left to them.
    """
    if "data" in values or "_target_" not in config["data"]:
        return dict(config), []
    data, notes = {**own_options(config["data"]["_target_"]), **config["data"]}, []
    for key in SOURCES:
        if key not in config["data"]:
            continue
        own, stored = own_options(data["_target_"]).get(key), data[key]
        forbids = key == "download" and stored is False
        data[key] = False if forbids or (key == "download" and own is None) else own
        if data[key] != stored and f"data.{key}" not in values:
            notes.append(
                f"data.{key} is not taken from a checkpoint, whose differs from this program's own "
                f"{knobs.spell(own)[:100]}: give data.{key}=... again if you want it."
            )
    for key in PLACES:
        if data.get(key) is not None and f"data.{key}" not in values:
            notes.append(
                f"data.{key}={data[key]}: as the checkpoint says; data.{key}=FOLDER takes another."
            )
    return {**config, "data": data}, notes


@functools.cache
def own_options(target: str) -> Mapping[str, Any]:
    """What the YAML of this set says; nothing for one of the user's own."""
    for file in sorted((knobs.CONFIGS / "data").glob("*.yaml")):
        if _target_of(file) == target:
            return parse(file.read_text("utf-8"))
    return {}


def on_this_machine(
    config: Mapping[str, Any], values: Mapping[str, str]
) -> tuple[dict[str, Any], list[str]]:
    """The configuration for using the model: where the device of the training is not at hand, it
    and a precision that was chosen for it count as `auto`. And a line that says so.

    Args:
        values: the words of this command line, which come first.
    """
    stored, config = dict(config), dict(config)
    layers = values.get("layers", config["layers"])
    if "device" not in values and not runtime.has_device(config["device"]):
        config["device"] = "auto"
    device = runtime.pick_device(values.get("device", config["device"]), layers)
    elsewhere = device.type == "cpu" and stored["device"] not in ("auto", "cpu")
    no_fp64 = stored["precision"] == "fp64" and device.type == "mps"
    if "precision" not in values and (no_fp64 or (elsewhere and stored["precision"] in HALF)):
        config["precision"] = "fp32"
    changed = [k for k in ("device", "precision") if config[k] != stored[k]]
    if not changed:
        return config, []
    was = ", ".join(f"{key}={stored[key]}" for key in changed)
    return config, [f"{was} of the training: computed on {device} in {config['precision']} here."]

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

import torch

from trainer.config import choices, knobs
from trainer.config.combinations import NUMPY_TAKES
from trainer.config.plain_yaml import UnplainError, parse
from trainer.config.targets import calls_in, locate
from trainer.errors import UserError
from trainer.system.device import has_device, pick_device
from trainer.text.values import format_value

HALF = ("bf16", "fp16")
PARTIAL = ("optimizer", "scheduler")  # whose YAMLs have _partial_
# Of a set of data: what lets the program fetch, and hold what it fetched for sound. Only this
# program's own YAML and this command line have a say in it.
SOURCES = ("mirrors", "download", "archive_md5", "file_md5", "verify")
# Groups that older checkpoints lack, with the target that does nothing.
OLDER_THAN = {
    "augment": "data.augment.Augment", "average": "trainer.training.rules.averaging.none",
}  # fmt: skip
# Taken, and told.
PLACES = {"root": "FOLDER", "cache_dir": "FOLDER", "test_files": "FILE", "group": "REGEX"}


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
    for group, target in OLDER_THAN.items():
        stored.setdefault(group, {"_target_": target})
    for group in knobs.GROUPS:
        if not isinstance(stored.get(group), dict):
            raise UserError(f"The checkpoint's configuration is incomplete: {group} is missing.")
        check_group(group, stored[group], trusted(values or {}))
    check_data(stored["data"], entries)
    config = {**run_defaults(), **stored, "trust": []}
    if config["weights"] is None:  # a resumed training has them in its state
        config["replace_head"] = False
    checked = {**config, "data": {"_target_": None, **stored["data"]}}
    if config["layers"] == "numpy" and knobs.KNOBS["device"].allows(config["device"]):
        checked["device"] = "auto"  # its own concerns the training; see `on_this_machine`
    if knobs.KNOBS["processes"].allows(config["processes"]):
        checked["processes"] = 1  # those of the training, too
    try:
        knobs.check(checked)
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
                f"{format_value(options[key])[:100]}, and its network has {format_value(own)}."
            )


def run_defaults() -> dict[str, Any]:
    """The run-wide keys of configs/config.yaml: older checkpoints lack those that came later."""
    content = parse((knobs.CONFIGS / "config.yaml").read_text("utf-8"))
    others = ("defaults", "hydra", *knobs.OF_SWEEPS)
    return {key: value for key, value in content.items() if key not in others}


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


# --- the values ----------------------------------------------------------------------------------


def check_values(config: Mapping[str, Any]) -> None:
    """Raises UnplainError for what stands for another value. What training stores is resolved."""
    for key, text in texts(config):
        if "${" in text:
            raise UnplainError(
                f"{key}: {text[:60]!r}: an interpolation (${{...}}) in a file is not resolved"
            )
        if "\0" in text:
            raise UnplainError(f"{key}: {text[:60]!r}: a NUL is in no text")
        if text == "???":
            raise UnplainError(f"{key}: ??? stands for a value that is missing")


def texts(node: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a tree of dicts and lists, keys included, with the key where it stands."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield f"{place}.{key}".removeprefix("."), key
            yield from texts(value, f"{place}.{key}".removeprefix("."))
    elif isinstance(node, list):
        for value in node:
            yield from texts(value, place)
    elif isinstance(node, str):
        yield place, node


# --- the targets ---------------------------------------------------------------------------------


def check_group(
    group: str, options: dict[str, Any], trust: Sequence[str], whose: str = "The checkpoint"
) -> None:
    """Refuse a group of a file that calls anything but one target of ours, or of a trusted module.
    Raises UserError.

    Args:
        whose: the file, as the message names it.
    """
    own = ("_target_", "_partial_") if group in PARTIAL else ("_target_",)
    for key in calls_in(options, own):
        raise UserError(
            f"{whose}'s configuration cannot be used: {group}.{key}: only a group's own "
            "_target_ may say what is called."
        )
    if options.get("_partial_", True) is not True:
        raise UserError(f"{whose}'s configuration cannot be used: _partial_ must be true.")
    if "_target_" not in options and group == "data":  # of import-weights, which knows none
        return
    target = options.get("_target_")
    if not isinstance(target, str):
        raise UserError(f"{whose}'s configuration is incomplete: {group}._target_.")
    if not (is_own(group, target) or is_trusted(group, target, trust)):
        raise UserError(
            f"{whose} names {group}._target_={target[:200]}, which is none of this "
            "program's own, and is not run. If you know where the file comes from, "
            f"trust={target.partition('.')[0][:100]} takes it."
        )


def is_own(group: str, target: str) -> bool:
    return target in own_targets(group) or (group == "optimizer" and is_torch_optimizer(target))


@functools.cache
def own_targets(group: str) -> frozenset[str]:
    """Targets that the YAMLs of configs/ name in a group."""
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
    found = getattr(torch.optim, name, None)
    base = torch.optim.Optimizer
    return isinstance(found, type) and issubclass(found, base) and found is not base


def is_trusted(group: str, target: str, trust: Sequence[str]) -> bool:
    """True if a target stands in a module that the user trusts, and is defined there: a module also
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
                f"{format_value(own)[:100]}: give data.{key}=... again if you want it."
            )
    for key, another in PLACES.items():
        if data.get(key) is not None and f"data.{key}" not in values:
            notes.append(
                f"data.{key}={data[key]}: as the checkpoint says; data.{key}={another} takes "
                "another."
            )
    return {**config, "data": data}, notes


@functools.cache
def own_options(target: str) -> Mapping[str, Any]:
    """Options in the YAML of this dataset; none for one of the user's own."""
    for name in choices.names("data"):
        if _target_of(knobs.CONFIGS / "data" / f"{name}.yaml") == target:
            return choices.options("data", name)
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
    at_hand = has_device(config["device"]) and (
        layers != "numpy" or config["device"] in NUMPY_TAKES["device"]
    )
    if "device" not in values and not at_hand:
        config["device"] = "auto"
    device = pick_device(values.get("device", config["device"]), layers)
    elsewhere = device.type == "cpu" and stored["device"] not in ("auto", "cpu")
    no_fp64 = stored["precision"] == "fp64" and device.type == "mps"
    if "precision" not in values and (no_fp64 or (elsewhere and stored["precision"] in HALF)):
        config["precision"] = "fp32"
    changed = [k for k in ("device", "precision") if config[k] != stored[k]]
    if not changed:
        return config, []
    was = ", ".join(f"{key}={stored[key]}" for key in changed)
    return config, [f"{was} of the training: computed on {device} in {config['precision']} here."]

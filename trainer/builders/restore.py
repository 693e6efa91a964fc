"""Restoring a model from a checkpoint and its description."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import torch
import yaml
from hydra.errors import InstantiationException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor, nn

from trainer.builders.networks import placed
from trainer.checkpoints.tensors import differences
from trainer.config import choices, knobs, stored
from trainer.config.targets import check_options, instantiate_group
from trainer.errors import UserError
from trainer.system.device import check_precision, pick_device
from trainer.text.values import unknown_name_message


def reconfigure(config: Mapping[str, Any], values: Mapping[str, str]) -> dict[str, Any]:
    """Stored configuration with changed keys, checked. The name of a group (data=cifar10) replaces
    the whole group by that option's file.

    Args:
        config: configuration in a checkpoint, without interpolations (`stored.py` removes them).
        values: changed keys with their values as typed; these may be interpolations.

    Raises:
        UserError: a key or value is unknown or not allowed.
    """
    changed = OmegaConf.create(dict(config))
    for key, text in sorted(values.items(), key=lambda item: "." in item[0]):
        if key in knobs.GROUPS:
            changed[key] = OmegaConf.create(choices.options(key, text))
            continue
        if key == "trust":
            changed.trust = stored.trusted(values)
            continue
        group, _, name = key.partition(".")
        if name and name not in changed[group]:
            raise UserError(
                unknown_name_message(
                    "key", key, [f"{group}.{k}" for k in changed[group] if k[0] != "_"]
                )
            )
        OmegaConf.update(changed, key, typed(key, text))
    if "_target_" not in changed["data"]:
        raise UserError(
            "This checkpoint comes from import-weights and names no dataset: add data=..."
        )
    plain: dict[str, Any] = OmegaConf.to_container(changed, resolve=True)  # type: ignore[assignment]
    knobs.check(plain)
    return plain


def typed(key: str, text: str) -> Any:
    """Value of a typed text: unchanged for a key of type str, else parsed as YAML. Raises
    UserError."""
    knob = knobs.KNOBS.get(key)
    is_text = knob is not None and knob.kind == "str" and not knob.choices and knob.length is None
    if is_text and text != "null":
        return text
    try:
        return OmegaConf.create(f"value: {text}").value
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{key}={text}: the value is not valid YAML.") from error


def usable(entries: Mapping[str, Any], values: Mapping[str, str]) -> dict[str, Any]:
    """Configuration in a checkpoint, for using its model on this machine; a line on stderr tells
    what is not as in the training. Raises UserError.

    Args:
        values: keys of this command line, which come first.
    """
    config, notes = stored.on_this_machine(stored.configuration(entries, values), values)
    for note in notes:
        print(note, file=sys.stderr)
    return {**config, "processes": 1, "teacher": None}  # what only a training needs


def restore(entries: Mapping[str, Any], config: Mapping[str, Any]) -> nn.Module:
    """Model of a checkpoint with its weights, on the configuration's device, in eval mode. Raises
    UserError if weights and configuration do not fit."""
    model, weights = check_weights(entries, config), entries["model"]
    if all_in_state_dict(model):  # its tensors are the checkpoint's: nothing is drawn or copied
        model.load_state_dict({n: t.contiguous() for n, t in weights.items()}, assign=True)
    else:
        model = instantiate_group("model", sized(entries, config))
        model.load_state_dict(weights)
    device = pick_device(config["device"], config["layers"])
    check_precision(config["precision"], device)
    return placed(config, model, device).eval()


def sized(entries: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the checkpoint's model."""
    return {**config["model"], "shape": entries["shape"], "num_classes": len(entries["classes"])}


def all_in_state_dict(model: nn.Module) -> bool:
    """True if all tensors of a model stand in its state_dict, each once."""
    tensors = [*model.named_parameters(remove_duplicate=False),
               *model.named_buffers(remove_duplicate=False)]  # fmt: skip
    others = [v for m in model.modules() for v in vars(m).values() if isinstance(v, Tensor)]
    return (
        {name for name, _ in tensors} == model.state_dict().keys()
        and len({id(tensor) for _, tensor in tensors}) == len(tensors)
        and not others
    )


def check_weights(entries: Mapping[str, Any], config: Mapping[str, Any]) -> nn.Module:
    """Model that a configuration describes, on the meta device, since sizes in a file can exceed
    any memory. Raises UserError unless the weights fit it."""
    options = sized(entries, config)
    check_options("model", options)
    try:
        with torch.device("meta"):
            model: nn.Module = instantiate_group("model", options)
    except InstantiationException as error:  # options that no other check covers
        raise UserError(f"model: cannot be created with these options: {error!s:.500}") from error
    differing = differences(entries["model"], model.state_dict())
    if differing:
        lines = [f"  {name}: {have} -> {want}" for name, have, want in differing[:10]]
        raise UserError(
            "The weights do not fit the model that model.* describes (have -> want):\n"
            + "\n".join(lines)
            + f"\n{len(differing)} in all. Leave model.* unchanged."
        )
    return model

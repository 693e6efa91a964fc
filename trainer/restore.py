"""From a checkpoint back to a network: its own description says all that is needed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from data.loader import Batches, Preprocess
from data.types import Split
from trainer import config as knobs
from trainer import runtime
from trainer.errors import UserError
from trainer.parts import evaluation_batches, memory_format, min_size, on_layers, place
from trainer.targets import ALLOWED_TARGETS, check_allowed, make


def stored_config(entries: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration inside a checkpoint. Raises UserError if it names what it may not."""
    config = OmegaConf.to_container(OmegaConf.create(entries["config"]))
    if not isinstance(config, dict) or not all(group in config for group in ALLOWED_TARGETS):
        raise UserError("The checkpoint's configuration is incomplete.")
    stored = {str(key): value for key, value in config.items()}
    check_allowed(stored)
    return {**run_defaults(), **stored}


def run_defaults() -> dict[str, Any]:
    """The run-wide keys of configs/config.yaml: older checkpoints lack those that came later."""
    content = OmegaConf.to_container(OmegaConf.load(knobs.CONFIGS / "config.yaml"), resolve=False)
    assert isinstance(content, dict)
    return {str(k): v for k, v in content.items() if k not in ("defaults", "hydra")}


def reconfigure(config: Mapping[str, Any], values: Mapping[str, str]) -> dict[str, Any]:
    """A stored configuration with these keys changed, checked. A group's name (data=cifar10)
    takes that choice's file whole."""
    changed = OmegaConf.create(dict(config))
    for key, text in sorted(values.items(), key=lambda item: "." in item[0]):
        if key in knobs.GROUPS:
            changed[key] = OmegaConf.load(choice_file(key, text))
            continue
        group, _, name = key.partition(".")
        if name and name not in changed[group]:
            raise UserError(
                knobs.unknown("key", key, [f"{group}.{k}" for k in changed[group] if k[0] != "_"])
            )
        OmegaConf.update(changed, key, typed(key, text))
    if "_target_" not in changed["data"]:
        raise UserError(
            "This checkpoint comes from import-weights and names no data set: add data=..."
        )
    plain: dict[str, Any] = OmegaConf.to_container(changed, resolve=True)  # type: ignore[assignment]
    knobs.check(plain)
    return plain


def typed(key: str, text: str) -> Any:
    """The value that these characters mean: as they are where the key is a text, else as YAML."""
    knob = knobs.KNOBS.get(key)
    is_text = knob is not None and knob.kind == "str" and not knob.choices and knob.length is None
    if is_text and text != "null":
        return text
    try:
        return OmegaConf.create(f"value: {text}").value
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{key}={text}: not understood as a value.") from error


def choice_file(group: str, name: str) -> Path:
    files = {path.stem: path for path in (knobs.CONFIGS / group).glob("*.yaml")}
    if name not in files:
        raise UserError(knobs.unknown(f"choice for {group}", name, files))
    return files[name]


def restore(entries: Mapping[str, Any], config: Mapping[str, Any]) -> nn.Module:
    """The checkpoint's network with its weights, on the configuration's device, in eval mode."""
    sized = {"shape": entries["shape"], "num_classes": len(entries["classes"])}
    model: nn.Module = make("model", {**config["model"], **sized})
    have = {name: tuple(tensor.shape) for name, tensor in entries["model"].items()}
    want = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if have != want:
        names = sorted({n for n in have.keys() | want.keys() if have.get(n) != want.get(n)})
        lines = [f"  {n}: {have.get(n, 'missing')} -> {want.get(n, 'unexpected')}" for n in names]
        raise UserError(
            "The weights do not fit the network (have -> want):\n"
            + "\n".join(lines[:10])
            + f"\n{len(names)} in all."
        )
    model.load_state_dict(entries["model"])
    device = runtime.pick_device(config["device"], config["layers"])
    layout = memory_format(config, model)
    place(model, device, runtime.float_dtype(config["precision"]), layout)
    return on_layers(config["layers"], model).eval()


def evaluation(
    config: Mapping[str, Any],
    model: nn.Module,
    entries: Mapping[str, Any],
    split: Split,
    device: torch.device,
) -> Batches:
    """A split as batches for a restored model, normalised as in its training."""
    preprocess = Preprocess(
        tuple(entries["mean"]), tuple(entries["std"]), min_size(model), device,
        runtime.float_dtype(config["precision"]), memory_format(config, model),
    )  # fmt: skip
    return evaluation_batches(config, preprocess, device, split)

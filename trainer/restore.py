"""From a checkpoint back to a network: its own description says all that is needed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import nn

from data.loader import Batches, Preprocess
from data.types import Split
from trainer import config as knobs
from trainer import runtime
from trainer.build import evaluation_batches, memory_format, min_size, place
from trainer.errors import UserError
from trainer.targets import ALLOWED_TARGETS, check_allowed, make


def stored_config(entries: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration inside a checkpoint. Raises UserError if it names what it may not."""
    config = OmegaConf.to_container(OmegaConf.create(entries["config"]))
    if not isinstance(config, dict) or not all(group in config for group in ALLOWED_TARGETS):
        raise UserError("The checkpoint's configuration is incomplete.")
    check_allowed(config)  # type: ignore[arg-type]
    return config  # type: ignore[return-value]


def reconfigure(config: Mapping[str, Any], values: Mapping[str, str]) -> dict[str, Any]:
    """A stored configuration with these keys changed, checked. A group's name (data=cifar10)
    takes that choice's file whole."""
    changed = OmegaConf.create(dict(config))
    for key, text in sorted(values.items(), key=lambda item: "." in item[0]):
        value = OmegaConf.create(f"value: {text}").value
        if key in knobs.GROUPS:
            changed[key] = OmegaConf.load(choice_file(key, text))
            continue
        group, _, name = key.partition(".")
        if name and name not in changed[group]:
            raise UserError(
                knobs.unknown("key", key, [f"{group}.{k}" for k in changed[group] if k[0] != "_"])
            )
        OmegaConf.update(changed, key, value)
    if "_target_" not in changed["data"]:
        raise UserError(
            "This checkpoint comes from import-weights and names no data set: add data=..."
        )
    plain: dict[str, Any] = OmegaConf.to_container(changed, resolve=True)  # type: ignore[assignment]
    knobs.check(plain)
    return plain


def choice_file(group: str, name: str) -> Path:
    file = knobs.CONFIGS / group / f"{name}.yaml"
    if not file.is_file():
        choices = [path.stem for path in file.parent.glob("*.yaml")]
        raise UserError(knobs.unknown(f"choice for {group}", name, choices))
    return file


def restore(entries: Mapping[str, Any], config: Mapping[str, Any]) -> nn.Module:
    """The checkpoint's network with its weights, on the configuration's device, in eval mode."""
    sized = {"shape": entries["shape"], "num_classes": len(entries["classes"])}
    options = {key: sized.get(key, value) for key, value in config["model"].items()}
    model: nn.Module = make("model", options)
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
    device = runtime.pick_device(config["device"])
    layout = memory_format(config["channels_last"], model)
    return place(model, device, runtime.float_dtype(config["precision"]), layout).eval()


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
        runtime.float_dtype(config["precision"]), memory_format(config["channels_last"], model),
    )  # fmt: skip
    return evaluation_batches(config, preprocess, device, split)

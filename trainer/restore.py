"""From a checkpoint back to a network: its own description says all that is needed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from omegaconf import ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn
from torch.overrides import TorchFunctionMode

from data.loader import Preprocess
from trainer import config as knobs
from trainer import runtime
from trainer.errors import UserError
from trainer.parts import memory_format, min_size, on_layers, place
from trainer.targets import ALLOWED_TARGETS, check_allowed, make


def stored_config(
    entries: Mapping[str, Any], values: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The configuration inside a checkpoint. Raises UserError if it names what it may not.

    Args:
        values: the words of this command line, of which `trust` lengthens the list of what it
            may; what the file itself trusts counts for nothing.
    """
    config = OmegaConf.to_container(OmegaConf.create(entries["config"]))
    if not isinstance(config, dict):
        raise UserError("The checkpoint's configuration is incomplete.")
    stored = {str(key): value for key, value in config.items()}
    stored.setdefault("augment", {"_target_": "data.augment.Augment"})  # older than the group
    if not all(isinstance(stored.get(group), dict) for group in ALLOWED_TARGETS):
        raise UserError("The checkpoint's configuration is incomplete.")
    check_allowed(stored, trusted(values or {}))
    return {**run_defaults(), **stored, "trust": []}


def trusted(values: Mapping[str, str]) -> list[str]:
    """`trust=my_nets` or `trust=[my_nets,my_data]`. The folder where the command is started is
    searched for them, as for a training."""
    value = typed("trust", values.get("trust", "[]"))
    modules = value if isinstance(value, list | ListConfig) else [value]
    knob = knobs.KNOBS["trust"]
    if not knob.allows(list(modules)):
        raise UserError(f"trust={values['trust']}: must be {knob.allowed()}.")
    return [str(module) for module in modules]


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
        if key == "trust":
            changed.trust = trusted(values)
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


class _Unfilled(TorchFunctionMode):
    """New parameters keep whatever memory holds. Every one is overwritten from the checkpoint, and
    drawing VGG19's 140 million random numbers takes four seconds."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if getattr(func, "__name__", "").endswith(("uniform_", "normal_")):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def restore(entries: Mapping[str, Any], config: Mapping[str, Any]) -> nn.Module:
    """The checkpoint's network with its weights, on the configuration's device, in eval mode."""
    sized = {"shape": entries["shape"], "num_classes": len(entries["classes"])}
    with _Unfilled():
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


def preprocess(
    config: Mapping[str, Any], model: nn.Module, entries: Mapping[str, Any], device: torch.device
) -> Preprocess:
    """From uint8 pictures to what a restored model sees: normalised as in its training."""
    return Preprocess(
        tuple(entries["mean"]), tuple(entries["std"]), min_size(model), device,
        runtime.float_dtype(config["precision"]), memory_format(config, model),
    )  # fmt: skip

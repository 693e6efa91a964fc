"""Hyperparameters of a run, for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.config import knobs
from trainer.runs.read import OVERRIDES, read_overrides
from trainer.runs.side_files import readable
from trainer.text.values import format_value


def hparams(config: Mapping[str, Any], choices: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Hyperparameters for TensorBoard, the overrides first. The keys are the same in all jobs of a
    sweep, which override the same ones: TensorBoard shows only those of the first that it reads."""
    found: dict[str, Any] = {}
    overrides: list[str] = readable([], read_overrides, folder / OVERRIDES)
    for key in (word.lstrip("+").partition("=")[0] for word in overrides):
        value: Any = choices.get(key, config)
        for part in key.split(".") if key not in choices else ():
            value = value.get(part) if isinstance(value, Mapping) else None
        is_plain = isinstance(value, bool | int | float | str)
        found[key] = value if is_plain else format_value(value)
    found |= {group: str(choices.get(group)) for group in ("model", "data", "optimizer")}
    found |= {"lr": config["optimizer"].get("lr", 0.0), "seed": config["seed"]}
    found |= {group: str(choices.get(group)) for group in knobs.GROUPS}
    found |= {key: config[key] for key in ("epochs", "batch_size", "precision")}
    return found | {"weight_decay": config["optimizer"].get("weight_decay", 0.0)}

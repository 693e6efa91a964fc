"""A bare `state_dict`: weights without a word of what they are for, which the command line says."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from trainer.builders import idle_keys, pretrained
from trainer.checkpoints.file import is_safetensors
from trainer.inference import import_weights

# Of a set, what says nothing of how the model sees an image.
IDLE = tuple(f"data.{key}" for key in (
    "download", "mirrors", "hflip", "val_size", "test_size", "split_seed", "group", "fraction",
    "test_files", "folds", "fold", "num_train", "num_test", "noise", "seed", "file_md5",
))  # fmt: skip


def read(path: Path, values: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Entries that a checkpoint of these weights would have, and the configuration on the command
    line: model= is the model; data= tells shape, mean and std, and the classes if its files are at
    hand.

    The weights are parsed in a child process with limits. Raises UserError.
    """
    idle_keys.refuse(values, idle_keys.FRESH_WEIGHTS, idle_keys.FROM_THE_FILE)
    idle_keys.refuse(values, IDLE, "it says nothing of how the model sees an image")
    model, others = values["model"], {k: v for k, v in values.items() if k != "model"}
    config, told = import_weights.compose(model, others, pretrained.described(path)[0])
    if told.classes is None:
        print(
            f"data={values['data']}: files not found; class indices are used as names.",
            file=sys.stderr,
        )
    start = import_weights.fitted(
        path, config, True,
        "The last layer has another number of classes than the dataset: data= must be the one "
        "that the model was trained on.",
    )  # fmt: skip
    start = replace(start, classes=told.classes, mean=told.mean, std=told.std)
    return import_weights.describe(config, start, start.state_dict, told), config


def advice(path: Path) -> str:
    """Advice to add where a file may be one of these, as any of torch.save's is."""
    if not zipfile.is_zipfile(path) and not is_safetensors(path):
        return ""
    return (
        "\nIf it holds weights alone (a state_dict), say what they are for: model=... data=... "
        "and the options of the two that the model was trained with."
    )

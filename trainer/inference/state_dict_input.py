"""A bare `state_dict`: weights without a word of what they are for, which the command line says."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from data.preparation import fit_channels
from data.types import Dataset
from trainer.builders import datasets, idle_keys, networks, pretrained
from trainer.checkpoints import meaning
from trainer.checkpoints.file import is_safetensors
from trainer.config.compose import one_job, parse
from trainer.config.targets import check_options
from trainer.errors import UserError

# Of a set, what says nothing of how the model sees an image.
IDLE = tuple(f"data.{key}" for key in (
    "download", "mirrors", "hflip", "val_size", "test_size", "split_seed", "group",
    "test_files", "folds", "fold", "num_train", "num_test", "noise", "seed", "file_md5",
))  # fmt: skip


def read(path: Path, values: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Entries that a checkpoint of these weights would have, and the configuration on the command
    line: model= is the model; data= tells shape, mean and std, and the classes if its files are at
    hand.

    The weights are parsed in a child process with limits. Raises UserError.
    """
    config = one_job(parse([f"{key}={value}" for key, value in values.items()]))
    idle_keys.refuse(values, idle_keys.FRESH_WEIGHTS, idle_keys.FROM_THE_FILE)
    idle_keys.refuse(values, IDLE, "it says nothing of how the model sees an image")
    for group in ("model", "data"):
        check_options(group, config[group])
    options = config["data"]
    dataset = at_hand(options)
    if dataset:
        shape, num_classes = dataset.shape, len(dataset.classes)
    else:
        shape, num_classes = datasets.announced_size(options)
        print(
            f"data={values['data']}: files not found; class indices are used as names.",
            file=sys.stderr,
        )
    with torch.device("meta"):  # names and shapes alone
        model = networks.make_model(config, shape, num_classes)
    start = pretrained.from_file(path, model)
    pretrained.check_fit(
        model, start.state_dict, False, str(path),
        "The last layer has another number of classes than the dataset: data= must be the one "
        "that the model was trained on.",
    )  # fmt: skip
    mean, std = (dataset.mean, dataset.std) if dataset else normalisation(options)
    entries = {
        "model": start.state_dict,
        "classes": list(dataset.classes) if dataset else [str(k) for k in range(num_classes)],
        "shape": list(shape),
        "mean": list(mean),
        "std": list(std),
        "fit": meaning.fit_of(options, config),
        "pixel_range": dataset.pixel_range if dataset else options.get("pixel_range"),
        "probabilities": pretrained.described(path)[0].get("probabilities", "softmax"),
        "resize": options.get("resize")
        or (start.resize if start.resize and start.shape == shape else min(shape[1:])),
    }
    return entries, config


def at_hand(options: Mapping[str, Any]) -> Dataset | None:
    """The dataset, if that needs no download. Raises UserError if only its files can tell how
    many classes it has."""
    try:
        return datasets.load_data(
            {**options, **({"download": False} if "download" in options else {})}
        )
    except UserError:
        if options["num_classes"] is None:
            raise
        return None


def normalisation(options: Mapping[str, Any]) -> tuple[tuple[float, ...], ...]:
    """mean and std as the set's YAML has them, for the channels that the model sees."""
    return tuple(
        fit_channels(f"data.{key}", options[key], len(options[key]), options["shape"][0])
        for key in ("mean", "std")
    )


def advice(path: Path) -> str:
    """Advice to add where a file may be one of these, as any of torch.save's is."""
    if not zipfile.is_zipfile(path) and not is_safetensors(path):
        return ""
    return (
        "\nIf it holds weights alone (a state_dict), say what they are for: model=... data=... "
        "and the options of the two that the model was trained with."
    )

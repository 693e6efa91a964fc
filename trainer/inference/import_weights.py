"""Import of other people's weights: read from a file, held against a model, made a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import OmegaConf
from torch import nn

from data.preparation import fit_channels
from data.types import Dataset
from trainer import checkpoints
from trainer.builders import datasets, networks, pretrained
from trainer.builders.pretrained import Start
from trainer.checkpoints import describable
from trainer.checkpoints.kinds import LONGEST_NAME, MOST_NAMES
from trainer.config.compose import one_job, parse
from trainer.config.targets import check_options
from trainer.errors import UserError
from trainer.runs.side_files import is_no_file
from trainer.system.start import torch_is_imported
from trainer.system.versions import versions
from trainer.text.values import format_value

IMAGENET_SHAPE, IMAGENET_CLASSES = [3, 224, 224], 1000


def import_weights(
    file: Path, model_name: str, output: Path, classes: Path | None, values: Mapping[str, str]
) -> None:
    """Write a checkpoint of the weights in a file, and say what was taken for granted.

    Args:
        model_name: a choice of `model`.
        classes: a text with a name on each line.
        values: the keys that were given.

    Raises UserError."""
    names = read_classes(classes) if classes else None
    if names and "data" not in values:
        values = {"data.num_classes": str(len(names)), **values}
    described, ignored = pretrained.described(file)
    config, told = compose(model_name, values, described)
    torch_is_imported()
    check_options("model", {**config["model"], **config["data"]})
    describable.check_options(config["data"])
    describable.check_number(config["data"]["num_classes"])
    try:
        start = fitted(
            file, config, bool({"data", "data.shape"} & values.keys()),
            "The file has another number of classes: give data.num_classes=N.",
        )  # fmt: skip
    except UserError as error:
        raise UserError(f"{error}\nNote: {ignored}." if ignored else str(error)) from error
    if names and len(names) != config["data"]["num_classes"]:
        raise UserError(
            f"--classes {classes}: has {len(names):,} names; the model has "
            f"{config['data']['num_classes']:,} classes."
        )
    start = replace(
        start, classes=names or told.classes or start.classes,
        mean=told.mean or start.mean, std=told.std or start.std,
    )  # fmt: skip
    model = sized(config)
    model.load_state_dict(start.state_dict)
    entries = describe(config, start, model.state_dict(), told)
    describable.check(entries)
    checkpoints.write(output, entries)
    for note in start.notes:
        print(note)
    if start.mean is None:
        print("the file tells no mean and std: images are taken as pixel / 255; data.mean=[...] "
              "data.std=[...] say others")  # fmt: skip
    if start.classes is None:
        print("the file tells no names: classes are called by their numbers; --classes FILE names "
              "them")  # fmt: skip
    seen = "x".join(map(str, entries["shape"]))
    print(f"{output}: {model_name}, {len(entries['classes'])} classes, input {seen}")
    numbers = [format_value([round(v, 6) for v in entries[key]]) for key in ("mean", "std")]
    print(f"mean {numbers[0]}, std {numbers[1]}, resized to {entries['resize']}")


def fitted(file: Path, config: dict[str, Any], has_shape: bool, advice: str) -> Start:
    """Content of the file, which fits the model. If the shape was not given and the file tells one,
    the configuration takes it. Raises UserError, with advice where the number of classes
    differs."""
    with torch.device("meta"):  # its size may be the file's own word, which its tensors must prove
        model = sized(config)
    start = pretrained.from_file(file, model)
    if start.shape and not has_shape and list(start.shape) != config["data"]["shape"]:
        config["data"]["shape"] = list(start.shape)  # another size may mean another head or stem
        with torch.device("meta"):
            model = sized(config)
    pretrained.check_fit(model, start.state_dict, False, str(file), advice)
    num_classes = config["data"]["num_classes"]
    if start.classes and len(start.classes) != num_classes:
        note = f"the file names {len(start.classes):,} classes and has {num_classes:,}: the names "
        start = replace(start, classes=None, notes=[*start.notes, f"{note}are not used"])
    return start


def sized(config: Mapping[str, Any]) -> nn.Module:
    return networks.make_model(config, *datasets.announced_size(config["data"]))


class Told(NamedTuple):
    """Images and classes as the command line and the file describe them; None: not at all."""

    classes: list[str] | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    fit: str
    resize: int | None
    probabilities: str
    pixel_range: Sequence[float] | None


def compose(
    model: str, values: Mapping[str, str], described: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], Told]:
    """Configuration of that model without a dataset, on images of the dataset that was named, as
    the file's own description has them, or like ImageNet's; and what the keys and the description
    say of them. Raises UserError."""
    described = described or {}
    shape = described.get("shape", IMAGENET_SHAPE)
    num_classes = len(described["classes"]) if described else IMAGENET_CLASSES
    words = {"model": model, **values}
    if "data" not in values:
        sizes = {"data.shape": shape, "data.num_classes": num_classes}
        words = {key: format_value(size) for key, size in sizes.items()} | words
    config = one_job(parse([f"{key}={value}" for key, value in words.items()]))
    options = config["data"]
    told = told_by(options, values, described)
    if told.classes:
        options["num_classes"] = len(told.classes)
    if options["num_classes"] is None:
        raise UserError("data.num_classes=null: give how many the file's last layer has.")
    kept = {key: options[key] for key in ("shape", "num_classes")}
    for key in kept:  # as the data says, once that is known
        of_model = config["model"].pop(key, None)
        if f"model.{key}" in values and of_model != kept[key]:
            raise UserError(
                f"model.{key}={format_value(of_model)}: data.{key} is {format_value(kept[key])}, "
                f"and says it. Leave the key out, or set data.{key}."
            )
    return {**config, "data": kept}, told


def told_by(
    options: Mapping[str, Any], values: Mapping[str, str], described: Mapping[str, Any]
) -> Told:
    """Description of the images by these options of data, as far as they were given, and by the
    file in what `pretrained.from_file` has no place for."""
    is_named = "data" in values
    dataset = at_hand(options) if is_named else None
    given = [key for key in ("mean", "std") if f"data.{key}" in values]
    if len(given) == 1 and not is_named:
        raise UserError(f"data.{given[0]}: give data.mean and data.std, both or neither.")
    mean, std = None, None
    if dataset:
        mean, std = dataset.mean, dataset.std
    elif is_named or given:
        mean, std = normalisation(options)
    pixel_range = (options if is_named else described).get("pixel_range")
    told = Told(
        list(dataset.classes) if dataset else None,
        mean,
        std,
        options["fit"] if is_named or "data.fit" in values else described.get("fit", "crop"),
        options["resize"],
        described.get("probabilities", "softmax"),
        dataset.pixel_range if dataset else pixel_range,
    )
    if told.fit == "squash" and told.resize:
        raise UserError(
            f"data.resize={told.resize}: is for data.fit=crop; squash resizes both sides to "
            "data.shape. Leave the key out."
        )
    return told


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


def read_classes(file: Path) -> list[str]:
    """Class names in a text file, one a line. Raises UserError."""
    if is_no_file(file):  # reading from a pipe might wait for ever
        raise UserError(
            f"--classes {file}: is no file but a folder, a pipe or a device. Give a text file."
        )
    try:
        with file.open(encoding="utf-8-sig") as lines:
            names = [line.strip() for line in lines.read(MOST_NAMES * LONGEST_NAME).splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise UserError(f"--classes {file}: cannot be read: {reason}.") from error
    while names and not names[-1]:
        names.pop()
    if not names or not all(names) or max(map(len, names)) > LONGEST_NAME:
        raise UserError(
            f"--classes {file}: must have a name on each line, of at most {LONGEST_NAME} "
            "characters."
        )
    return names


def describe(
    config: dict[str, Any], start: Start, state_dict: dict[str, Any], told: Told
) -> dict[str, Any]:
    """Entries of the checkpoint, as the file tells them; where it does not: classes as numbers,
    pixels as they are (mean 0, std 1), no margin round the crop."""
    shape, num_classes = list(config["data"]["shape"]), config["data"]["num_classes"]
    channels = shape[0]
    of_file = start.resize if start.shape and list(start.shape) == shape else None
    return {
        "model": state_dict,
        "config": OmegaConf.to_yaml(OmegaConf.create(config)),
        "classes": start.classes or [str(label) for label in range(num_classes)],
        "shape": shape,
        "mean": list(start.mean or [0.0] * channels),
        "std": list(start.std or [1.0] * channels),
        "resize": told.resize or of_file or min(shape[1:]),
        "fit": told.fit,
        "probabilities": told.probabilities,
        "pixel_range": list(told.pixel_range) if told.pixel_range else None,
        "versions": versions(),
        "step": 0,
        "epoch": 0,
    }

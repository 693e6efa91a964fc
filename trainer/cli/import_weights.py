"""`trainer import-weights FILE --model NAME -o FILE.pth`: other people's weights made ours."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from trainer.builders import idle_keys
from trainer.cli.arguments import existing, parse_words, refuse_to_replace
from trainer.config import knobs
from trainer.errors import UserError
from trainer.inference import state_dict_input
from trainer.runs.side_files import is_no_file
from trainer.text.values import format_value

if TYPE_CHECKING:
    from trainer.builders.pretrained import Start

# Keys of data that a checkpoint is made of.
DESCRIBING = ("shape", "fit", "resize", "num_classes", "mean", "std")
IMAGENET_SHAPE, IMAGENET_CLASSES = [3, 224, 224], 1000


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="trainer import-weights",
        description="Turn a torchvision .pth or a MatConvNet .mat file into a checkpoint that "
        "evaluate, predict and weights= take.",
        epilog="Keys: model.<option>=..., data.shape=[3,224,224], data.num_classes=1000, "
        "data.mean=[...] and data.std=[...] in units of pixel / 255, data.fit=crop (or squash), "
        "data.resize=256, of what the file does not tell; or data=<the set that they were trained "
        "on> for all of these. "
        "torchvision's GoogLeNet needs model.batch_norm=true model.branch5x5=3 "
        "model.aux_pool=adaptive.",
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--model", required=True, help="the network that they are for, as model=")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the checkpoint to write")
    parser.add_argument(
        "--classes", type=Path, metavar="FILE",
        help="a text with the names of the classes, one a line, in the order of the outputs",
    )  # fmt: skip
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    keys = ("model.", "data", "data.root", *(f"data.{key}" for key in DESCRIBING))
    args, values = parse_words(parser, argv, keys)
    existing(args.file)
    idle_keys.refuse(values, idle_keys.FRESH_WEIGHTS, idle_keys.FROM_THE_FILE)
    check_output(args.output, args.file, args.force)
    names = read_classes(args.classes) if args.classes else None
    if names and "data" not in values:
        values.setdefault("data.num_classes", str(len(names)))
    config, told = compose(args.model, values)

    from models.weights import WeightsError
    from trainer import checkpoints
    from trainer.builders import factories, pretrained
    from trainer.checkpoints import describable
    from trainer.config.targets import check_options
    from trainer.system.torch_internals import leave_compiler_unimported

    leave_compiler_unimported()
    check_options("model", {**config["model"], **config["data"]})
    describable.check_options(config["data"])
    describable.check_number(config["data"]["num_classes"])
    model = factories.make_model(config, *factories.announced_size(config["data"]))
    try:
        start = pretrained.from_file(args.file, model)
    except WeightsError as error:
        raise UserError(str(error)) from error
    if (
        start.shape
        and not {"data", "data.shape"} & values.keys()
        and list(start.shape) != config["data"]["shape"]
    ):
        config["data"]["shape"] = list(start.shape)  # another size may mean another head or stem
        model = factories.make_model(config, *factories.announced_size(config["data"]))
    pretrained.load_into(
        model, start.state_dict, False, str(args.file),
        "The file has another number of classes: give data.num_classes=N.",
    )  # fmt: skip
    if names and len(names) != config["data"]["num_classes"]:
        raise UserError(
            f"--classes {args.classes}: has {len(names):,} names; the model has "
            f"{config['data']['num_classes']:,} classes."
        )
    start = replace(
        start, classes=names or told.classes or start.classes,
        mean=told.mean or start.mean, std=told.std or start.std,
    )  # fmt: skip
    entries = describe(config, start, model.state_dict(), told)
    describable.check(entries)
    checkpoints.write(args.output, entries)
    for note in start.notes:
        print(note)
    if start.mean is None:
        print("the file tells no mean and std: images are taken as pixel / 255; data.mean=[...] "
              "data.std=[...] say others")  # fmt: skip
    if start.classes is None:
        print("the file tells no names: classes are called by their numbers; --classes FILE names "
              "them")  # fmt: skip
    seen = "x".join(map(str, entries["shape"]))
    print(f"{args.output}: {args.model}, {len(entries['classes'])} classes, input {seen}")
    numbers = [format_value([round(v, 6) for v in entries[key]]) for key in ("mean", "std")]
    print(f"mean {numbers[0]}, std {numbers[1]}, resized to {entries['resize']}")
    return 0


class Told(NamedTuple):
    """What the command line says of the images and classes; None: nothing."""

    classes: list[str] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    fit: str = "crop"
    resize: int | None = None


def compose(model: str, values: dict[str, str]) -> tuple[dict[str, Any], Told]:
    """The configuration of that model without a data set: on images like ImageNet's, or those of
    the set that was named; and what the keys say of them."""
    from trainer.config.compose import Composer, parse, plain

    keys = [f"{key}={value}" for key, value in values.items()]
    args = parse([f"model={model}", *keys])
    for key, default in (("data.shape", IMAGENET_SHAPE), ("data.num_classes", IMAGENET_CLASSES)):
        if key not in values and "data" not in values:
            args.overrides.append(f"{key}={format_value(default)}")
    composer = Composer(args)
    config = plain(composer.jobs(composer.master())[0])
    knobs.check(config)
    options, told = config["data"], Told()
    if "data" in values:
        dataset = state_dict_input.at_hand(options)
        mean, std = (
            (dataset.mean, dataset.std) if dataset else state_dict_input.normalisation(options)
        )
        told = Told(list(dataset.classes) if dataset else None, mean, std)
        options["num_classes"] = len(dataset.classes) if dataset else options["num_classes"]
    else:
        given = [key for key in ("mean", "std") if f"data.{key}" in values]
        if len(given) == 1:
            raise UserError(f"data.{given[0]}: give data.mean and data.std, both or neither.")
        if given:
            mean, std = state_dict_input.normalisation(options)
            told = Told(None, mean, std)
    is_told = "data" in values or "data.fit" in values
    told = told._replace(fit=options["fit"] if is_told else "crop", resize=options["resize"])
    if told.fit == "squash" and told.resize:
        raise UserError(
            f"data.resize={told.resize}: is for data.fit=crop; squash resizes both sides to "
            "data.shape. Leave the key out."
        )
    if options["num_classes"] is None:
        raise UserError("data.num_classes=null: give how many the file's last layer has.")
    kept = {key: options[key] for key in ("shape", "num_classes")}
    for key in kept:  # as the data says, once that is known
        of_model = config["model"].pop(key, None)
        if f"model.{key}" in values and of_model != kept[key]:
            raise UserError(
                f"model.{key}={format_value(of_model)}: data.{key} is {format_value(kept[key])}, "
                "and "
                f"says it. Leave the key out, or set data.{key}."
            )
    return {**config, "data": kept}, told


def read_classes(file: Path) -> list[str]:
    """The names in a text file, one a line. Raises UserError."""
    from trainer.checkpoints.entries import LONGEST_NAME, MOST_NAMES

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


def check_output(path: Path, source: Path, force: bool) -> None:
    if path.suffix != ".pth":
        raise UserError(f"-o {path}: a checkpoint's name ends in .pth.")
    if not path.absolute().parent.is_dir():
        raise UserError(f"-o {path}: there is no folder {path.parent}.")
    refuse_to_replace(path, source, force)


def describe(
    config: dict[str, Any], start: Start, state_dict: dict[str, Any], told: Told
) -> dict[str, Any]:
    """The checkpoint's entries: what the file told; what it did not: classes as numbers, pictures
    as they are (mean 0, std 1), no margin round the crop."""
    from omegaconf import OmegaConf

    from trainer.system.versions import versions

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
        "probabilities": "softmax",
        "versions": versions(),
        "step": 0,
        "epoch": 0,
    }

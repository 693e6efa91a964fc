"""`trainer import-weights FILE --model NAME -o FILE.pth`: other people's weights made ours."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer import config as knobs
from trainer.commands.arguments import existing, parse_words
from trainer.errors import UserError

if TYPE_CHECKING:
    from trainer.weights import Start

IMAGENET_SHAPE, IMAGENET_CLASSES = [3, 224, 224], 1000


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="trainer import-weights",
        description="Turn a torchvision .pth or a MatConvNet .mat file into a checkpoint that "
        "evaluate, predict and weights= take.",
        epilog="Keys: model.<option>=..., data.shape=[3,224,224], data.num_classes=1000. "
        "torchvision's GoogLeNet needs model.batch_norm=true model.branch5x5=3 "
        "model.aux_pool=adaptive.",
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--model", required=True, help="the network that they are for, as model=")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the checkpoint to write")
    args, values = parse_words(parser, argv, ("model.", "data.shape", "data.num_classes"))
    existing(args.file)
    check_output(args.output)
    config = compose(args.model, values)

    from models.weights import WeightsError
    from trainer import checkpoint, parts, runtime, weights
    from trainer.targets import check_options

    runtime.leave_compiler_unimported()
    check_options("model", {**config["model"], **config["data"]})
    model = parts.make_model(config, *parts.announced_size(config["data"]))
    try:
        start = weights.from_file(args.file, model)
    except WeightsError as error:
        raise UserError(str(error)) from error
    if start.shape and "data.shape" not in values and list(start.shape) != config["data"]["shape"]:
        config["data"]["shape"] = list(start.shape)  # another size may mean another head or stem
        model = parts.make_model(config, *parts.announced_size(config["data"]))
    weights.load_into(
        model, start.state_dict, False, str(args.file),
        "The file has another number of classes: give data.num_classes=N.",
    )  # fmt: skip
    entries = describe(config, start, model.state_dict())
    checkpoint.write(args.output, entries)
    for note in start.notes:
        print(note)
    if start.mean is None:
        print("the file tells no mean and std: pictures are taken as pixel / 255")
    seen = "x".join(map(str, entries["shape"]))
    print(f"{args.output}: {args.model}, {len(entries['classes'])} classes, input {seen}")
    print(f"mean {knobs.spell(entries['mean'])}, std {knobs.spell(entries['std'])}")
    return 0


def compose(model: str, values: dict[str, str]) -> dict[str, Any]:
    """The configuration of that model on pictures like ImageNet's, without a data set."""
    from trainer.compose import Composer, parse, plain

    keys = [f"{key}={value}" for key, value in values.items()]
    args = parse([f"model={model}", *keys])
    for key, default in (("data.shape", IMAGENET_SHAPE), ("data.num_classes", IMAGENET_CLASSES)):
        if key not in values:
            args.overrides.append(f"{key}={knobs.spell(default)}")
    composer = Composer(args)
    config = plain(composer.jobs(composer.master())[0])
    knobs.check(config)
    if config["data"]["num_classes"] is None:
        raise UserError("data.num_classes=null: give how many the file's last layer has.")
    kept = {key: config["data"][key] for key in ("shape", "num_classes")}
    for key in kept:  # as the data says, once that is known
        config["model"].pop(key, None)
    return {**config, "data": kept}


def check_output(path: Path) -> None:
    if path.suffix != ".pth":
        raise UserError(f"-o {path}: a checkpoint's name ends in .pth.")
    if not path.absolute().parent.is_dir():
        raise UserError(f"-o {path}: there is no folder {path.parent}.")


def describe(config: dict[str, Any], start: Start, state_dict: dict[str, Any]) -> dict[str, Any]:
    """The checkpoint's entries: what the file told; what it did not: classes as numbers, pictures
    as they are (mean 0, std 1), no margin round the crop."""
    from omegaconf import OmegaConf

    from trainer.runtime import versions

    shape, num_classes = list(config["data"]["shape"]), config["data"]["num_classes"]
    channels = shape[0]
    told = start.resize if start.shape and list(start.shape) == shape else None
    return {
        "model": state_dict,
        "config": OmegaConf.to_yaml(OmegaConf.create(config)),
        "classes": start.classes or [str(label) for label in range(num_classes)],
        "shape": shape,
        "mean": list(start.mean or [0.0] * channels),
        "std": list(start.std or [1.0] * channels),
        "resize": told or min(shape[1:]),
        "fit": "crop",
        "probabilities": "softmax",
        "versions": versions(),
        "step": 0,
        "epoch": 0,
    }

"""`trainer export CHECKPOINT --format FORMAT [-o FILE]`: a trained net for other programs."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.cli.arguments import existing, parse_words, refuse_to_replace
from trainer.errors import TrainingError, UserError

if TYPE_CHECKING:
    from torch import nn

KEYS = ("device", "layers", "trust")
ENDINGS = {"state_dict": (".state_dict.pth", ".pth", ".pt"), "pt2": (".pt2",), "onnx": (".onnx",)}
PROBABILITIES = {
    "softmax": "their softmax", "sigmoid": "the sigmoid of each", "clip": "each, cut to 0..1,",
}  # fmt: skip
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def main(argv: list[str]) -> int:
    args, values = parse(argv)
    existing(args.checkpoint)
    paths = choose_paths(args)
    if args.format == "onnx":
        check_extra()

    from trainer.builders import restore
    from trainer.checkpoints.entries import read
    from trainer.inference import export_formats
    from trainer.system.torch_internals import leave_compiler_unimported

    leave_compiler_unimported()
    entries = read(args.checkpoint)
    config = configuration(entries, values)
    model: nn.Module = restore.restore(entries, config)
    description = describe(entries, config, model)
    if args.format == "state_dict":
        content = export_formats.state_dict_bytes(entries["model"])
        again = restore.restore(
            {**entries, "model": export_formats.read_state_dict(content)}, config
        )
        loaded = export_formats.forward_of(again)
    else:
        content, loaded = export_formats.graph(args.format, model, description)
    difference = export_formats.largest_difference(
        export_formats.forward_of(model), loaded, description
    )
    if not difference <= export_formats.TOLERANCE:
        raise TrainingError(
            f"{paths[0]}: not written: loaded again, its logits differ from the net's by "
            f"{difference:.1e} of the largest; {export_formats.TOLERANCE:.0e} is allowed."
        )
    described = json.dumps(description, indent=2).encode()
    write(dict(zip(paths, (content, described), strict=False)))
    print(f"{paths[0]}: {len(content) / 1e6:,.1f} MB, loaded again: its logits are within "
          f"{difference:.1e} of the largest")  # fmt: skip
    return 0


def parse(argv: list[str]) -> tuple[argparse.Namespace, dict[str, str]]:
    parser = argparse.ArgumentParser(
        prog="trainer export",
        description="The net in a checkpoint for other programs. state_dict: its weights alone, as "
        "they are, with a .json beside them that describes them; pt2: torch.export's program; "
        "onnx. The last two hold the net in float32, whatever the precision of its training, "
        "on normalised pictures, (N, C, H, W) with any N, and the description inside. Each is "
        "loaded again and compared with the net before it is written.",
        epilog="Keys: device=... and layers=... of the net that it is compared with (default: cpu, "
        "torch), trust=...",
    )
    parser.add_argument("checkpoint", type=Path, help="a .pth file of a run or of import-weights")
    parser.add_argument("--format", choices=ENDINGS, required=True)
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE",
        help="default: beside the checkpoint, as best.state_dict.pth, best.pt2, best.onnx",
    )  # fmt: skip
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    args, values = parse_words(parser, argv, KEYS)
    if values.get("layers") == "numpy" and args.format != "state_dict":
        raise UserError(
            f"layers=numpy: a graph in {args.format} is made of torch's layers. Leave the key out; "
            "the weights are the same."
        )
    return args, values


def choose_paths(args: argparse.Namespace) -> list[Path]:
    """The file to write and, for a state_dict, its description. Raises UserError."""
    endings = ENDINGS[args.format]
    path: Path = args.output or args.checkpoint.with_name(args.checkpoint.stem + endings[0])
    if not path.name.endswith(endings):
        raise UserError(
            f"-o {path}: the name of a {args.format} file ends in {' or '.join(endings)}."
        )
    if not path.absolute().parent.is_dir():
        raise UserError(f"-o {path}: there is no folder {path.parent}.")
    paths = [path, path.with_suffix(".json")] if args.format == "state_dict" else [path]
    for file in paths:
        refuse_to_replace(file, args.checkpoint, args.force)
    return paths


def check_extra() -> None:
    missing = [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"--format onnx needs {' and '.join(missing)}: pip install -e '.[export]'.")


def configuration(entries: Mapping[str, Any], values: Mapping[str, str]) -> dict[str, Any]:
    """The checkpoint's, for the net that the file is compared with: with torch's layers on the
    CPU if the user says nothing else, and in the precision of the weights."""
    from trainer.builders import restore
    from trainer.config import stored
    from trainer.system.device import check_precision, pick_device

    values = {"device": "cpu", "layers": "torch", **values}
    config, notes = stored.on_this_machine(stored.configuration(entries, values), values)
    for note in notes:
        print(note, file=sys.stderr)
    # No data set plays a part, and import-weights names none.
    config = restore.reconfigure({**config, "data": {"_target_": None}}, values)
    check_precision(config["precision"], pick_device(config["device"], "torch"))
    return config


def describe(
    entries: Mapping[str, Any],
    config: Mapping[str, Any],
    model: nn.Module,
) -> dict[str, Any]:
    """What another program must know to use the net; of plain types, for JSON."""
    from data.loading.preprocess import pads
    from trainer import checkpoints
    from trainer.builders import factories
    from trainer.checkpoints import meaning
    from trainer.config import plain_yaml
    from trainer.system.versions import versions

    shape, told = entries["shape"], plain_yaml.parse(entries["config"])
    how, fit = meaning.probabilities_of(entries, told), meaning.fit_of(entries, told)
    size = list(factories.input_size(model, tuple(shape)))
    padded = pads(tuple(shape[1:]), factories.min_size(model))
    return {
        "classes": entries["classes"],
        "shape": shape,
        "resize": entries["resize"],
        "mean": entries["mean"],
        "std": entries["std"],
        "input_size": size,
        "input": f"images, float (N, {shape[0]}, {size[0]}, {size[1]}), any N",
        "fit": fit,
        "preprocessing": preprocessing(shape, entries["resize"], size, padded, fit),
        "output": f"logits, float (N, {len(entries['classes'])}); {PROBABILITIES[how]} is what "
        "predict shows as probabilities",
        "probabilities": how,
        "model": {**config["model"], "shape": shape, "num_classes": len(entries["classes"])},
        "checkpoint": {
            "digest": checkpoints.digest(dict(entries)),
            "step": entries["step"],
            "epoch": entries["epoch"],
        },
        "versions": versions(),
    }


def preprocessing(
    shape: Sequence[int], resize: int, size: Sequence[int], padded: bool, fit: str
) -> list[str]:
    """From a picture to `images`, a sentence for each step."""
    channels, height, width = shape
    steps = [
        "The first picture of a file, upright as its EXIF has it; grey of more than 8 bits scaled "
        "by the depth that the file declares, or by the range of the training's set; what is "
        "transparent over black, or over white where what can be seen is nearly black.",
        {1: "Grey, by ITU-R BT.601", 3: "Red, green, blue"}.get(channels, f"{channels} channels")
        + ", pixels 0 to 255.",
        f"If it is not {height} x {width}: both sides to it, bilinear with antialiasing."
        if fit == "squash"
        else f"If it is not {height} x {width}: the shorter side to {resize}, bilinear with "
        f"antialiasing; then the centre of {height} x {width}.",
        "(pixel / 255 - mean) / std for each channel.",
    ]
    if padded:
        steps.insert(3, f"A border of 2 black pixels all round, which makes {size[0]} x {size[1]}.")
    elif list(size) != [height, width]:
        steps.append(f"To {size[0]} x {size[1]}, bilinear with antialiasing.")
    return steps


def write(files: Mapping[Path, bytes]) -> None:
    """All of them or none: what is there is replaced once all lie beside it."""
    from trainer.system.files import sync_folder, write_bytes

    beside = {path: path.with_name(f".{path.name}.new.{os.getpid()}") for path in files}
    try:
        for path, content in files.items():
            write_bytes(beside[path], content)
        for path in files:
            os.replace(beside[path], path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}.") from error
    finally:
        for temporary in beside.values():
            temporary.unlink(missing_ok=True)
    sync_folder(path.parent)

"""Export of a checkpoint's model: made, loaded again, compared, described, written."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from data.files import replace_durably
from data.loading.preprocess import pads
from trainer import checkpoints
from trainer.builders import networks, restore
from trainer.checkpoints import meaning
from trainer.checkpoints.entries import read, value_of
from trainer.config import plain_yaml
from trainer.errors import TrainingError, UserError
from trainer.inference import export_formats
from trainer.system.files import write_bytes
from trainer.system.start import torch_is_imported
from trainer.system.versions import versions

PROBABILITIES = {
    "softmax": "their softmax", "sigmoid": "the sigmoid of each", "clip": "each, cut to 0..1,",
}  # fmt: skip


def export(checkpoint: Path, format: str, paths: Sequence[Path], values: Mapping[str, str]) -> None:
    """Write the model in this format, and say how well the file agrees with it.

    Args:
        format: one of state_dict, safetensors, pt2, onnx.
        paths: the file; a second one for its description as JSON.
        values: keys of the model that the file is compared with.

    Raises UserError, or TrainingError if the file, loaded again, computes something else."""
    torch_is_imported()
    entries = read(checkpoint)
    # Torch's layers on the CPU, if the user says nothing else; no dataset plays a part, and
    # import-weights names none.
    values = {"device": "cpu", "layers": "torch", **values}
    config = {**restore.usable(entries, values), "data": {"_target_": None}}
    config = restore.reconfigure(config, values)
    model = restore.restore(entries, config)
    description = describe(entries, config, model)
    if format in export_formats.WEIGHTS:
        to_bytes, from_bytes = export_formats.WEIGHTS[format]
        content = to_bytes(entries["model"], description)
        again = restore.restore({**entries, "model": from_bytes(content)}, config)
        loaded = export_formats.forward_of(again)
    else:
        content, loaded = export_formats.graph(format, model, description)
    difference = export_formats.largest_difference(
        export_formats.forward_of(model), loaded, description
    )
    if not difference <= export_formats.TOLERANCE:
        raise TrainingError(
            f"{paths[0]}: not written: loaded again, its logits differ from the model's by "
            f"{difference:.1e} of the largest; {export_formats.TOLERANCE:.0e} is allowed."
        )
    described = json.dumps(description, indent=2).encode()
    write(dict(zip(paths, (content, described), strict=False)))
    print(f"{paths[0]}: {len(content) / 1e6:,.1f} MB, loaded again: its logits are within "
          f"{difference:.1e} of the largest")  # fmt: skip


def describe(
    entries: Mapping[str, Any], config: Mapping[str, Any], model: nn.Module
) -> dict[str, Any]:
    """All that another program must know to use the model; of plain types, for JSON."""
    shape, told = entries["shape"], plain_yaml.parse(entries["config"])
    how, fit = meaning.probabilities_of(entries, told), meaning.fit_of(entries, told)
    size = list(networks.input_size(model, tuple(shape)))
    padded = pads(tuple(shape[1:]), networks.min_size(model))
    return {
        "classes": entries["classes"],
        "shape": shape,
        "resize": entries["resize"],
        "mean": entries["mean"],
        "std": entries["std"],
        "input_size": size,
        "input": f"images, float (N, {shape[0]}, {size[0]}, {size[1]}), any N",
        "fit": fit,
        "pixel_range": value_of(entries, "pixel_range"),
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
    """Steps from an image file to `images`, a sentence for each."""
    channels, height, width = shape
    steps = [
        "The first image of a file, upright as its EXIF has it; grey of more than 8 bits scaled "
        "by the depth that the file declares, or by the range of the training dataset; what is "
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


def write(contents: Mapping[Path, bytes]) -> None:
    """Write all of these files or none: what is there is replaced once all lie beside it."""
    beside = {path: path.with_name(f".{path.name}.new.{os.getpid()}") for path in contents}
    try:
        for path, content in contents.items():
            write_bytes(beside[path], content)
        for path in contents:
            replace_durably(beside[path], path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}.") from error
    finally:
        for temporary in beside.values():
            temporary.unlink(missing_ok=True)

"""Predictions of a checkpoint's model for image files."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data.images.decode import read_image
from data.images.fitting import MODES
from data.types import DataError, Fit
from trainer import checkpoints
from trainer.builders import networks, restore
from trainer.checkpoints import meaning
from trainer.checkpoints.entries import read
from trainer.errors import UserError
from trainer.inference import state_dict_input
from trainer.inference.image_paths import mark
from trainer.inference.prediction_output import NO_MEMORY, progress, show_json, table, with_copy
from trainer.losses import probabilities
from trainer.system.device import autocast, pick_device
from trainer.system.seeds import set_deterministic
from trainer.system.start import torch_is_imported
from trainer.system.threads import set_num_threads

# At most so many images at a time, that a long list shows its first results soon; and at most so
# many pixels, that the activations of a deep network stay under a gigabyte or two.
READ_AT_ONCE, PIXELS_AT_ONCE = 32, 2**20


@dataclass(frozen=True)
class Options:
    """Options of the command.

    top_k: classes per image. fit: None = as in the training. invert: light becomes dark.
    max_pixels: larger images are not decoded. json: a JSON object a line instead of a table.
    output: folder for annotated copies. targets: the copy of each file.
    """

    top_k: int
    fit: Fit | None
    invert: bool
    max_pixels: int
    json: bool
    output: Path | None
    targets: dict[Path, Path]


def predict(
    checkpoint: Path, files: Sequence[Path], values: Mapping[str, str], options: Options
) -> int:
    """Show the most probable classes of each file. Returns how many failed. Raises UserError."""
    output = options.output
    is_new = output is not None and not output.exists()
    entries, config = described(checkpoint, values)
    classify = classifier(entries, config)
    say_how(entries, options.fit)
    decoding: dict[str, Any] = {
        # Behind what is transparent: paper, if it has to become the black that digits lie on.
        "background": 255 if options.invert else 0,
        "max_pixels": options.max_pixels,
        # Range of deep grey that becomes 0 to 255, as in the training; None: none was noted.
        "scale": entries.get("pixel_range"),
    }
    shape, fit = tuple(entries["shape"]), options.fit or entries["fit"]

    def read_as_seen(file: Path) -> NDArray[np.uint8]:
        """Image file as the model sees it, (C, H, W) uint8. Raises DataError."""
        pixels = read_image(file, shape, entries["resize"], fit, **decoding)
        return 255 - pixels if options.invert else pixels

    name = partial(
        best, classes=entries["classes"], top_k=options.top_k, how=entries["probabilities"]
    )
    show = show_json if options.json else table(files)
    at_once = max(1, min(READ_AT_ONCE, PIXELS_AT_ONCE // math.prod(entries["shape"][1:])))
    num_failed = 0
    with progress(len(files)) as advance:
        for result in predictions(files, read_as_seen, classify, name, at_once):
            if "top" in result and output:
                result = with_copy(result, options.targets, decoding)
                if is_new:
                    mark(output)
            num_failed += "error" in result
            show(result)
            advance()
    if output and not options.json:
        print(f"\nannotated copies lie in {output}")
    return num_failed


def described(path: Path, values: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Entries of a checkpoint and its configuration, with these keys changed; of a bare
    state_dict, as the keys describe it. Raises UserError."""
    told = [key for key in values if key.partition(".")[0] in ("model", "data")]
    if told and not checkpoints.is_ours(path):
        if not {"model", "data"} <= values.keys():
            raise UserError(f"{path}: a state_dict needs both, model=... and data=...")
        return state_dict_input.read(path, values)
    try:
        found = read(path)
    except UserError as error:
        raise UserError(
            f"{error}{'' if checkpoints.is_ours(path) else state_dict_input.advice(path)}"
        ) from error
    if told:
        raise UserError(
            f"{told[0]}={values[told[0]]}: the checkpoint has fixed it. Leave the key out."
        )
    # The dataset that the model was trained on plays no part here, and import-weights names none.
    config = restore.usable(found, values)
    found["fit"] = meaning.fit_of(found, config)
    found["probabilities"] = meaning.probabilities_of(found, config)
    return found, restore.reconfigure({**config, "data": {"_target_": None}}, values)


def classifier(entries: Mapping[str, Any], config: Mapping[str, Any]) -> Callable[[Tensor], Tensor]:
    """Model of the checkpoint as a function from images, (N, C, H, W) uint8 on the CPU, to its
    outputs, (N, K) float64 on the CPU. Raises UserError."""
    if entries["shape"][0] not in MODES:
        raise UserError(f"This model sees {entries['shape'][0]} channels; images have 1 or 3.")
    torch_is_imported()
    device = pick_device(config["device"], config["layers"])
    set_deterministic(config["deterministic"])
    if config["num_threads"]:
        set_num_threads(config["num_threads"], config["layers"])
    model: nn.Module = restore.restore(entries, config)
    preprocess = networks.make_preprocess(config, model, entries["mean"], entries["std"], device)
    context = autocast(config["precision"], device)

    @torch.inference_mode()
    def classify(images: Tensor) -> Tensor:
        with context:
            outputs: Tensor = model(preprocess(images.to(device)))
        return outputs.cpu().double()

    return classify


def say_how(entries: Mapping[str, Any], fit: str | None) -> None:
    """Tell on stderr what is not as one would expect."""
    if fit and fit != entries["fit"]:
        print(
            f"--fit {fit}: the model was trained on images that came to its shape by "
            f"{entries['fit']}, which is what evaluate measures.",
            file=sys.stderr,
        )
    if entries["probabilities"] in meaning.EXPLAINED:
        print(meaning.EXPLAINED[entries["probabilities"]], file=sys.stderr)


def predictions(
    files: Sequence[Path],
    read: Callable[[Path], NDArray[np.uint8]],
    classify: Callable[[Tensor], Tensor],
    name: Callable[[Tensor], dict[str, Any]],
    at_once: int = READ_AT_ONCE,
) -> Iterator[dict[str, Any]]:
    """Result of each file, in order: a dict of `file` and `top`, or of `file` and `error`."""
    for first in range(0, len(files), at_once):
        results: list[dict[str, Any]] = []
        images, of_results = [], []
        for file in files[first : first + at_once]:
            results.append({"file": str(file)})
            try:
                images.append(read(file))
                of_results.append(results[-1])
            except DataError as error:
                results[-1]["error"] = str(error).removeprefix(f"{file}: ")
            except MemoryError:
                results[-1]["error"] = NO_MEMORY
        if images:
            rows = classify(torch.from_numpy(np.stack(images)))
            for result, row in zip(of_results, rows, strict=True):
                result.update(name(row))
        yield from results
        sys.stdout.flush()


def best(row: Tensor, classes: Sequence[str], top_k: int, how: str) -> dict[str, Any]:
    """Most probable classes, (K,) outputs given, from the largest output on; equal ones in the
    order of classes. how: what makes probabilities of them, see `losses.probabilities`."""
    if not row.isfinite().all():
        return {"error": "the model's output for it is not finite."}
    order = row.argsort(descending=True, stable=True)[:top_k].tolist()
    sure = probabilities(row[None], how)[0].tolist()
    return {"top": [{"class": classes[i], "index": i, "probability": sure[i]} for i in order]}

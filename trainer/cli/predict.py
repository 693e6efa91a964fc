"""`trainer predict CHECKPOINT IMAGE_OR_FOLDER ...`: class names and probabilities per picture."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.cli.arguments import MACHINE_KEYS, existing, parse_words
from trainer.errors import UserError
from trainer.inference import state_dict_input
from trainer.inference.image_paths import copies, find, mark
from trainer.inference.prediction_output import NO_MEMORY, progress, show_json, table, with_copy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from data.types import Fit

# At most so many pictures at a time, that a long list shows its first results soon; and at most so
# many pixels, that the activations of a deep net stay under a gigabyte or two.
READ_AT_ONCE, PIXELS_AT_ONCE = 32, 2**20

MAX_PIXELS = 250_000_000  # data.images.fitting has the same, and is imported later


def main(argv: list[str]) -> int:
    args, values = parse(argv)
    existing(args.checkpoint)
    found, others = find(args.pictures)
    files = [one.file for one in found]
    targets = copies(found, args.output) if args.output else {}
    is_new = args.output is not None and not args.output.exists()

    entries, config = described(args.checkpoint, values)
    classify = classifier(entries, config)
    say_how(entries, args.fit)
    how = {"background": background(args.invert), "max_pixels": args.max_pixels,
           "scale": scale_of(entries)}  # fmt: skip
    read = partial(
        read_as_seen,
        shape=tuple(entries["shape"]), resize=entries["resize"],
        fit=args.fit or entries["fit"], invert=args.invert, how=how,
    )  # fmt: skip
    show = show_json if args.json else table(files)
    at_once = max(1, min(READ_AT_ONCE, PIXELS_AT_ONCE // math.prod(entries["shape"][1:])))
    name = partial(best, classes=entries["classes"], top_k=args.top_k, how=entries["probabilities"])
    results = predict(files, read, classify, name, at_once)
    num_failed = 0
    with progress(len(files)) as advance:
        for result in results:
            if "top" in result and args.output:
                result = with_copy(result, targets, how)
                if is_new:
                    mark(args.output)
            num_failed += "error" in result
            show(result)
            advance()
    if args.output and not args.json:
        print(f"\nannotated copies lie in {args.output}")
    if others:
        print(others, file=sys.stderr)
    if num_failed:
        print(f"{num_failed:,} of {len(files):,} pictures failed.", file=sys.stderr)
    return 1 if num_failed else 0


def parse(argv: list[str]) -> tuple[argparse.Namespace, dict[str, str]]:
    parser = argparse.ArgumentParser(
        prog="trainer predict",
        description="The most probable classes of pictures, by the net in a checkpoint.",
        epilog=f"Keys: {', '.join(f'{key}=...' for key in MACHINE_KEYS)}, data.max_pixels=N. "
        "A file of weights alone (a state_dict) needs model=... data=..., with the options that "
        "the net was trained with. "
        "Exit code 1: some of the pictures could not be read; the others were classified.",
    )
    parser.add_argument("checkpoint", type=Path, help="a .pth file of a run or of import-weights")
    parser.add_argument(
        "pictures", nargs="+", metavar="IMAGE_OR_FOLDER",
        help="of a folder, all images at any depth but hidden ones and what a system or this "
        "program left there; quoted, a pattern such as 'sub/**/*.png'",
    )  # fmt: skip
    parser.add_argument("--top-k", type=int, default=5, help="classes per picture (default: 5)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR",
        help="copies of the pictures with their classes below go there; nothing is overwritten",
    )  # fmt: skip
    parser.add_argument(
        "--fit", choices=("crop", "squash"),
        help="of pictures in another size, resize the shorter side and cut out the centre, or "
        "resize both sides (default: as in the training, which the checkpoint says)",
    )  # fmt: skip
    parser.add_argument(
        "--invert", action="store_true",
        help="light becomes dark: for dark digits on paper, where the net knows light ones on "
        "black",
    )  # fmt: skip
    parser.add_argument(
        "--max-pixels", type=int, metavar="N",
        help="pictures of more pixels are not decoded (default: 250 million); also as the key "
        "data.max_pixels=N",
    )  # fmt: skip
    args, values = parse_words(parser, argv, (*MACHINE_KEYS, *state_dict_input.KEYS))
    if args.top_k < 1:
        raise UserError(f"--top-k {args.top_k}: must be at least 1.")
    args.max_pixels = most_pixels(args.max_pixels, values)
    return args, values


def most_pixels(option: int | None, values: dict[str, str]) -> int:
    """By the option or the key, which is taken out of `values`. Raises UserError."""
    key = values.pop("data.max_pixels", None)
    if key is None:
        given, number = f"--max-pixels {option}", MAX_PIXELS if option is None else option
    elif option is None:
        given = f"data.max_pixels={key}"
        number = int(key) if key.isascii() and key.isdecimal() and len(key) < 20 else 0
    else:
        raise UserError(f"--max-pixels {option} and data.max_pixels={key}: give one of the two.")
    if number < 1:
        raise UserError(f"{given}: must be a whole number from 1 on.")
    return number


def described(path: Path, values: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A checkpoint's entries and its configuration, with these keys changed; of a bare state_dict,
    as the keys describe it. Raises UserError."""
    from trainer import checkpoints
    from trainer.builders import restore
    from trainer.checkpoints import entries, meaning
    from trainer.config import stored

    told = [key for key in values if key.partition(".")[0] in ("model", "data")]
    if told and not checkpoints.is_ours(path):
        if not {"model", "data"} <= values.keys():
            raise UserError(f"{path}: a state_dict needs both, model=... and data=...")
        return state_dict_input.read(path, values)
    try:
        found = entries.read(path)
    except UserError as error:
        raise UserError(
            f"{error}{'' if checkpoints.is_ours(path) else state_dict_input.advice(path)}"
        ) from error
    if told:
        raise UserError(
            f"{told[0]}={values[told[0]]}: the checkpoint has fixed it. Leave the key out."
        )
    # The set that the net was trained on plays no part here, and import-weights names none.
    config, notes = stored.on_this_machine(stored.configuration(found, values), values)
    for note in notes:
        print(note, file=sys.stderr)
    found["fit"] = meaning.fit_of(found, config)
    found["probabilities"] = meaning.probabilities_of(found, config)
    return found, restore.reconfigure({**config, "data": {"_target_": None}}, values)


def classifier(entries: Mapping[str, Any], config: Mapping[str, Any]) -> Callable[[Tensor], Tensor]:
    """The checkpoint's net as a function from pictures, (N, C, H, W) uint8 on the CPU, to its
    outputs, (N, K) float64 on the CPU. Raises UserError."""
    import torch

    from data.images.fitting import MODES
    from trainer.builders import restore
    from trainer.system.device import autocast, check_precision, pick_device
    from trainer.system.seeds import set_deterministic
    from trainer.system.threads import set_num_threads

    if entries["shape"][0] not in MODES:
        raise UserError(f"This net sees {entries['shape'][0]} channels; pictures have 1 or 3.")
    device = pick_device(config["device"], config["layers"])
    check_precision(config["precision"], device)
    set_deterministic(config["deterministic"])
    if config["num_threads"]:
        set_num_threads(config["num_threads"], config["layers"])
    model: nn.Module = restore.restore(entries, config)
    preprocess = restore.preprocess(config, model, entries, device)
    context = autocast(config["precision"], device)

    @torch.inference_mode()
    def classify(images: Tensor) -> Tensor:
        with context:
            outputs: Tensor = model(preprocess(images.to(device)))
        return outputs.cpu().double()

    return classify


def say_how(entries: Mapping[str, Any], fit: Fit | None) -> None:
    """What is not as one would take it to be, beside the results."""
    from trainer.checkpoints.meaning import EXPLAINED

    if fit and fit != entries["fit"]:
        print(
            f"--fit {fit}: the model was trained on images that came to its shape by "
            f"{entries['fit']}, which is what evaluate measures.",
            file=sys.stderr,
        )
    if entries["probabilities"] in EXPLAINED:
        print(EXPLAINED[entries["probabilities"]], file=sys.stderr)


def read_as_seen(
    file: Path,
    shape: tuple[int, int, int],
    resize: int,
    fit: Fit,
    invert: bool,
    how: Mapping[str, Any],
) -> NDArray[np.uint8]:
    """(C, H, W) uint8. Raises DataError."""
    from data.images.decode import read_picture

    pixels = read_picture(file, shape, resize, fit, **how)
    return 255 - pixels if invert else pixels


def scale_of(entries: Mapping[str, Any]) -> tuple[float, float] | None:
    """Which numbers of deep grey become 0 and 255, as in the training; None: of older checkpoints,
    and where no image of the training was deep."""
    given = entries.get("pixel_range")
    return (given[0], given[1]) if given else None


def background(invert: bool) -> int:
    """Behind what is transparent: paper, if it has to become the black that digits lie on."""
    return 255 if invert else 0


def predict(
    files: Sequence[Path],
    read: Callable[[Path], NDArray[np.uint8]],
    classify: Callable[[Tensor], Tensor],
    name: Callable[[Tensor], dict[str, Any]],
    at_once: int = READ_AT_ONCE,
) -> Iterator[dict[str, Any]]:
    """For each file, in order, a dict of `file` and `top`, or of `file` and `error`."""
    import numpy as np
    import torch

    from data.types import DataError

    for first in range(0, len(files), at_once):
        results: list[dict[str, Any]] = []
        pictures, of_results = [], []
        for file in files[first : first + at_once]:
            results.append({"file": str(file)})
            try:
                pictures.append(read(file))
                of_results.append(results[-1])
            except DataError as error:
                results[-1]["error"] = str(error).removeprefix(f"{file}: ")
            except MemoryError:
                results[-1]["error"] = NO_MEMORY
        if pictures:
            rows = classify(torch.from_numpy(np.stack(pictures)))
            for result, row in zip(of_results, rows, strict=True):
                result.update(name(row))
        yield from results
        sys.stdout.flush()


def best(row: Tensor, classes: Sequence[str], top_k: int, how: str) -> dict[str, Any]:
    """The most probable classes, (K,) outputs given, from the largest output on; equal ones in the
    order of classes. how: what makes probabilities of them, see `losses.probabilities`."""
    from trainer.losses import probabilities

    if not row.isfinite().all():
        return {"error": "the net's output for it is not finite."}
    order = row.argsort(descending=True, stable=True)[:top_k].tolist()
    sure = probabilities(row[None], how)[0].tolist()
    return {"top": [{"class": classes[i], "index": i, "probability": sure[i]} for i in order]}

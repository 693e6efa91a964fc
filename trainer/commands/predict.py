"""`trainer predict CHECKPOINT IMAGE_OR_FOLDER ...`: class names and probabilities per picture."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.commands.arguments import MACHINE_KEYS, existing, parse_words
from trainer.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

READ_AT_ONCE = 32  # pictures; few enough that a long list shows its first results soon


def main(argv: list[str]) -> int:
    args, values = parse(argv)
    existing(args.checkpoint)
    files = [file for path in args.pictures for file in find(path)]

    from data.pictures import read_picture
    from trainer import checkpoint, runtime

    runtime.leave_compiler_unimported()
    entries = checkpoint.read(args.checkpoint)
    classify = classifier(entries, values)
    read = partial(
        read_picture, shape=tuple(entries["shape"]), resize=entries["resize"], fit=args.fit
    )
    show = show_json if args.json else table(files)
    num_failed = 0
    for result in predict(files, read, classify, entries["classes"], args.top_k):
        num_failed += "error" in result
        show(result)
    if num_failed:
        print(f"{num_failed:,} of {len(files):,} pictures failed.", file=sys.stderr)
    return 1 if num_failed else 0


def parse(argv: list[str]) -> tuple[argparse.Namespace, dict[str, str]]:
    parser = argparse.ArgumentParser(
        prog="trainer predict",
        description="The most probable classes of pictures, by the net in a checkpoint.",
        epilog=f"Keys: {', '.join(f'{key}=...' for key in MACHINE_KEYS)}. Exit code 1: some of "
        "the pictures could not be read; the others were classified.",
    )
    parser.add_argument("checkpoint", type=Path, help="a .pth file of a run or of import-weights")
    parser.add_argument(
        "pictures", type=Path, nargs="+", metavar="IMAGE_OR_FOLDER",
        help="of a folder, all files at any depth but hidden ones",
    )  # fmt: skip
    parser.add_argument("--top-k", type=int, default=5, help="classes per picture (default: 5)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument(
        "--fit", choices=("crop", "squash"), default="crop",
        help="of pictures in another size, resize the shorter side and cut out the centre "
        "(default), or resize both sides",
    )  # fmt: skip
    args, values = parse_words(parser, argv, MACHINE_KEYS)
    if args.top_k < 1:
        raise UserError(f"--top-k {args.top_k}: must be at least 1.")
    return args, values


def find(path: Path) -> list[Path]:
    """A file itself; of a folder, all files at any depth, sorted, without hidden ones.

    Links to folders are followed, each folder once. Raises UserError if there is nothing.
    """
    if not path.is_dir():
        if not os.path.lexists(path):
            raise UserError(f"{path}: there is no such file or folder.")
        return [path]
    found: list[Path] = []
    seen = set()
    for folder, subfolders, names in os.walk(path, onerror=_refuse, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        found += [Path(folder, name) for name in names if not name.startswith(".")]
    if not found:
        raise UserError(f"{path}: there are no files in this folder.")
    return sorted(found)


def _refuse(error: OSError) -> None:
    raise UserError(f"{error.filename}: this folder cannot be read: {error.strerror}.")


def classifier(entries: Mapping[str, Any], values: Mapping[str, str]) -> Callable[[Tensor], Tensor]:
    """The checkpoint's net as a function from pictures, (N, C, H, W) uint8, to probabilities,
    (N, K) float64 on the CPU: a softmax of its outputs. Raises UserError."""
    import torch

    from data.pictures import MODES
    from data.types import Split
    from trainer import restore, runtime

    if entries["shape"][0] not in MODES:
        raise UserError(f"This net sees {entries['shape'][0]} channels; pictures have 1 or 3.")
    # The set that the net was trained on plays no part here, and import-weights names none.
    stored = {**restore.stored_config(entries), "data": {"_target_": None}, "limit_batches": 0}
    config = restore.reconfigure(stored, values)
    device = runtime.pick_device(config["device"], config["layers"])
    runtime.check_precision(config["precision"], device)
    runtime.set_deterministic(config["deterministic"])
    if config["num_threads"]:
        runtime.set_num_threads(config["num_threads"], config["layers"])
    model: nn.Module = restore.restore(entries, config)
    autocast = runtime.autocast(config["precision"], device)

    @torch.inference_mode()
    def classify(images: Tensor) -> Tensor:
        split = Split(images, labels=torch.zeros(len(images), dtype=torch.int64))  # nobody reads
        batches = restore.evaluation(config, model, entries, split, device)
        with autocast:
            outputs = torch.cat([model(x) for x, _ in batches.epoch()])
        return outputs.cpu().double().softmax(dim=1)

    return classify


def predict(
    files: Sequence[Path],
    read: Callable[[Path], np.ndarray],
    classify: Callable[[Tensor], Tensor],
    classes: Sequence[str],
    top_k: int,
) -> Iterator[dict[str, Any]]:
    """For each file, in order, a dict of `file` and `top`, or of `file` and `error`."""
    import numpy as np
    import torch

    from data.types import DataError

    for first in range(0, len(files), READ_AT_ONCE):
        results: list[dict[str, Any]] = []
        pictures, of_results = [], []
        for file in files[first : first + READ_AT_ONCE]:
            results.append({"file": str(file)})
            try:
                pictures.append(read(file))
                of_results.append(results[-1])
            except DataError as error:
                results[-1]["error"] = str(error).removeprefix(f"{file}: ")
        if pictures:
            rows = classify(torch.from_numpy(np.stack(pictures)))
            for result, row in zip(of_results, rows, strict=True):
                result.update(best(row, classes, top_k))
        yield from results
        sys.stdout.flush()


def best(row: Tensor, classes: Sequence[str], top_k: int) -> dict[str, Any]:
    """The most probable classes, (K,) probabilities given; equal ones in the order of classes."""
    if not row.isfinite().all():
        return {"error": "the net's output for it is not finite."}
    order = row.argsort(descending=True, stable=True)[:top_k].tolist()
    return {"top": [{"class": classes[i], "index": i, "probability": row[i].item()} for i in order]}


def show_json(result: Mapping[str, Any]) -> None:
    print(json.dumps(result, allow_nan=False))


def table(files: Sequence[Path]) -> Callable[[Mapping[str, Any]], None]:
    """Shows results as rows under a heading: the file beside its first class, further classes
    below. What failed goes to stderr."""
    width = max(len(printable(file)) for file in files)
    print(f"{'file':<{width}}  probability  class")

    def show(result: Mapping[str, Any]) -> None:
        name = printable(result["file"])
        if "error" in result:
            sys.stdout.flush()  # the rows before it first
            print(f"{name}: {result['error']}", file=sys.stderr)
        for row in result.get("top", ()):
            print(f"{name:<{width}}  {row['probability']:>11.4f}  {row['class']}")
            name = ""

    return show


def printable(name: str | Path) -> str:
    """A file's name as it may reach a terminal: no line breaks, no control sequences."""
    return "".join(c if c.isprintable() else "?" for c in str(name))

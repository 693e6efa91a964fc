"""`trainer evaluate CHECKPOINT [key=value ...]`: metrics of a model, in all and class by class.

What imports torch, which takes seconds, is imported once the words are known to be right.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path

from trainer.cli.arguments import MACHINE_KEYS, parse_words
from trainer.errors import UserError
from trainer.runs.folder import run_of

KEYS = (*MACHINE_KEYS, "split", "limit_batches", "data", "data.", "loss", "loss.")
SPLITS = ("test", "val", "train")
LONGEST_NAME = 120  # characters of a folder's


def main(argv: list[str]) -> int:
    args, values = parse(argv)
    split = values.pop("split", "test")
    if split not in SPLITS:
        raise UserError(f"split={split}: must be one of {', '.join(SPLITS)}.")
    folder = args.output or default_folder(args.checkpoint, split, values, args.flip)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: this is no folder; -o DIR names another.")

    from trainer.inference.evaluate import evaluate

    evaluate(args.checkpoint, split, values, args.flip, folder)
    return 0


def parse(argv: list[str]) -> tuple[argparse.Namespace, dict[str, str]]:
    parser = argparse.ArgumentParser(
        prog="trainer evaluate",
        description="Loss, accuracy and calibration of a checkpoint, precision, recall and F1 per "
        "class, the confusion matrix and the most confident mistakes: on "
        "the terminal, as evaluation.json and as images.",
        epilog="Keys: split=test (or val, train), data=<another dataset>, data.root=..., "
        "device=..., precision=..., loss=..., limit_batches=... Images of another dataset are "
        "brought to the shape that the model was trained on, and normalised as then.",
    )
    parser.add_argument("checkpoint", type=Path, help="a run's folder, or a .pth file")
    parser.add_argument(
        "folder", nargs="?", metavar="IMAGE_FOLDER",
        help="a folder with one folder of images per class, as data=image_folder data.root=FOLDER "
        "takes it; of one that has no test split and was not trained on, all images are evaluated",
    )  # fmt: skip
    parser.add_argument(
        "--flip", action="store_true",
        help="the mean of the outputs of each image and its mirror image, for datasets with "
        "data.hflip=true",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR",
        help="where the results go (default: evaluation/<split>/ in the run's folder, or "
        "<name>_evaluation/<split>/ beside a checkpoint that lies in none; keys of the data, the "
        "loss and the limit become part of the name)",
    )  # fmt: skip
    args, values = parse_words(parser, argv, KEYS)
    return args, with_folder(args.folder, values)


def with_folder(folder: str | None, values: Mapping[str, str]) -> dict[str, str]:
    """Keys that were given, and those that a folder stands for. Raises UserError if it is none or
    if both were given."""
    if folder is None:
        return dict(values)
    if not Path(folder).is_dir():
        raise UserError(
            f"{folder}: there is no such folder. evaluate CHECKPOINT IMAGE_FOLDER takes one with a "
            "folder of images per class."
        )
    for key in ("data", "data.root"):
        if key in values:
            raise UserError(
                f"{key}={values[key]}: the folder {folder} says already what is evaluated. Leave "
                "one of the two out."
            )
    return {**values, "data": "image_folder", "data.root": str(Path(folder).absolute())}


def default_folder(checkpoint: Path, split: str, values: Mapping[str, str], flip: bool) -> Path:
    """A folder for each checkpoint, split and what else was asked for, so that no results replace
    those of others."""
    given = [f"{k}={v}" for k, v in values.items() if k not in (*MACHINE_KEYS, "data")]
    words = [*([values["data"]] if "data" in values else []), split, *(["flip"] if flip else [])]
    name = re.sub(r"[^A-Za-z0-9_.=-]+", "-", "_".join([*words, *given]))[:LONGEST_NAME]
    if run_of(checkpoint) is None:
        return checkpoint.parent / f"{checkpoint.stem}_evaluation" / name
    of_best = checkpoint.stem == "best"
    above = checkpoint.parent.parent if checkpoint.parent.name else Path("..")
    return above / "evaluation" / (name if of_best else f"{checkpoint.stem}_{name}")

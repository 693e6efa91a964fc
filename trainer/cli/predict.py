"""`trainer predict CHECKPOINT IMAGE_OR_FOLDER ...`: class names and probabilities per image.

What imports torch, which takes seconds, is imported once the words are known to be right.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from trainer.cli.arguments import MACHINE_KEYS, parse_words
from trainer.errors import UserError
from trainer.inference.image_paths import copies, find
from trainer.text.values import count

DESCRIBING = ("model", "model.", "data", "data.")  # for a file of weights alone
MAX_PIXELS = 250_000_000  # data.images.fitting has the same, and is imported later


def main(argv: list[str]) -> int:
    args, values = parse(argv)
    found, others = find(args.images)
    files = [one.file for one in found]
    targets = copies(found, args.output) if args.output else {}

    from trainer.inference.predict import Options, predict

    options = Options(
        args.top_k, args.fit, args.invert, args.max_pixels, args.json, args.output, targets
    )
    num_failed = predict(args.checkpoint, files, values, options)
    if others:
        print(others, file=sys.stderr)
    if num_failed:
        print(f"{num_failed:,} of {count(len(files), 'image')} failed.", file=sys.stderr)
    return 1 if num_failed else 0


def parse(argv: list[str]) -> tuple[argparse.Namespace, dict[str, str]]:
    parser = argparse.ArgumentParser(
        prog="trainer predict",
        description="The most probable classes of images, by the model in a checkpoint.",
        epilog=f"Keys: {', '.join(f'{key}=...' for key in MACHINE_KEYS)}, data.max_pixels=N. "
        "A file of weights alone (a state_dict) needs model=... data=..., with the options that "
        "the model was trained with. "
        "Exit code 1: some of the images could not be read; the others were classified.",
    )
    parser.add_argument("checkpoint", type=Path, help="a run's folder, or a .pth file")
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE_OR_FOLDER",
        help="of a folder, all images at any depth but hidden ones and what a system or this "
        "program left there; quoted, a pattern such as 'sub/**/*.png'",
    )  # fmt: skip
    parser.add_argument("--top-k", type=int, default=5, help="classes per image (default: 5)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR",
        help="copies of the images with their classes below go there; nothing is overwritten",
    )  # fmt: skip
    parser.add_argument(
        "--fit", choices=("crop", "squash"),
        help="of images in another size, resize the shorter side and cut out the centre, or "
        "resize both sides (default: as in the training, which the checkpoint says)",
    )  # fmt: skip
    parser.add_argument(
        "--invert", action="store_true",
        help="light becomes dark: for dark digits on paper, where the model knows light ones "
        "on black",
    )  # fmt: skip
    parser.add_argument(
        "--max-pixels", type=int, metavar="N",
        help="images of more pixels are not decoded (default: 250 million); also as the key "
        "data.max_pixels=N",
    )  # fmt: skip
    args, values = parse_words(parser, argv, (*MACHINE_KEYS, *DESCRIBING))
    if args.top_k < 1:
        raise UserError(f"--top-k {args.top_k}: must be at least 1.")
    args.max_pixels = most_pixels(args.max_pixels, values)
    return args, values


def most_pixels(option: int | None, values: dict[str, str]) -> int:
    """Limit by the option or the key, which is taken out of `values`. Raises UserError."""
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

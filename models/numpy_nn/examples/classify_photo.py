"""The top classes of a photograph by VGG19 with NumPy alone, from MatConvNet's published weights.

    python -m models.numpy_nn.examples.classify_photo imagenet-vgg-verydeep-19.mat cat.jpg

SciPy reads the file and Pillow the photograph; torch need not be installed. What it prints equals
`trainer predict` on the checkpoint that `trainer import-weights` makes of the same file.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from models.numpy_nn import functional as F
from models.numpy_nn.functional.shapes import Array
from models.numpy_nn.vgg19 import Params, run, vgg19, weight_shapes
from models.weights.foreign import ForeignWeights, WeightsError
from models.weights.matconvnet import read_mat

SIDE = 224  # pixels of an image as VGG19 sees it


def load(path: Path) -> tuple[Params, ForeignWeights[np.ndarray]]:
    """The parameters of a MatConvNet file in the order of the layers, and all that it tells."""
    shapes: dict[str, tuple[int, ...]] = {}
    for i, shape in enumerate(weight_shapes()):
        shapes |= {f"{i}.weight": shape, f"{i}.bias": shape[:1]}
    foreign = read_mat(path, shapes)
    arrays = list(foreign.state_dict.values())
    return list(zip(arrays[::2], arrays[1::2], strict=True)), foreign


def photograph(path: Path) -> Image.Image:
    """RGB, upright as EXIF has it."""
    with Image.open(path) as file:
        return ImageOps.exif_transpose(file).convert("RGB")


def centre(picture: Image.Image, resize: int) -> Array:
    """(1, 3, SIDE, SIDE) float32, 0..255: the shorter side brought to `resize`, the centre cut out,
    unless the image has that size."""
    if picture.size != (SIDE, SIDE):
        width, height = (resize * side // min(picture.size) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
        left, top = round((width - SIDE) / 2), round((height - SIDE) / 2)
        picture = picture.crop((left, top, left + SIDE, top + SIDE))
    return np.asarray(picture, np.float32).transpose(2, 0, 1)[None]


def normalise(x: Array, foreign: ForeignWeights[np.ndarray]) -> Array:
    mean, std = (np.array(values, np.float32) for values in (foreign.mean, foreign.std))
    return (x / np.float32(255) - mean[:, None, None]) / std[:, None, None]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="VGG19 on a photograph with NumPy alone.")
    parser.add_argument("weights", type=Path, help="imagenet-vgg-verydeep-19.mat of MatConvNet")
    parser.add_argument("photo", type=Path)
    parser.add_argument("--top-k", type=int, default=5)
    args = parser.parse_args(argv)
    if args.top_k < 1:
        parser.error("--top-k: must be at least 1")
    try:
        picture = photograph(args.photo)
        params, foreign = load(args.weights)
    except (OSError, WeightsError) as error:
        print(error, file=sys.stderr)
        return 2
    x = normalise(centre(picture, foreign.resize or SIDE), foreign)
    logits = run(vgg19(params), x)
    probabilities = F.softmax_forward(logits)[0][0]
    for i in np.argsort(-probabilities, kind="stable")[: args.top_k]:
        print(f"{probabilities[i]:.6f}  {foreign.classes[i] if foreign.classes else i}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

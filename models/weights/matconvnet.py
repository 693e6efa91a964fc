"""MatConvNet's SimpleNN networks (imagenet-vgg-verydeep-19.mat and siblings) in PyTorch's terms.

Vedaldi, Lenc: "MatConvNet: Convolutional Neural Networks for MATLAB", 2015. Its convolution is, as
PyTorch's, a correlation (section 4.1); its kernels are H x W x in x out; a fully connected layer is
a convolution whose kernel covers the whole map; an average image in 0..255 RGB is subtracted and
nothing divided.

All of it runs without torch: models/numpy_nn/examples/classify_photo.py has none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import numpy as np

from models.weights.foreign import (
    ForeignWeights,
    Mismatch,
    Shape,
    WeightsError,
    printable,
    refuse_nonfinite,
)
from models.weights.formats import kind_of
from models.weights.matfile import check_mat
from models.weights.sandbox import parsed

MAT_SLACK = 64 << 20  # average image, class names, fields nobody reads; bytes

# Types without weights that leave the architecture what its convolutions say.
PLAIN_TYPES = {"relu", "pool", "dropout", "softmax", "softmaxloss", "loss"}
LRN_TYPES = {"normalize", "lrn"}


@dataclass(frozen=True)
class Target:
    """One layer of the network that is to be filled.

    Attributes:
        weight, bias: names in its state_dict.
        shape: (out, in, H, W) of a convolution, (out, in) of a linear layer.
        kernel: the H x W x in x out that MatConvNet's kernel must have.
    """

    weight: str
    bias: str
    shape: Shape
    kernel: Shape


def read_mat(path: Path, target_shapes: Mapping[str, Shape]) -> ForeignWeights[np.ndarray]:
    """Read a MatConvNet file in a child process with limits, and match it with a network.

    Raises:
        WeightsError: the file is damaged, hostile, of another format, or does not fit.
    """
    if kind_of(path) != "mat":
        raise WeightsError(f"{path}: not a MATLAB file; expected a .mat of MatConvNet")
    # In doubles, and as much again for what a training leaves in the file (momentum).
    at_most = 16 * sum(math.prod(shape) for shape in target_shapes.values()) + MAT_SLACK
    num_bytes = check_mat(path, at_most)
    with parsed(path, "mat", num_bytes) as (report, array):
        try:
            foreign = convert(report, array, target_shapes)
        except ValueError as error:
            raise WeightsError(f"{path}: {printable(str(error), 2000)}") from error
    refuse_nonfinite(path, foreign.state_dict)
    return foreign


def convert(
    report: Mapping[str, Any],
    array: Callable[[int], np.ndarray],
    target_shapes: Mapping[str, Shape],
) -> ForeignWeights[np.ndarray]:
    """Match a file's layers with a network's, in order, and turn their kernels.

    Args:
        report: what the child process says of the file.
        array: gives the arrays that the report names by number.

    Raises:
        ValueError: a layer missing, too many or of another shape, or senseless preprocessing.
    """
    targets = _targets(target_shapes)
    layers = _weighted(report["layers"])
    kernels = [array(layer["arrays"][0]) for layer in layers]
    biases = [array(layer["arrays"][1]) for layer in layers]
    _check_layers([layer["name"] for layer in layers], kernels, biases, targets)
    state: dict[str, np.ndarray] = {}
    for kernel, bias, target in zip(kernels, biases, targets, strict=True):
        state[target.weight] = _float32(turned(_four(kernel), linear=len(target.shape) == 2))
        state[target.bias] = _float32(bias.reshape(-1))
    notes = _notes(report["layers"])
    mean = _mean(report, array, channels=targets[0].kernel[2], notes=notes)
    shape, resize = _input_size(report, targets[0].kernel[2], notes)
    return ForeignWeights(
        state_dict={name: state[name] for name in target_shapes},
        classes=_classes(report["classes"], num_outputs=targets[-1].shape[0]),
        mean=mean,
        std=(1 / 255,) * len(mean),
        resize=resize,
        shape=shape,
        notes=notes,
    )


def turned(kernel: np.ndarray, *, linear: bool) -> np.ndarray:
    """H x W x in x out to (out, in, H, W), for a linear layer flattened to (out, in * H * W).

    PyTorch flattens a map in the order C, H, W, hence the same transposition before flattening.
    """
    kernel = kernel.transpose(3, 2, 0, 1)
    return kernel.reshape(len(kernel), -1) if linear else kernel


def _targets(shapes: Mapping[str, Shape]) -> list[Target]:
    """The network's layers, in order; a linear one reads a square map of the channels before it."""
    targets: list[Target] = []
    left = dict(shapes)
    for weight in shapes:
        bias = weight.removesuffix("weight") + "bias"
        if weight.endswith(".weight") and len(shapes[weight]) in (2, 4) and bias in shapes:
            before = targets[-1].shape[0] if targets else None
            targets.append(Target(weight, bias, shapes[weight], _kernel(shapes[weight], before)))
            del left[weight], left[bias]
    if left or not targets:
        unfilled = Mismatch(list(left), [], []).describe() or "it has no layers"
        raise ValueError(f"MatConvNet files fill convolutions and linear layers only; {unfilled}")
    return targets


def _kernel(shape: Shape, channels_before: int | None) -> Shape:
    if len(shape) == 4:
        num_out, num_in, height, width = shape
        return (height, width, num_in, num_out)
    num_out, num_in = shape
    channels = channels_before or num_in
    side = math.isqrt(num_in // channels)
    if side * side * channels != num_in:  # not a square map: only a plain vector is left
        side, channels = 1, num_in
    return (side, side, channels, num_out)


def _weighted(layers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = [layer for layer in layers if layer["arrays"]]
    for layer in found:
        if layer["type"] != "conv":
            raise ValueError(
                f"layer {layer['name']} is of type {layer['type']!r}; of the layers with weights "
                "only 'conv' can be taken over"
            )
        if len(layer["arrays"]) != 2:
            raise ValueError(f"layer {layer['name']} lacks its kernel or its biases")
    empty = [x["name"] for x in layers if x["type"] == "conv" and not x["arrays"]]
    if empty:
        raise ValueError(f"layers without weights: {', '.join(empty[:10])}")
    return found


def _check_layers(
    names: list[str], kernels: list[np.ndarray], biases: list[np.ndarray], targets: list[Target]
) -> None:
    have = [_four(kernel).shape for kernel in kernels]
    mismatch = _align(names, have, targets)
    if mismatch:
        hint = _outputs_hint(have, targets, mismatch)
        raise ValueError(
            f"its {len(names)} layers with weights are not the network's {len(targets)}{hint}\n"
            f"{mismatch.describe()}"
        )
    for name, bias, target in zip(names, biases, targets, strict=True):
        if bias.size != target.shape[0]:
            raise ValueError(f"{name} has {bias.size} biases for {target.shape[0]} outputs")


def _align(names: list[str], have: list[Shape], targets: list[Target]) -> Mismatch:
    """Shapes as MatConvNet has them; among equal ones it cannot be told which one is missing."""
    missing: list[str] = []
    unexpected: list[str] = []
    misshapen: list[tuple[str, Shape, Shape]] = []
    want = [target.kernel for target in targets]
    blocks = [("replace", 0, len(have), 0, len(want))]
    if len(have) != len(want):
        blocks = SequenceMatcher(None, have, want, autojunk=False).get_opcodes()  # type: ignore[assignment]
    for _, i, i_end, j, j_end in blocks:
        paired = min(i_end - i, j_end - j)
        for name, shape, target in zip(names[i:i_end], have[i:], targets[j:j_end], strict=False):
            if shape != target.kernel:
                misshapen.append((f"{name} for {target.weight}", shape, target.kernel))
        unexpected += names[i + paired : i_end]
        missing += [target.weight for target in targets[j + paired : j_end]]
    return Mismatch(missing, unexpected, misshapen)


def _outputs_hint(have: list[Shape], targets: list[Target], mismatch: Mismatch) -> str:
    only_last = len(have) == len(targets) and len(mismatch.misshapen) == 1
    if only_last and have[-1][:3] == targets[-1].kernel[:3] and have[-1] != targets[-1].kernel:
        return f"; only the number of classes differs: data.num_classes={have[-1][3]}"
    return ""


def _four(kernel: np.ndarray) -> np.ndarray:
    """MATLAB drops dimensions of size 1 at the end."""
    return kernel.reshape(kernel.shape + (1,) * (4 - kernel.ndim))


def _float32(array: np.ndarray) -> np.ndarray:
    """A copy, since the mapped file will be gone."""
    with np.errstate(over="ignore"):  # becomes infinite, which is refused by name
        return np.array(array, dtype=np.float32, order="C")


def _notes(layers: list[dict[str, Any]]) -> list[str]:
    types = [layer["type"] for layer in layers]
    notes = []
    if num_lrn := sum(kind in LRN_TYPES for kind in types):
        notes.append(
            f"the file's network normalises local responses in {num_lrn} places: without that "
            "(model.lrn) its outputs are others"
        )
    unknown = sorted(set(types) - PLAIN_TYPES - LRN_TYPES - {"conv"})
    if unknown:
        notes.append(f"left out layers of type {', '.join(unknown[:10])}")
    return notes


def _classes(names: list[str] | None, num_outputs: int) -> list[str] | None:
    if names is not None and len(names) != num_outputs:
        raise ValueError(f"it names {len(names)} classes for {num_outputs} outputs")
    return names


def _mean(
    report: Mapping[str, Any], array: Callable[[int], np.ndarray], channels: int, notes: list[str]
) -> tuple[float, ...]:
    """Per channel, in units of pixel / 255."""
    if report["average"] is None:
        raise ValueError("it has no averageImage, in meta.normalization or in normalization")
    average = np.asarray(array(report["average"]), dtype=np.float64)
    size = " x ".join(map(str, average.shape))
    if average.size == channels:
        average = average.reshape(1, 1, channels)
    elif average.ndim == 2:  # one channel
        average = average[:, :, None]
    if average.ndim != 3 or average.shape[2] != channels:
        raise ValueError(f"averageImage is {size}; expected H x W x {channels}, or one pixel")
    if not ((average >= 0) & (average <= 255)).all():  # NaN is neither
        raise ValueError("averageImage has values outside 0..255")
    mean = average.mean(axis=(0, 1))
    if average.size > channels:
        notes.append(f"the average image ({size}) became one mean per channel")
    return tuple(float(value) / 255 for value in mean)


def _input_size(
    report: Mapping[str, Any], channels: int, notes: list[str]
) -> tuple[tuple[int, int, int] | None, int | None]:
    """(C, H, W) of the crop, and the shorter side before it, as MatConvNet's examples use them:
    cropSize is the crop's part of the side, border the pixels around it."""
    size = (report["image_size"] or [])[:2]
    if len(size) < 2 or not all(1 <= side <= 4096 and side.is_integer() for side in size):
        notes.append("the file does not tell its input size")
        return None, None
    height, width = map(int, size)
    side = min(height, width)
    crop, border = report["crop_size"], report["border"]
    if crop and 0.05 <= crop[0] <= 1:
        resize = round(side / crop[0])
    elif border and 0 <= border[0] <= 4096:
        resize = side + int(border[0])
    else:
        resize = round(side * 256 / 224)
        notes.append(f"the file does not tell its border: resizing to {resize} before the crop")
    if report["keep_aspect"] == [0.0]:
        notes.append("its training squashed images to a square (predict: --fit squash)")
    return (channels, height, width), resize

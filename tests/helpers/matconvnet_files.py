"""Files in exactly MatConvNet's layouts, and what MatConvNet computes from them, in NumPy.

The layouts, as MatConvNet's own code writes and reads them:
- `layers`, a 1 x N cell of structs with `type`, `name`. Convolutions hold `weights`, a 1 x 2 cell
  of kernel (H x W x in x out, single) and biases; in files before 1.0-beta9 the fields `filters`
  and `biases` in its place. Fully connected layers are convolutions.
- `meta.normalization` and `meta.classes`; in files before 1.0-beta17 `normalization` and `classes`
  beside `layers`.
MATLAB keeps arrays in column-major order and drops dimensions of size 1 at the end.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import savemat

Layer = dict[str, Any]
AVERAGE = np.array([123.68, 116.779, 103.939], dtype=np.float32)  # VGG's, RGB
ONE_PIXEL = AVERAGE.reshape(1, 1, 3)


def conv(
    rng: np.random.Generator, name: str, size: int, num_in: int, num_out: int, pad: int = 0
) -> Layer:
    """A convolution with Kaiming-scaled random weights, float32."""
    scale = np.sqrt(2 / (size * size * num_in)).astype(np.float32)
    kernel = rng.standard_normal((size, size, num_in, num_out), dtype=np.float32) * scale
    bias = rng.standard_normal(num_out, dtype=np.float32)
    return {"type": "conv", "name": name, "kernel": kernel, "bias": bias, "pad": pad}


def vgg(
    rng: np.random.Generator,
    blocks: list[list[int]],
    hidden: list[int],
    num_classes: int,
    side: int = 7,
    channels: int = 3,
) -> list[Layer]:
    """Layers of a VGG: blocks of 3 x 3 convolutions, each with a pool, then full layers.

    Args:
        blocks: output channels of each convolution of each block.
        side: of the map that the first full layer covers.
    """
    layers: list[Layer] = []
    for i, widths in enumerate(blocks, 1):
        for j, width in enumerate(widths, 1):
            layers.append(conv(rng, f"conv{i}_{j}", 3, channels, width, pad=1))
            layers.append({"type": "relu", "name": f"relu{i}_{j}"})
            channels = width
        layers.append({"type": "pool", "name": f"pool{i}"})
    for i, width in enumerate([*hidden, num_classes], len(blocks) + 1):
        layers.append(conv(rng, f"fc{i}", side, channels, width))
        layers.append({"type": "relu", "name": f"relu{i}"})
        channels, side = width, 1
    layers[-1] = {"type": "softmax", "name": "prob"}
    return layers


def target_shapes(layers: list[Layer]) -> dict[str, tuple[int, ...]]:
    """torchvision's names and shapes for such a network."""
    shapes: dict[str, tuple[int, ...]] = {}
    classifier = 0
    for features, layer in enumerate(layers):
        if layer["name"].startswith("fc"):
            size, _, num_in, num_out = layer["kernel"].shape
            shapes[f"classifier.{classifier}.weight"] = (num_out, num_in * size * size)
            shapes[f"classifier.{classifier}.bias"] = (num_out,)
            classifier += 3  # linear, relu, dropout
        elif layer["type"] == "conv":
            height, width, num_in, num_out = layer["kernel"].shape
            shapes[f"features.{features}.weight"] = (num_out, num_in, height, width)
            shapes[f"features.{features}.bias"] = (num_out,)
    return shapes


def save(
    path: Path,
    layers: list[Layer],
    *,
    fields: str = "weights",
    meta: bool = True,
    average: np.ndarray | None = ONE_PIXEL,
    names: list[str] | None = None,
    descriptions: list[str] | None = None,
    normalization: dict[str, Any] | None = None,
    compress: bool = True,
    extra: dict[str, Any] | None = None,
) -> Path:
    """Write a .mat file.

    Args:
        fields: "weights" or "filters", the new and the old names of a layer's arrays.
        meta: whether the rest stands in `meta` (new) or beside `layers` (old).
        average: averageImage, H x W x 3 or 1 x 1 x 3, 0..255; None leaves it out.
        names, descriptions: of the classes.
        normalization: in place of 224 x 224 with a border of 32.
        extra: further variables.
    """
    cell = np.empty((1, len(layers)), dtype=object)
    for i, layer in enumerate(layers):
        cell[0, i] = _struct(layer, fields)
    norm = {"imageSize": np.array([[224.0, 224.0, 3.0]]), "border": np.array([[32.0, 32.0]])}
    norm = norm | {"keepAspect": np.array([[1.0]]), "interpolation": "bilinear"}
    norm = norm if normalization is None else dict(normalization)
    if average is not None:
        norm["averageImage"] = average
    classes = {"name": names, "description": descriptions}
    rest: dict[str, Any] = {"normalization": norm}
    rest["classes"] = {key: _cellstr(value) for key, value in classes.items() if value is not None}
    content: dict[str, Any] = {"layers": cell, **({"meta": rest} if meta else rest)}
    savemat(path, content | (extra or {}), do_compression=compress, oned_as="row")
    return path


def forward(layers: list[Layer], image: np.ndarray, average: np.ndarray) -> np.ndarray:
    """What vl_simplenn computes before the softmax, from the file's own arrays.

    Args:
        image: (H, W, 3) in 0..255, RGB.

    Returns:
        (num_classes,) float32.
    """
    x = image.astype(np.float32) - average
    for layer in layers:
        if layer["type"] == "conv":
            x = _correlate(x, layer["kernel"], layer["pad"]) + layer["bias"]
        elif layer["type"] == "relu":
            x = np.maximum(x, 0)
        elif layer["type"] == "pool":
            height, width, channels = x.shape
            x = x.reshape(height // 2, 2, width // 2, 2, channels).max(axis=(1, 3))
    return x.reshape(-1)


def _correlate(x: np.ndarray, kernel: np.ndarray, pad: int) -> np.ndarray:
    """y[i, j, k] = sum over u, v, c of kernel[u, v, c, k] x[i + u, j + v, c]."""
    x = np.pad(x, ((pad, pad), (pad, pad), (0, 0)))
    size_u, size_v, _, num_out = kernel.shape
    height, width = x.shape[0] - size_u + 1, x.shape[1] - size_v + 1
    y = np.zeros((height, width, num_out), dtype=np.float32)
    for u in range(size_u):
        for v in range(size_v):
            y += x[u : u + height, v : v + width] @ kernel[u, v]
    return y


def _struct(layer: Layer, fields: str) -> dict[str, Any]:
    """A layer as MatConvNet has it. The order of the fields differs too: nobody may count them."""
    if layer["type"] == "pool":
        return {"type": "pool", "name": layer["name"], "method": "max", "pool": [2.0, 2.0]} | {
            "stride": [2.0, 2.0],
            "pad": [0.0, 0.0, 0.0, 0.0],
        }
    if "kernel" not in layer:
        return {key: layer[key] for key in layer}
    kernel, bias = _as_matlab(layer["kernel"]), layer["bias"].reshape(1, -1)
    geometry = {"pad": [float(layer["pad"])] * 4, "stride": [1.0, 1.0]}
    if fields == "filters":
        return {"filters": kernel, "biases": bias, **geometry} | {
            "type": layer["type"],
            "name": layer["name"],
        }
    weights = np.empty((1, 2), dtype=object)
    weights[0, 0], weights[0, 1] = kernel, bias.reshape(-1, 1)
    head = {"name": layer["name"], "type": layer["type"], "weights": weights}
    return {**head, "size": np.array([layer["kernel"].shape], dtype=float), **geometry}


def _as_matlab(array: np.ndarray) -> np.ndarray:
    while array.ndim > 2 and array.shape[-1] == 1:
        array = array[..., 0]
    return array


def _cellstr(names: list[str]) -> np.ndarray:
    cell = np.empty((1, len(names)), dtype=object)
    cell[0, :] = names
    return cell

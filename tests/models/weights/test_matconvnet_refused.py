"""MatConvNet files that do not fit the network or cannot be taken over, each told by name."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from models.weights.foreign import WeightsError
from models.weights.reader import read
from tests.helpers import matconvnet_files as mcn
from tests.helpers.weights_process import stay_in_process

NAMES = ["tench", "goldfish", "gull", "whale"]


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    stay_in_process(monkeypatch)


@pytest.fixture
def layers() -> list[mcn.Layer]:
    rng = np.random.default_rng(0)
    return mcn.vgg(rng, blocks=[[4, 4], [6]], hidden=[8], num_classes=5)


def refusal(path: Path, shapes: dict[str, tuple[int, ...]]) -> str:
    with pytest.raises(WeightsError) as caught:
        read(path, shapes)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    return message


def test_missing_and_extra_layers_are_named(tmp_path: Path, layers: list[mcn.Layer]) -> None:
    shapes = mcn.target_shapes(layers)
    convs = [i for i, layer in enumerate(layers) if "kernel" in layer]
    short = [layer for i, layer in enumerate(layers) if i != convs[2]]
    message = refusal(mcn.save(tmp_path / "short.mat", short), shapes)
    assert "its 4 layers with weights are not the network's 5" in message
    assert "missing: 1: features.5.weight" in message
    extra = mcn.conv(np.random.default_rng(0), "conv2_2", 3, 6, 6, pad=1)
    message = refusal(mcn.save(tmp_path / "long.mat", [*layers[:7], extra, *layers[7:]]), shapes)
    assert "unexpected: 1: conv2_2" in message


def test_every_shape_is_checked(tmp_path: Path, layers: list[mcn.Layer]) -> None:
    shapes = mcn.target_shapes(layers)
    first_full = layers[8]
    assert first_full["name"] == "fc3"
    # As many numbers, so that only the order of the axes gives it away.
    first_full["kernel"] = np.ascontiguousarray(first_full["kernel"].transpose(2, 0, 1, 3))
    message = refusal(mcn.save(tmp_path / "a.mat", layers), shapes)
    assert "fc3 for classifier.0.weight (6, 7, 7, 8) -> (7, 7, 6, 8)" in message
    first_full["kernel"] = np.ascontiguousarray(first_full["kernel"].transpose(1, 2, 0, 3))
    layers[0]["bias"] = layers[0]["bias"][:3]
    assert "conv1_1 has 3 biases for 4 outputs" in refusal(
        mcn.save(tmp_path / "b.mat", layers), shapes
    )


def test_other_number_of_classes_says_so(tmp_path: Path, layers: list[mcn.Layer]) -> None:
    shapes = mcn.target_shapes(layers) | {"classifier.3.weight": (7, 8), "classifier.3.bias": (7,)}
    assert "data.num_classes=5" in refusal(mcn.save(tmp_path / "net.mat", layers), shapes)


def test_network_with_batch_norm_cannot_be_filled(tmp_path: Path, layers: list[mcn.Layer]) -> None:
    shapes = mcn.target_shapes(layers) | {"features.1.running_mean": (4,)}
    assert "missing: 1: features.1.running_mean" in refusal(
        mcn.save(tmp_path / "net.mat", layers), shapes
    )


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"kernel": np.full((3, 3, 3, 4), np.nan, np.float32)}, "features.0.weight"),
        ({"kernel": np.full((3, 3, 3, 4), 1e300)}, "too large for float32"),
        ({"kernel": np.ones((3, 3, 3, 4), np.int8)}, "conv1_1: its numbers are int8"),
        ({"kernel": np.ones((3, 3, 3, 4), np.complex64)}, "ComplexWarning"),
        ({"kernel": np.ones((3, 0), np.float32)}, "lacks its kernel or its biases"),
        ({"type": "convt"}, "conv1_1 is of type 'convt'"),
        ({"type": ""}, "conv1_1 has no `type`"),
    ],
)
def test_refused_layers(
    tmp_path: Path, layers: list[mcn.Layer], change: dict, expected: str
) -> None:
    shapes = mcn.target_shapes(layers)
    layers[0].update(change)
    assert expected in refusal(mcn.save(tmp_path / "net.mat", layers), shapes)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"average": None}, "it has no averageImage"),
        ({"average": np.float32([0.0, 0.0])}, "averageImage is 1 x 2"),
        ({"average": np.full((1, 1, 3), 300.0)}, "outside 0..255"),
        ({"average": np.full((1, 1, 3), np.nan)}, "outside 0..255"),
        ({"names": NAMES}, "4 classes for 5 outputs"),
        ({"extra": {"params": 1.0}}, "a DagNN network"),
    ],
)
def test_refused_files(
    tmp_path: Path, layers: list[mcn.Layer], options: dict, expected: str
) -> None:
    path = mcn.save(tmp_path / "net.mat", layers, **options)
    assert expected in refusal(path, mcn.target_shapes(layers))


def test_control_characters_never_reach_the_terminal(
    tmp_path: Path, layers: list[mcn.Layer]
) -> None:
    layers[0].update(name="\x1b[2Jconv", type="evil\x07")
    message = refusal(mcn.save(tmp_path / "net.mat", layers), mcn.target_shapes(layers))
    assert re.search(r"layer \\x1b\[2Jconv is of type 'evil\\x07'", message)

"""MatConvNet files: layouts, order of axes, preprocessing, and what does not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from models.weights.foreign import ForeignWeights
from models.weights.reader import read
from tests.helpers import matconvnet_files as mcn
from tests.helpers.weights_process import stay_in_process

NUM_CLASSES = 5
CLASSES = [f"n{i:08d}" for i in range(NUM_CLASSES)]
DESCRIPTIONS = ["tench, Tinca tinca", "goldfish", "große Möwe", "鯨", "crane"]


@pytest.fixture
def layers() -> list[mcn.Layer]:
    rng = np.random.default_rng(0)
    return mcn.vgg(rng, blocks=[[4, 4], [6]], hidden=[8], num_classes=NUM_CLASSES)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    stay_in_process(monkeypatch)


def small_vgg() -> nn.Sequential:
    """The network of the fixture for 28 px, in torchvision's order and names."""
    features = nn.Sequential(
        *(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()),
        *(nn.MaxPool2d(2), nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
    )
    classifier = nn.Sequential(
        *(nn.Linear(6 * 49, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, NUM_CLASSES))
    )
    net = nn.Sequential()
    net.add_module("features", features)
    net.add_module("flatten", nn.Flatten())
    net.add_module("classifier", classifier)
    return net.eval()


def logits(net: nn.Module, foreign: ForeignWeights, image: np.ndarray) -> np.ndarray:
    """Through our preprocessing, (x / 255 - mean) / std."""
    net.load_state_dict(foreign.state_dict, strict=True)
    assert foreign.mean is not None
    assert foreign.std is not None
    x = torch.from_numpy(image).permute(2, 0, 1).float() / 255
    mean, std = torch.tensor(foreign.mean), torch.tensor(foreign.std)
    with torch.no_grad():
        return net(((x - mean[:, None, None]) / std[:, None, None])[None])[0].numpy()


def assert_close(ours: np.ndarray, truth: np.ndarray, tolerance: float) -> None:
    assert np.abs(ours - truth).max() <= tolerance * np.abs(truth).max()


@pytest.mark.parametrize("meta", [True, False])
@pytest.mark.parametrize("fields", ["weights", "filters"])
def test_network_computes_what_the_file_computes(
    tmp_path: Path, layers: list[mcn.Layer], fields: str, meta: bool
) -> None:
    path = mcn.save(
        tmp_path / "net.bin",  # told by content, not by suffix
        layers,
        fields=fields,
        meta=meta,
        names=CLASSES,
        descriptions=DESCRIPTIONS,
    )
    net = small_vgg()
    shapes = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    assert shapes == mcn.target_shapes(layers)
    foreign = read(path, shapes)
    image = np.random.default_rng(1).integers(0, 256, (28, 28, 3), dtype=np.uint8)
    truth = mcn.forward(layers, image, mcn.AVERAGE)
    assert_close(logits(net, foreign, image), truth, 1e-5)
    assert list(foreign.state_dict) == list(shapes)
    assert all(t.dtype == torch.float32 for t in foreign.state_dict.values())
    assert foreign.classes == DESCRIPTIONS
    assert foreign.mean == pytest.approx(mcn.AVERAGE / 255)
    assert foreign.std == pytest.approx((1 / 255,) * 3)
    assert (foreign.shape, foreign.resize, foreign.notes) == ((3, 224, 224), 256, [])


def test_wrong_axes_would_be_seen(layers: list[mcn.Layer]) -> None:
    """The comparison above can fail: kernels with rows and columns swapped compute otherwise."""
    image = np.random.default_rng(1).integers(0, 256, (28, 28, 3), dtype=np.uint8)
    truth = mcn.forward(layers, image, mcn.AVERAGE)
    for layer in layers:
        if "kernel" in layer:
            layer["kernel"] = layer["kernel"].transpose(1, 0, 2, 3)
    with pytest.raises(AssertionError):
        assert_close(mcn.forward(layers, image, mcn.AVERAGE), truth, 1e-2)


@pytest.mark.usefixtures("in_process")
def test_double_precision_uncompressed_and_whole_numbers(
    tmp_path: Path, layers: list[mcn.Layer]
) -> None:
    layers[0]["kernel"] = layers[0]["kernel"].astype(np.float64)
    path = mcn.save(tmp_path / "a.mat", layers, compress=False)
    # MATLAB saves singles that are whole numbers as bytes; SciPy never writes that, so patch it in.
    bias = layers[2]["bias"]
    bias[:] = [3, 0, 255, 7]
    raw = mcn.save(tmp_path / "b.mat", layers, compress=False).read_bytes()
    single = np.array([7, 16], "<u4").tobytes() + bias.astype("<f4").tobytes()  # miSINGLE
    as_bytes = np.array([2, 4], "<u4").tobytes() + bytes([3, 0, 255, 7]) + bytes(4)  # miUINT8
    assert raw.count(single) == 1
    at = raw.index(single)
    # Lengths stay right with eight bytes of padding less: name them in the enclosing matrices.
    (tmp_path / "b.mat").write_bytes(_shortened(raw, at, single, as_bytes))
    shapes = mcn.target_shapes(layers)
    plain, patched = read(path, shapes).state_dict, read(tmp_path / "b.mat", shapes).state_dict
    assert torch.equal(patched["features.2.bias"], torch.tensor([3.0, 0.0, 255.0, 7.0]))
    assert torch.equal(plain["features.0.weight"], patched["features.0.weight"])


def _shortened(raw: bytes, at: int, old: bytes, new: bytes) -> bytes:
    """Replace a data element and shorten every element that encloses it."""
    content, less = bytearray(raw), len(old) - len(new)

    def walk(start: int, end: int) -> None:
        while start + 8 <= end:
            kind, length = np.frombuffer(content[start : start + 8], "<u4").tolist()
            if kind >> 16:  # small element: type and length in one word
                start += 8
                continue
            if kind == 14 and start < at < start + 8 + length:
                content[start + 4 : start + 8] = np.uint32(length - less).tobytes()
                return walk(start + 8, start + 8 + length)
            start += 8 + -(-length // 8) * 8
        return None

    walk(128, len(raw))
    return bytes(content[:at]) + new + bytes(content[at + len(old) :])


@pytest.mark.usefixtures("in_process")
def test_names_when_there_are_no_descriptions(tmp_path: Path, layers: list[mcn.Layer]) -> None:
    shapes = mcn.target_shapes(layers)
    assert read(mcn.save(tmp_path / "a", layers, names=CLASSES), shapes).classes == CLASSES
    assert read(mcn.save(tmp_path / "b", layers, names=CLASSES, meta=False), shapes).classes == (
        CLASSES
    )
    assert read(mcn.save(tmp_path / "c", layers), shapes).classes is None


@pytest.mark.usefixtures("in_process")
def test_average_image_becomes_one_mean_per_channel(
    tmp_path: Path, layers: list[mcn.Layer]
) -> None:
    image = np.random.default_rng(2).uniform(0, 255, (20, 30, 3)).astype(np.float32)
    path = mcn.save(tmp_path / "net.mat", layers, average=image)
    foreign = read(path, mcn.target_shapes(layers))
    assert foreign.mean == pytest.approx(image.reshape(-1, 3).mean(0) / 255, rel=1e-5)
    assert foreign.notes == ["the average image (20 x 30 x 3) became one mean per channel"]


@pytest.mark.parametrize(
    ("normalization", "shape", "resize"),
    [
        ({"imageSize": [227.0, 227.0, 3.0], "border": [29.0, 29.0]}, (3, 227, 227), 256),
        ({"imageSize": [224.0, 224.0, 3.0, 10.0], "cropSize": 0.875}, (3, 224, 224), 256),
        ({"imageSize": [224.0, 224.0], "border": [0.0, 0.0]}, (3, 224, 224), 224),
        ({"imageSize": [224.0, 224.0, 3.0]}, (3, 224, 224), 256),
        ({"imageSize": [0.0, 0.0]}, None, None),
        ({"keepAspect": False}, None, None),
    ],
)
@pytest.mark.usefixtures("in_process")
def test_input_size(
    tmp_path: Path, layers: list[mcn.Layer], normalization: dict, shape: tuple, resize: int
) -> None:
    path = mcn.save(tmp_path / "net.mat", layers, normalization=normalization)
    foreign = read(path, mcn.target_shapes(layers))
    assert (foreign.shape, foreign.resize) == (shape, resize)


@pytest.mark.usefixtures("in_process")
def test_one_output_and_grey_images(tmp_path: Path) -> None:
    """MATLAB drops the kernel's last dimensions when they are 1."""
    rng = np.random.default_rng(0)
    layers = mcn.vgg(rng, blocks=[[1]], hidden=[], num_classes=1, side=3, channels=1)
    path = mcn.save(tmp_path / "net.mat", layers, average=np.float32([[100]]))
    foreign = read(path, mcn.target_shapes(layers))
    assert foreign.state_dict["features.0.weight"].shape == (1, 1, 3, 3)
    kernel = torch.from_numpy(layers[3]["kernel"])
    assert torch.equal(foreign.state_dict["classifier.0.weight"], kernel.reshape(1, 9))
    assert foreign.mean == pytest.approx((100 / 255,))


@pytest.mark.usefixtures("in_process")
def test_grouped_kernels(tmp_path: Path) -> None:
    """imagenet-caffe-alex: 5 x 5 x 48 x 256 over 96 channels, and local response normalisation."""
    rng = np.random.default_rng(0)
    layers = [
        mcn.conv(rng, "conv1", 11, 3, 96),
        {"type": "normalize", "name": "norm1", "param": [5.0, 1.0, 2e-5, 0.75]},
        mcn.conv(rng, "conv2", 5, 48, 256, pad=2),
    ]
    foreign = read(mcn.save(tmp_path / "net.mat", layers), mcn.target_shapes(layers))
    truth = layers[2]["kernel"].transpose(3, 2, 0, 1)
    assert np.array_equal(foreign.state_dict["features.2.weight"].numpy(), truth)
    assert "normalises local responses in 1 places" in foreign.notes[0]


@pytest.mark.slow
def test_full_size_vgg19(tmp_path: Path) -> None:
    """imagenet-vgg-verydeep-19.mat with random weights against torchvision's VGG19."""
    from torchvision.models import vgg19

    rng = np.random.default_rng(0)
    blocks = [[64] * 2, [128] * 2, [256] * 4, [512] * 4, [512] * 4]
    layers = mcn.vgg(rng, blocks, hidden=[4096, 4096], num_classes=1000)
    classes = [f"class {i}" for i in range(1000)]
    path = tmp_path / "imagenet-vgg-verydeep-19.mat"
    mcn.save(path, layers, descriptions=classes, compress=False)  # half a gigabyte
    with torch.device("meta"):
        net = vgg19(weights=None, init_weights=False).eval()
    shapes = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    foreign = read(path, shapes)
    assert foreign.classes == classes
    image = rng.integers(0, 256, (224, 224, 3), dtype=np.uint8)
    truth = mcn.forward(layers, image, mcn.AVERAGE)
    assert_close(logits(net.to_empty(device="cpu"), foreign, image), truth, 1e-4)

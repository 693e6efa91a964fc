"""A trained net for other programs: what lies in the files, and that it computes the same."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytest
import safetensors
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from tests.helpers.commands import ROOT, TrainedRun
from tests.helpers.exports import (
    CLASSES,
    LOAD,
    NUM_CLASSES,
    Dispatch,
    check_agreement,
    load_onnx,
    load_pt2,
    make_checkpoint,
)
from tests.models.test_contract import NAMES, REPEATING
from trainer import checkpoints

# ---- the graphs ----


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name not in REPEATING])
def test_every_net_agrees_in_both_graphs(name: str, dispatch: Dispatch) -> None:
    net = make_checkpoint(Path("net.pth"), name, (1, 28, 28))
    for format, load in LOAD.items():
        done = dispatch("export", "net.pth", "--format", format)
        assert done.returncode == 0, done.output
        check_agreement(load(Path(f"net.{format}"))[0], net, (1, 28, 28))


@pytest.mark.slow
@pytest.mark.parametrize("format", LOAD)
def test_a_graph_computes_as_the_net_and_says_what_it_is(format: str, dispatch: Dispatch) -> None:
    net = make_checkpoint(Path("net.pth"), "lenet5", (3, 24, 31))
    done = dispatch("export", "net.pth", "--format", format)
    assert done.returncode == 0, done.output
    assert done.stderr == ""
    assert done.stdout.startswith(f"net.{format}: 0.")
    assert len(done.stdout.splitlines()) == 1
    loaded, description = LOAD[format](Path(f"net.{format}"))
    check_agreement(loaded, net, (3, 24, 31))
    assert description["classes"] == CLASSES
    assert description["shape"] == [3, 24, 31]
    assert description["input_size"] == [28, 31]
    assert (description["mean"], description["std"]) == ([0.4, 0.5, 0.6], [0.2, 0.3, 0.25])
    assert description["resize"] == 24
    written = torch.load("net.pth", weights_only=True)
    assert description["checkpoint"]["digest"] == written["digest"]
    assert str(ROOT).encode() not in Path(f"net.{format}").read_bytes()
    assert sys.prefix.encode() not in Path(f"net.{format}").read_bytes()


@pytest.mark.slow
def test_onnx_names_and_sizes(dispatch: Dispatch) -> None:
    import onnx

    make_checkpoint(Path("net.pth"), "mlp", (1, 28, 28))
    assert dispatch("export", "net.pth", "--format=onnx", "-o", "other.onnx").returncode == 0
    model = onnx.load("other.onnx")
    onnx.checker.check_model(model, full_check=True)

    def said(value: Any) -> tuple[str, list[Any]]:
        dims = value.type.tensor_type.shape.dim
        return value.name, [dim.dim_param or dim.dim_value for dim in dims]

    assert [said(value) for value in model.graph.input] == [("images", ["batch", 1, 28, 28])]
    assert [said(value) for value in model.graph.output] == [("logits", ["batch", NUM_CLASSES])]


def described_steps(image: Image.Image, description: Mapping[str, Any]) -> Tensor:
    """The sentences of `preprocessing` done in NumPy and Pillow, for an image of the right size
    and kind."""
    decoding, first, second, *rest = description["preprocessing"]
    assert decoding == (
        "The first image of a file, upright as its EXIF has it; grey of more than 8 bits scaled "
        "by the depth that the file declares, or by the range of the training dataset; what is "
        "transparent over black, or over white where what can be seen is nearly black."
    )
    assert first == "Grey, by ITU-R BT.601, pixels 0 to 255."
    assert second.startswith(f"If it is not {image.height} x {image.width}: ")
    x = np.asarray(image).astype(np.float64)
    height, width = description["input_size"]
    for step in rest:
        if step == f"A border of 2 black pixels all round, which makes {height} x {width}.":
            x = np.pad(x, 2)
        elif step == f"To {height} x {width}, bilinear with antialiasing.":
            floats = Image.fromarray(x.astype(np.float32))
            x = np.asarray(floats.resize((width, height), Image.Resampling.BILINEAR))
        else:
            assert step == "(pixel / 255 - mean) / std for each channel."
            x = (x / 255 - description["mean"][0]) / description["std"][0]
    return torch.from_numpy(x.astype(np.float32)).view(1, 1, height, width)


@pytest.mark.parametrize(
    ("name", "size", "num_steps"),
    [
        ("lenet_caffe", (20, 24), 5),  # resized to 28 x 28
        pytest.param("lenet_caffe", (28, 28), 4, marks=pytest.mark.slow),
        pytest.param("vgg11", (28, 28), 5, marks=pytest.mark.slow),  # padded to 32 x 32
    ],
)
def test_what_the_file_says_of_preprocessing_is_what_predict_does(
    name: str, size: tuple[int, int], num_steps: int, dispatch: Dispatch
) -> None:
    make_checkpoint(Path("net.pth"), name, (1, *size))
    pixels = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    Image.fromarray(pixels).save("picture.png")
    done = dispatch("predict", "net.pth", "picture.png", "--json", f"--top-k={NUM_CLASSES}")
    top = json.loads(done.stdout)["top"]
    assert dispatch("export", "net.pth", "--format=pt2").returncode == 0
    loaded, description = load_pt2(Path("net.pt2"))
    assert len(description["preprocessing"]) == num_steps
    logits = loaded(described_steps(Image.fromarray(pixels), description))
    probabilities = logits.detach().double().softmax(1)[0]
    for one in top:
        assert one["probability"] == pytest.approx(float(probabilities[one["index"]]), rel=1e-4)
        assert description["classes"][one["index"]] == one["class"]


@pytest.mark.slow
def test_a_run_of_ours_keeps_its_accuracy(default_run: TrainedRun, dispatch: Dispatch) -> None:
    done = dispatch("export", str(default_run.best), "--format=onnx", "-o", "digits.onnx")
    assert done.returncode == 0, done.output
    loaded, description = load_onnx(Path("digits.onnx"))
    assert description["classes"] == [str(i) for i in range(10)]
    with np.load(ROOT / "data" / "mnist_5k.npz") as file:
        images, labels = file["test_images"], file["test_labels"]
    x = (images[:, None] / 255 - description["mean"][0]) / description["std"][0]
    found = loaded(torch.from_numpy(x.astype(np.float32))).argmax(1).numpy()
    assert (found == labels).mean() == pytest.approx(default_run.summary["test_accuracy"])


@pytest.mark.slow
@pytest.mark.parametrize("format", ["pt2", pytest.param("onnx", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "run", [{"precision": "fp64"}, {"precision": "bf16"}, {"layers": "numpy", "device": "cuda:9"}]
)
def test_graphs_are_float32_on_the_cpu_whatever_the_run_was(
    run: dict[str, str], format: str, dispatch: Dispatch
) -> None:
    net = make_checkpoint(Path("net.pth"), "lenet5", (1, 28, 28), **run)
    done = dispatch("export", "net.pth", "--format", format)
    assert done.returncode == 0, done.output
    check_agreement(LOAD[format](Path(f"net.{format}"))[0], net, (1, 28, 28))


# ---- the weights alone ----


@pytest.mark.parametrize("format", ["state_dict", "safetensors"])
def test_weights_are_tensors_alone(format: str, dispatch: Dispatch) -> None:
    """They load into torchvision's own network of the same names, which computes the same."""
    net = make_checkpoint(Path("net.pth"), "resnet18", (3, 64, 64))
    entries = checkpoints.read(Path("net.pth"))
    bulky = {k: torch.cat([v, v])[: len(v)] if v.ndim else v for k, v in entries["model"].items()}
    bulky["conv1.weight"] = bulky["conv1.weight"].to(memory_format=torch.channels_last)
    checkpoints.write(Path("net.pth"), {**entries, "model": bulky})
    done = dispatch("export", "net.pth", "--format", format)
    assert done.returncode == 0, done.output
    assert done.stderr == ""
    if format == "safetensors":
        assert done.stdout.startswith("net.safetensors: ")
        found = load_file("net.safetensors")
    else:
        found = torch.load("net.state_dict.pth", weights_only=True)
    assert type(found) is dict
    for name, tensor in net.state_dict().items():
        assert type(found[name]) is Tensor
        assert torch.equal(found[name], tensor)
        assert found[name].is_contiguous()
        assert found[name].untyped_storage().nbytes() == tensor.nbytes
    theirs = torchvision.models.resnet18(num_classes=NUM_CLASSES)
    theirs.load_state_dict(found)
    check_agreement(theirs.eval(), net, (3, 64, 64))


def test_the_description_beside_it_is_enough_to_build_the_net(dispatch: Dispatch) -> None:
    net = make_checkpoint(Path("net.pth"), "mlp", (1, 20, 24))
    assert dispatch("export", "net.pth", "--format=state_dict", "-o", "it.pt").returncode == 0
    assert sorted(path.name for path in Path().iterdir()) == ["it.json", "it.pt", "net.pth"]
    description = json.loads(Path("it.json").read_text())
    built = hydra.utils.instantiate(description["model"])
    built.load_state_dict(torch.load("it.pt", weights_only=True))
    check_agreement(built.eval(), net, (1, 20, 24))
    assert description["classes"] == CLASSES
    assert description["input_size"] == [20, 24]


def test_safetensors_hold_the_same_description_and_the_same_bytes_each_time(
    dispatch: Dispatch,
) -> None:
    make_checkpoint(Path("net.pth"), "lenet5", (1, 28, 28))
    for words in (["state_dict"], ["safetensors"], ["safetensors", "-o", "again.safetensors"]):
        done = dispatch("export", "net.pth", "--format", *words)
        assert done.returncode == 0, done.output
    with safetensors.safe_open("net.safetensors", "pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata["description"]) == json.loads(
        Path("net.state_dict.json").read_text()
    )
    assert json.loads(metadata["description"])["classes"] == CLASSES
    assert Path("net.safetensors").read_bytes() == Path("again.safetensors").read_bytes()


def test_exported_safetensors_are_imported_again(dispatch: Dispatch) -> None:
    net = make_checkpoint(Path("net.pth"), "lenet5", (1, 28, 28))
    assert dispatch("export", "net.pth", "--format=safetensors").returncode == 0
    done = dispatch(
        "import-weights", "net.safetensors", "--model=lenet5", "-o", "again.pth",
        "data.shape=[1,28,28]", f"data.num_classes={NUM_CLASSES}",
    )  # fmt: skip
    assert done.returncode == 0, done.output
    again = checkpoints.read(Path("again.pth"))["model"]
    assert all(torch.equal(again[name], tensor) for name, tensor in net.state_dict().items())


@pytest.mark.parametrize("format", ["state_dict", "safetensors"])
@pytest.mark.parametrize("layers", ["torch", "numpy"])
def test_weights_keep_their_dtype(layers: str, format: str, dispatch: Dispatch) -> None:
    make_checkpoint(Path("net.pth"), "lenet5", (1, 28, 28), precision="fp64")
    doubles = checkpoints.read(Path("net.pth"))["model"]
    done = dispatch("export", "net.pth", "--format", format, f"layers={layers}")
    assert done.returncode == 0, done.output
    found = (
        load_file("net.safetensors")
        if format == "safetensors"
        else torch.load("net.state_dict.pth", weights_only=True)
    )
    assert all(torch.equal(found[name], doubles[name]) for name in doubles)
    assert {tensor.dtype for tensor in found.values()} == {torch.float64}

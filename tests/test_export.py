"""A trained net for other programs: what lies in the files, and that it computes the same."""

from __future__ import annotations

import errno
import importlib.util
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytest
import torch
import torchvision
import yaml
from conftest import ROOT, Finished, TrainedRun
from PIL import Image
from test_models import NAMES
from torch import Tensor, nn

from trainer import checkpoint, exporting, parts, restore, weights
from trainer.commands import import_weights

Dispatch = Callable[..., Finished]
Loaded = Callable[[Tensor], Tensor]

NUM_CLASSES = 42
CLASSES = [f"class {i}" for i in range(NUM_CLASSES)]


def make_checkpoint(path: Path, name: str, shape: tuple[int, int, int], **run: str) -> nn.Module:
    """A net with random weights, its batch norms' statistics measured, as a checkpoint; `run` is
    what the configuration in it says of the run. Returns the net."""
    torch.manual_seed(0)
    sizes = {"data.shape": str(list(shape)), "data.num_classes": str(NUM_CLASSES)}
    config = import_weights.compose(name, sizes)
    model = parts.make_model(config, shape, NUM_CLASSES)
    with torch.no_grad():
        model.train()(torch.randn(8, shape[0], *parts.input_size(model, shape)))
    mean, std = ([0.4, 0.5, 0.6][: shape[0]], [0.2, 0.3, 0.25][: shape[0]])
    start = weights.Start(model.state_dict(), mean=tuple(mean), std=tuple(std))
    entries = import_weights.describe({**config, **run}, start, model.state_dict())
    if run.get("precision") == "fp64":
        entries["model"] = {name: tensor.double() for name, tensor in entries["model"].items()}
    checkpoint.write(path, {**entries, "classes": CLASSES})
    return model.eval()


def noise(net: nn.Module, num: int, shape: tuple[int, int, int]) -> Tensor:
    return torch.randn(num, shape[0], *parts.input_size(net, shape))


def load_onnx(path: Path) -> tuple[Loaded, dict[str, Any]]:
    """With onnxruntime, and the description in its metadata."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    texts = ("input", "output")
    description = {k: v if k in texts else json.loads(v) for k, v in metadata.items()}

    def forward(images: Tensor) -> Tensor:
        (logits,) = session.run(["logits"], {"images": images.numpy()})
        return torch.from_numpy(logits)

    return forward, description


def load_pt2(path: Path) -> tuple[Loaded, dict[str, Any]]:
    files = {"description.json": ""}
    program = torch.export.load(path, extra_files=files)
    return program.module(), json.loads(files["description.json"])


LOAD = {"onnx": load_onnx, "pt2": load_pt2}


@torch.no_grad()
def check_agreement(loaded: Loaded, net: nn.Module, shape: tuple[int, int, int]) -> None:
    for num in (1, 5):
        images = noise(net, num, shape)
        expected, found = net(images), loaded(images)
        assert expected.isfinite().all()
        assert found.shape == (num, NUM_CLASSES)
        assert found.dtype == torch.float32
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


# ---- the graphs ----


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_net_agrees_in_both_graphs(name: str, dispatch: Dispatch) -> None:
    net = make_checkpoint(Path("net.pth"), name, (1, 28, 28))
    for format, load in LOAD.items():
        done = dispatch("export", "net.pth", "--format", format)
        assert done.returncode == 0, done.output
        check_agreement(load(Path(f"net.{format}"))[0], net, (1, 28, 28))


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


def described_steps(picture: Image.Image, description: Mapping[str, Any]) -> Tensor:
    """The sentences of `preprocessing` done in NumPy and Pillow, for a picture of the right size
    and kind."""
    decoding, first, second, *rest = description["preprocessing"]
    assert decoding == (
        "The first picture of a file, upright as its EXIF has it; 16 bits to 8 by their high byte; "
        "what is transparent over black."
    )
    assert first == "Grey, by ITU-R BT.601, pixels 0 to 255."
    assert second.startswith(f"If it is not {picture.height} x {picture.width}: ")
    x = np.asarray(picture).astype(np.float64)
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


# ---- the state_dict ----


def test_a_state_dict_is_tensors_alone(dispatch: Dispatch) -> None:
    """It loads into torchvision's own network of the same names, which computes the same."""
    net = make_checkpoint(Path("net.pth"), "resnet18", (3, 64, 64))
    entries = checkpoint.read(Path("net.pth"))
    bulky = {k: torch.cat([v, v])[: len(v)] if v.ndim else v for k, v in entries["model"].items()}
    bulky["conv1.weight"] = bulky["conv1.weight"].to(memory_format=torch.channels_last)
    checkpoint.write(Path("net.pth"), {**entries, "model": bulky})
    done = dispatch("export", "net.pth", "--format=state_dict")
    assert done.returncode == 0, done.output
    assert done.stderr == ""
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


@pytest.mark.parametrize("layers", ["torch", "numpy"])
def test_a_state_dict_keeps_its_dtype(layers: str, dispatch: Dispatch) -> None:
    make_checkpoint(Path("net.pth"), "lenet5", (1, 28, 28), precision="fp64")
    doubles = checkpoint.read(Path("net.pth"))["model"]
    done = dispatch("export", "net.pth", "--format=state_dict", f"layers={layers}")
    assert done.returncode == 0, done.output
    found = torch.load("net.state_dict.pth", weights_only=True)
    assert all(torch.equal(found[name], doubles[name]) for name in doubles)
    assert {tensor.dtype for tensor in found.values()} == {torch.float64}


# ---- what is not written ----


@pytest.mark.parametrize("change", [0.0, 1e-3])
@pytest.mark.parametrize("format", ["pt2", pytest.param("onnx", marks=pytest.mark.slow)])
def test_a_file_that_computes_something_else_is_not_written(
    format: str, change: float, dispatch: Dispatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the exporter were wrong by a thousandth in one weight matrix; and the twin."""
    make_checkpoint(Path("net.pth"), "mlp", (1, 28, 28))
    to_bytes, from_bytes = exporting.FORMATS[format]

    def spoiled(program: Any, description: Any) -> bytes:
        with torch.no_grad():
            next(iter(program.state_dict.values())).mul_(1 + change)
        return to_bytes(program, description)

    monkeypatch.setitem(exporting.FORMATS, format, (spoiled, from_bytes))
    file = Path(f"net.{format}")
    file.write_bytes(b"earlier")
    done = dispatch("export", "net.pth", "--format", format, "--force")
    if change:
        assert done.returncode == 1, done.output
        assert "of the largest; 1e-05 is allowed" in done.stderr
        assert file.read_bytes() == b"earlier"
    else:
        assert done.returncode == 0, done.output
        assert file.read_bytes() != b"earlier"
    assert sorted(path.name for path in Path().iterdir()) == sorted([file.name, "net.pth"])


def saying(*logits: float) -> Loaded:
    return lambda images: torch.tensor([logits], dtype=torch.float64).expand(len(images), -1)


def test_the_difference_is_of_the_largest_logit_and_sees_nan() -> None:
    description = {"shape": [1, 2, 3], "input_size": [2, 3], "mean": [0.5], "std": [0.5]}
    for wrong in (0.0, 1e-3, math.nan):
        found = exporting.largest_difference(saying(8, -16), saying(8 + wrong, -16), description)
        assert found == pytest.approx(wrong / 16, nan_ok=True)
    assert exporting.largest_difference(saying(0, 0), saying(0, 0), description) == 0
    assert exporting.largest_difference(saying(0, 0), saying(0, 1e-30), description) > 1e-5


@pytest.mark.parametrize("format", ["state_dict", "pt2"])
def test_weights_that_compute_nonsense(format: str, dispatch: Dispatch) -> None:
    make_checkpoint(Path("net.pth"), "mlp", (1, 28, 28))
    entries = checkpoint.read(Path("net.pth"))
    next(iter(entries["model"].values())).fill_(torch.nan)
    checkpoint.write(Path("net.pth"), entries)
    done = dispatch("export", "net.pth", "--format", format)
    assert done.returncode == 1
    assert "not finite" in done.stderr
    assert [path.name for path in Path().iterdir()] == ["net.pth"]


@pytest.mark.parametrize("earlier", [None, b"earlier"])
@pytest.mark.parametrize("full", [True, False])
def test_a_full_disk_leaves_what_was_there(
    full: bool, earlier: bytes | None, dispatch: Dispatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_checkpoint(Path("net.pth"), "mlp", (1, 28, 28))
    write_bytes = checkpoint.write_bytes

    def filling(path: Path, content: bytes) -> None:
        if full and ".json" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_bytes(path, content)

    monkeypatch.setattr(checkpoint, "write_bytes", filling)
    files = [Path("net.state_dict.pth"), Path("net.state_dict.json")]
    for file in files if earlier else ():
        file.write_bytes(earlier or b"")
    done = dispatch("export", "net.pth", "--format=state_dict", "--force")
    assert done.returncode == (2 if full else 0)
    if full:
        assert done.stderr == "net.state_dict.json: cannot be written: No space left on device.\n"
    found = [file.read_bytes() if file.exists() else None for file in files]
    assert found == [earlier, earlier] if full else earlier not in found
    assert len(list(Path().iterdir())) == (1 if full and not earlier else 3)


def test_a_net_without_a_graph_is_one_message(
    dispatch: Dispatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fickle(nn.Module):
        def __init__(self, **_: Any) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1, NUM_CLASSES))

        def forward(self, x: Tensor) -> Tensor:
            mean: Tensor = x.mean((1, 2, 3))[:, None]
            return self.scale * (mean if mean.sum() > 0 else -mean)  # hangs on the pictures

    make_checkpoint(Path("net.pth"), "mlp", (1, 28, 28))
    monkeypatch.setattr(restore, "restore", lambda *_: Fickle().eval())
    done = dispatch("export", "net.pth", "--format=pt2")
    assert done.returncode == 1
    assert done.stderr.startswith("This net cannot be exported as pt2: ")
    assert done.stderr.endswith("\n--format state_dict takes any net.\n")
    assert len(done.stderr.splitlines()) == 2


@pytest.mark.slow
def test_more_than_an_onnx_file_holds(dispatch: Dispatch, monkeypatch: pytest.MonkeyPatch) -> None:
    net = make_checkpoint(Path("net.pth"), "mlp", (1, 28, 28))
    num_bytes = sum(tensor.nbytes for tensor in net.state_dict().values())
    for limit in (num_bytes, num_bytes - 1):
        monkeypatch.setattr(exporting, "ONNX_LIMIT", limit)
        done = dispatch("export", "net.pth", "--format=onnx", "--force")
        assert done.returncode == (0 if limit == num_bytes else 2), done.output
    assert "--format pt2" in done.stderr


# ---- wrong input ----


def test_an_existing_file_is_replaced_only_with_force(dispatch: Dispatch) -> None:
    make_checkpoint(Path("net.pth"), "mlp", (1, 28, 28))
    for file in (Path("net.state_dict.json"), Path("net.state_dict.pth")):
        file.write_text("mine")
        done = dispatch("export", "net.pth", "--format=state_dict")
        assert done.returncode == 2
        assert str(file) in done.stderr
        assert "--force" in done.stderr
        assert file.read_text() == "mine"
    assert dispatch("export", "net.pth", "--format=state_dict", "--force").returncode == 0
    assert torch.load("net.state_dict.pth", weights_only=True)
    assert json.loads(Path("net.state_dict.json").read_text())["classes"] == CLASSES
    before = Path("net.pth").read_bytes()
    done = dispatch("export", "net.pth", "--format=state_dict", "-o", "net.pth", "--force")
    assert done.returncode == 2
    assert "the checkpoint itself" in done.stderr
    assert Path("net.pth").read_bytes() == before


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_without_the_extra_onnx_is_refused_before_anything_is_read(
    missing: str, dispatch: Dispatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    Path("net.pth").write_bytes(b"")
    assert "the file is empty" in dispatch("export", "net.pth", "--format=onnx").stderr
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == missing else find_spec(name)
    )
    done = dispatch("export", "net.pth", "--format=onnx")
    assert done.returncode == 2
    assert done.stderr == f"--format onnx needs {missing}: pip install -e '.[export]'.\n"
    assert "the file is empty" in dispatch("export", "net.pth", "--format=pt2").stderr


WRONG = [
    (["net.pth"], "--format"),
    (["net.pth", "--format=keras"], "keras"),
    (["no.pth", "--format=pt2"], "no.pth: there is no such file"),
    (["cut.pth", "--format=pt2"], "cut.pth: damaged"),
    (["flipped.pth", "--format=state_dict"], "flipped.pth: damaged"),
    (["hostile.pth", "--format=pt2"], "model._target_=os.system"),
    (["net.pth", "--format=onnx", "-o", "net.pt2"], "ends in .onnx"),
    (
        ["net.pth", "--format=state_dict", "-o", "net.json"],
        "ends in .state_dict.pth or .pth or .pt.",
    ),
    (["net.pth", "--format=pt2", "-o", "nowhere/net.pt2"], "no folder nowhere"),
    (["net.pth", "--format=pt2", "layers=numpy"], "layers=numpy"),
    (["net.pth", "--format=onnx", "layers=numpy"], "layers=numpy"),
    (["net.pth", "--format=pt2", "layers=jax"], "layers=jax"),
    (["net.pth", "--format=pt2", "device=cuda:99"], "device=cuda:99"),
    (["net.pth", "--format=pt2", "precision=fp64"], "precision"),
]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one that is as it should be, and of others made of it."""
    folder = tmp_path_factory.mktemp("checkpoints")
    make_checkpoint(folder / "net.pth", "mlp", (1, 28, 28))
    whole = (folder / "net.pth").read_bytes()
    (folder / "cut.pth").write_bytes(whole[: len(whole) // 2])
    middle = len(whole) // 2  # among the weights
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    (folder / "flipped.pth").write_bytes(flipped)
    entries = checkpoint.read(folder / "net.pth")
    config = yaml.safe_load(entries["config"])
    config["model"] = {"_target_": "os.system", "command": "touch hacked"}
    checkpoint.write(folder / "hostile.pth", {**entries, "config": yaml.safe_dump(config)})
    return folder


@pytest.mark.parametrize(("words", "expected"), WRONG, ids=[" ".join(w) for w, _ in WRONG])
def test_wrong_words(
    words: list[str], expected: str, checkpoints: Path, dispatch: Dispatch
) -> None:
    shutil.copytree(checkpoints, ".", dirs_exist_ok=True)
    before = sorted(Path().iterdir())
    done = dispatch("export", *words)
    assert done.returncode == 2, done.output
    assert expected in done.stderr
    assert "Traceback" not in done.output
    assert done.stdout == ""
    assert sorted(Path().iterdir()) == before


@pytest.mark.slow
@pytest.mark.parametrize("format", ["state_dict", "pt2", "onnx"])
def test_the_terminal_stays_clean(format: str, tmp_path: Path) -> None:
    """In a process of its own, with all warnings on."""
    make_checkpoint(tmp_path / "net.pth", "resnet18", (1, 28, 28))
    done = subprocess.run(
        [sys.executable, "-W", "always", "-m", "trainer", "export", "net.pth", "--format", format],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1

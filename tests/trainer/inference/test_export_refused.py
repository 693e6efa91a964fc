"""Exports that are not written, and what is said then."""

from __future__ import annotations

import errno
import importlib.util
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from tests.helpers.exports import CLASSES, NUM_CLASSES, Dispatch, Loaded, make_checkpoint
from trainer.builders import restore
from trainer.checkpoints import read, write
from trainer.inference import export, export_formats

# ---- what is not written ----


@pytest.mark.parametrize("change", [0.0, 1e-3])
@pytest.mark.parametrize("format", ["pt2", pytest.param("onnx", marks=pytest.mark.slow)])
def test_a_file_that_computes_something_else_is_not_written(
    format: str, change: float, dispatch: Dispatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the exporter were wrong by a thousandth in one weight matrix; and the twin."""
    make_checkpoint(Path("net.pth"), "mlp", (1, 28, 28))
    to_bytes, from_bytes = export_formats.FORMATS[format]

    def spoiled(program: Any, description: Any) -> bytes:
        with torch.no_grad():
            next(iter(program.state_dict.values())).mul_(1 + change)
        return to_bytes(program, description)

    monkeypatch.setitem(export_formats.FORMATS, format, (spoiled, from_bytes))
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
        found = export_formats.largest_difference(
            saying(8, -16), saying(8 + wrong, -16), description
        )
        assert found == pytest.approx(wrong / 16, nan_ok=True)
    assert export_formats.largest_difference(saying(0, 0), saying(0, 0), description) == 0
    assert export_formats.largest_difference(saying(0, 0), saying(0, 1e-30), description) > 1e-5


@pytest.mark.parametrize("change", [0.0, 1e-3])
@pytest.mark.parametrize("format", ["state_dict", "safetensors"])
def test_weights_that_come_back_changed_are_not_written(
    format: str, change: float, dispatch: Dispatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if a thousandth got lost in the file; and the twin."""
    make_checkpoint(Path("net.pth"), "mlp", (1, 28, 28))
    to_bytes, from_bytes = export_formats.WEIGHTS[format]

    def spoiled(content: bytes) -> dict[str, Tensor]:
        return {name: tensor * (1 + change) for name, tensor in from_bytes(content).items()}

    monkeypatch.setitem(export_formats.WEIGHTS, format, (to_bytes, spoiled))
    done = dispatch("export", "net.pth", "--format", format)
    assert done.returncode == (1 if change else 0), done.output
    assert ("of the largest; 1e-05 is allowed" in done.stderr) == bool(change)
    assert (len(list(Path().iterdir())) == 1) == bool(change)


@pytest.mark.parametrize("format", ["state_dict", "safetensors", "pt2"])
def test_weights_that_compute_nonsense(format: str, dispatch: Dispatch) -> None:
    make_checkpoint(Path("net.pth"), "mlp", (1, 28, 28))
    entries = read(Path("net.pth"))
    next(iter(entries["model"].values())).fill_(torch.nan)
    write(Path("net.pth"), entries)
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
    write_bytes = export.write_bytes

    def filling(path: Path, content: bytes) -> None:
        if full and ".json" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_bytes(path, content)

    monkeypatch.setattr(export, "write_bytes", filling)
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
            return self.scale * (mean if mean.sum() > 0 else -mean)  # hangs on the images

    make_checkpoint(Path("net.pth"), "mlp", (1, 28, 28))
    monkeypatch.setattr(restore, "restore", lambda *_: Fickle().eval())
    done = dispatch("export", "net.pth", "--format=pt2")
    assert done.returncode == 1
    assert done.stderr.startswith("This model cannot be exported as pt2: ")
    assert done.stderr.endswith("\n--format state_dict and safetensors take any model.\n")
    assert len(done.stderr.splitlines()) == 2


@pytest.mark.slow
def test_more_than_an_onnx_file_holds(dispatch: Dispatch, monkeypatch: pytest.MonkeyPatch) -> None:
    net = make_checkpoint(Path("net.pth"), "mlp", (1, 28, 28))
    num_bytes = sum(tensor.nbytes for tensor in net.state_dict().values())
    for limit in (num_bytes, num_bytes - 1):
        monkeypatch.setattr(export_formats, "ONNX_LIMIT", limit)
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
    (["net.pth", "--format=safetensors", "-o", "net.pt"], "ends in .safetensors."),
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
    entries = read(folder / "net.pth")
    config = yaml.safe_load(entries["config"])
    config["model"] = {"_target_": "os.system", "command": "touch hacked"}
    write(folder / "hostile.pth", {**entries, "config": yaml.safe_dump(config)})
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
@pytest.mark.parametrize("format", ["state_dict", "safetensors", "pt2", "onnx"])
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

"""Nets of NumPy layers: equal to torch's step by step, and at work where there is no torch."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from models.numpy_nn import functional as F
from models.numpy_nn import vgg19
from models.numpy_nn.layers import Conv2d, Dropout, Linear, Sequential, flatten, max_pool2d, relu
from models.numpy_nn.optim import SGD, Adam
from tests.helpers.commands import ROOT
from tests.helpers.numpy_checks import assert_close

PACKAGE = ROOT / "models" / "numpy_nn"

NO_TORCH = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision"):
            raise ImportError(name + " is blocked")

sys.meta_path.insert(0, Blocker())
"""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """These nets are so small that threads would only wait for each other."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


def run_without_torch(code: str, *args: str) -> str:
    """Standard output of the code in a process that cannot import torch."""
    command = [sys.executable, "-c", NO_TORCH + code, *args]
    one_thread = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=one_thread, check=True, capture_output=True, text=True
    )
    return done.stdout


def train_digits(*args: str) -> float:
    """The test accuracy that the example prints."""
    example = "import models.numpy_nn.examples.train_digits as t; raise SystemExit(t.main())"
    found = re.search(r"test accuracy ([\d.]+)", run_without_torch(example, *args))
    assert found
    return float(found[1])


def test_torch_is_blocked_where_these_tests_block_it() -> None:
    with pytest.raises(subprocess.CalledProcessError):
        run_without_torch("import torch")


def test_everything_but_the_bridge_imports_without_torch() -> None:
    files = sorted(PACKAGE.rglob("*.py"))
    modules = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files]
    modules = [module for module in modules if not module.endswith(".bridge")]
    assert "models.numpy_nn.functional.conv" in modules
    lines = [f"import {module.removesuffix('.__init__')}" for module in modules]
    run_without_torch("\n".join([*lines, "assert 'torch' not in sys.modules"]))


def test_arithmetic_names_nothing_but_numpy_and_itself() -> None:
    for file in PACKAGE.rglob("*.py"):
        if file.name in ("bridge.py", "classify_photo.py"):  # the latter reads a .mat and a JPEG
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                package = name.split(".")[0]
                ours = name.startswith("models.numpy_nn")
                assert ours or package == "numpy" or package in sys.stdlib_module_names, (
                    file,
                    name,
                )


def numpy_net(rng: np.random.Generator) -> Sequential:
    """A small LeNet for (N, 1, 15, 15), in float64."""
    return Sequential(
        Conv2d(1, 3, 3, rng, padding=1, dtype=np.float64, need_grad_x=False),
        relu(),
        max_pool2d(2),
        Conv2d(3, 4, 3, rng, stride=2, dtype=np.float64),
        flatten(),
        Linear(36, 10, rng, np.float64),
    )


def torch_net(params: dict[str, Any]) -> nn.Sequential:
    net = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(3, 4, 3, stride=2),
        nn.Flatten(),
        nn.Linear(36, 10),
    ).double()
    net.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in params.items()})
    return net


@pytest.mark.parametrize(
    ("ours", "torchs", "options"),
    [
        (SGD, torch.optim.SGD, {"lr": 0.1}),
        (SGD, torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01}),
        (Adam, torch.optim.Adam, {"lr": 0.01}),
        (Adam, torch.optim.Adam, {"betas": (0.8, 0.95), "eps": 1e-4, "weight_decay": 0.01}),
    ],
)
def test_training_equals_torch_step_by_step(ours: Any, torchs: Any, options: dict) -> None:
    rng = np.random.default_rng(0)
    net = numpy_net(rng)
    twin = torch_net(net.params)
    optimizer, twin_optimizer = ours(net.params, **options), torchs(twin.parameters(), **options)
    for _ in range(10):
        x, labels = rng.standard_normal((8, 1, 15, 15)), rng.integers(0, 10, 8)
        loss, cache = F.cross_entropy_forward(net.forward(x), labels)
        assert net.backward(F.cross_entropy_backward(1.0, cache)) is None
        optimizer.step(net.grads)
        twin_optimizer.zero_grad()
        logits = twin(torch.from_numpy(x))
        twin_loss = nn.functional.cross_entropy(logits, torch.from_numpy(labels))
        twin_loss.backward()
        twin_optimizer.step()
        assert float(loss) == pytest.approx(twin_loss.item(), rel=1e-12)
    for name, value in twin.state_dict().items():
        assert_close(net.params[name], value.numpy(), 1e-11)


def test_sequential_loads_its_own_parameters_and_no_others() -> None:
    net, other = numpy_net(np.random.default_rng(0)), numpy_net(np.random.default_rng(1))
    own = net.params["0.weight"]
    net.load(other.params)
    np.testing.assert_array_equal(own, other.params["0.weight"])  # in place
    with pytest.raises(ValueError, match="another network"):
        net.load({"0.weight": np.ones(3)})


def test_sequential_needs_the_gradients_between_its_layers() -> None:
    rng = np.random.default_rng(0)
    net = Sequential(relu(), Linear(4, 2, rng, need_grad_x=False))
    out = net.forward(np.ones((3, 4), np.float32))
    with pytest.raises(ValueError, match="first layer"):
        net.backward(out)


def test_dropout_layer_drops_in_training_alone() -> None:
    layer, x = Dropout(0.3, np.random.default_rng(0)), np.ones((1000, 10))
    assert layer.forward(x, training=False) is x
    assert layer.backward(x) is x
    out = layer.forward(x, training=True)
    assert (out == 0).mean() == pytest.approx(0.3, abs=0.02)
    assert out.mean() == pytest.approx(1, abs=0.03)
    np.testing.assert_array_equal(layer.backward(x), out)


def test_mlp_learns_digits_and_its_saved_parameters_say_the_same(tmp_path: Path) -> None:
    file = str(tmp_path / "mlp.npz")
    accuracy = train_digits("--net", "mlp", "--save", file)
    assert accuracy >= 0.92
    assert train_digits("--net", "mlp", "--load", file) == accuracy


@pytest.mark.slow
def test_lenet_learns_digits_and_its_saved_parameters_say_the_same(tmp_path: Path) -> None:
    file = str(tmp_path / "lenet.npz")
    accuracy = train_digits("--net", "lenet_caffe", "--save", file)
    assert accuracy >= 0.95
    assert train_digits("--net", "lenet_caffe", "--load", file) == accuracy


def test_parameters_of_another_net_end_with_a_message(tmp_path: Path) -> None:
    file = tmp_path / "other.npz"
    np.savez(file, weight=np.ones(3))
    command = [sys.executable, "-m", "models.numpy_nn.examples.train_digits", "--load", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "another network" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_vgg19_equals_torch_both_ways() -> None:
    from torchvision.models import vgg19 as torchvision_vgg19

    rng = np.random.default_rng(0)
    params = vgg19.he_params(rng, num_classes=10)
    twin = torchvision_vgg19(weights=None, num_classes=10, init_weights=False).eval()
    values = (torch.from_numpy(value) for layer in params for value in layer)
    twin.load_state_dict(dict(zip(twin.state_dict(), values, strict=True)))
    x = rng.standard_normal((2, 3, 224, 224), dtype=np.float32)
    with torch.inference_mode():
        expected = twin(torch.from_numpy(x)).numpy()
    for fast in (False, True):
        assert_close(vgg19.run(vgg19.vgg19(params, fast), x), expected, 2e-5)

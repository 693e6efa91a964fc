"""Stochastic depth against torchvision's, by the linear rule, and in a training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from models.resnet import ResNet
from models.stochastic_depth import StochasticDepth
from tests.helpers import results
from tests.helpers.commands import run_trainer, train
from tests.helpers.compiled_parts import assert_trains_alike, parts

WORDS = ["data=synthetic", "data.num_train=40", "data.num_test=20", "data.val_size=0.2",
         "data.num_classes=2", "data.shape=[1,28,28]", "model=resnet18", "model.width=4",
         "epochs=2", "batch_size=8", "model.stochastic_depth=0.5", "num_threads=1",
         "tensorboard=false"]  # fmt: skip


@pytest.mark.parametrize("shape", [(64, 3, 4, 4), (64, 5)])
def test_as_torchvisions(shape: tuple[int, ...]) -> None:
    branch = torch.randn(shape)
    layer = StochasticDepth(0.3)
    torch.manual_seed(1)
    ours = layer(branch)
    torch.manual_seed(1)
    theirs = torchvision.ops.stochastic_depth(branch, 0.3, "row", training=True)
    torch.testing.assert_close(ours, theirs)
    dropped = (ours.flatten(1) == 0).all(1).sum()
    assert 0 < dropped < len(branch)
    assert torch.equal(layer.eval()(branch), branch)


@pytest.mark.parametrize(("depth", "number"), [(18, 8), (50, 16)])
def test_the_linear_rule(depth: int, number: int) -> None:
    with torch.device("meta"):
        model = ResNet([3, 32, 32], 10, depth=depth, stochastic_depth=0.4)
        plain = ResNet([3, 32, 32], 10, depth=depth)
    rates = [m.probability for m in model.modules() if isinstance(m, StochasticDepth)]
    assert rates == pytest.approx([0.4 * (k + 1) / number for k in range(number)])
    assert not any(isinstance(m, StochasticDepth) for m in plain.modules())
    assert model.state_dict().keys() == plain.state_dict().keys()


def test_a_dropped_branch_leaves_its_shortcut() -> None:
    torch.manual_seed(0)
    model = ResNet([1, 28, 28], 2, stochastic_depth=0.999999, zero_init_last=False).train()
    block = model.layer1[1]
    x = torch.rand(2, 64, 8, 8)
    block.drop.probability = 1 - 1e-12
    torch.testing.assert_close(block(x), x)
    assert not torch.allclose(block.eval()(x), x)


@pytest.mark.parametrize("value", [-0.1, 1, True, "much"])
def test_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"model\.stochastic_depth="):
        ResNet([1, 28, 28], 2, stochastic_depth=value)  # type: ignore[arg-type]


def test_resumed_to_the_same_bits(tmp_path: Path) -> None:
    whole = train(tmp_path, *WORDS, folder="whole")
    train(tmp_path, *WORDS, "stop_epoch=1")
    later = run_trainer("resume", "run", cwd=tmp_path)
    assert later.returncode == 0, later.output
    results.assert_same(tmp_path / "run", tmp_path / "whole")
    plain = train(tmp_path, *WORDS, "model.stochastic_depth=0", folder="plain")
    assert plain.summary["weights_sha256"] != whole.summary["weights_sha256"]


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.branch, self.head = nn.Linear(18, 8), nn.Linear(8, 8), nn.Linear(8, 4)
        self.drop = StochasticDepth(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x.flatten(1)).relu()
        return self.head(x + self.drop(self.branch(x).relu()))  # type: ignore[no-any-return]


def test_compiled_step_drops_the_same_branches() -> None:
    ours, theirs = (parts(Residual, torch.optim.Adam, {"lr": 0.01}) for _ in range(2))
    assert_trains_alike(ours, theirs, 20, 1e-5)


def test_layers_in_numpy_are_refused(tmp_path: Path) -> None:
    refused = run_trainer(*WORDS, "layers=numpy", cwd=tmp_path)
    assert refused.returncode == 2
    assert "StochasticDepth, which has no NumPy form" in refused.output

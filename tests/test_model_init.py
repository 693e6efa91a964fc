"""Initial weights: their spread, what they leave alone, and that a signal passes through."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.googlenet import GoogLeNet
from models.init import INITS, initialise
from models.vgg import VGG


def make_layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(32, 64, 3), nn.BatchNorm2d(64), nn.ReLU(), nn.Flatten(), nn.Linear(6400, 100)
    )


@pytest.mark.parametrize("name", INITS)
def test_initial_weights_have_the_spread_of_the_formula(name: str) -> None:
    layers = make_layers()
    initialise(layers, name)
    fans = {0: (32 * 9, 64 * 9), 4: (6400, 100)}
    for i, (fan_in, fan_out) in fans.items():
        expected = {
            "default": (1 / (3 * fan_in)) ** 0.5,
            "xavier": (2 / (fan_in + fan_out)) ** 0.5,
            "kaiming": (2 / fan_in) ** 0.5,
            "normal": 0.01,
        }[name]
        weight, bias = layers[i].weight, layers[i].bias
        assert isinstance(weight, Tensor)
        assert isinstance(bias, Tensor)
        assert weight.std().item() == pytest.approx(expected, rel=0.03)
        assert abs(weight.mean().item()) < 0.03 * expected
        assert bool((bias == 0).all()) == (name != "default")
        is_bounded = weight.abs().max() < 1.8 * expected  # sqrt(3) std: a uniform distribution
        assert bool(is_bounded) == (name in ("default", "xavier"))


@pytest.mark.parametrize("name", INITS)
def test_initialisation_leaves_norms_alone(name: str) -> None:
    layers, untouched = make_layers(), make_layers()
    norm = layers[1]
    assert isinstance(norm, nn.BatchNorm2d)
    nn.init.constant_(norm.weight, 0.25)
    nn.init.constant_(norm.bias, -2.0)
    initialise(layers, name)
    assert (norm.weight == 0.25).all()
    assert (norm.bias == -2.0).all()
    weight, as_made = layers.state_dict()["0.weight"], untouched.state_dict()["0.weight"]
    assert torch.equal(weight, as_made) == (name == "default")


@pytest.mark.parametrize(("make", "options"), [(VGG, {"depth": 19}), (GoogLeNet, {})])
def test_deep_plain_nets_keep_their_signal_by_default(
    make: Callable[..., nn.Module], options: dict[str, Any]
) -> None:
    """Logits differ between pictures; with PyTorch's own weights they hardly do."""

    def spread_of_logits(**more: str) -> float:
        torch.manual_seed(0)
        net = make((1, 32, 32), 10, **options, **more).eval()
        with torch.no_grad():
            return net(torch.randn(8, 1, 32, 32)).std(dim=0).mean().item()

    assert 0.02 < spread_of_logits() < 5
    assert spread_of_logits(init="default") < 1e-3

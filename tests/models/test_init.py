"""Initial weights: their spread, what they leave alone, and that a signal passes through."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import hydra
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.alexnet import AlexNet
from models.cifar_net import CifarNet
from models.googlenet import GoogLeNet
from models.init import INITS, SMALL_STD, initialise
from models.lenet import LeNet5, LeNetCaffe
from models.mlp import MLP
from models.resnet import ResNet
from models.vgg import VGG
from tests.helpers.commands import ROOT

NAMES = sorted(path.stem for path in (ROOT / "configs" / "model").glob("*.yaml"))
# Of 20 networks with 3 seeds each, on 32 images of Fashion-MNIST, the farthest was 0.15 from ln 10.
NEAR_LN_K = 0.2


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
    """Logits differ between images by a share of their size; with PyTorch's own weights they hardly
    do. A share, as the last layer starts small."""

    def spread_of_logits(**more: str) -> float:
        torch.manual_seed(0)
        net = make((1, 32, 32), 10, **options, **more).eval()
        with torch.no_grad():
            logits = net(torch.randn(8, 1, 32, 32))
        return (logits.std(dim=0).mean() / logits.square().mean().sqrt()).item()

    assert 0.05 < spread_of_logits() < 5
    assert spread_of_logits(init="default") < 1e-3


def digits(num: int) -> tuple[Tensor, Tensor]:
    """(num, 1, 28, 28) normalised, and their labels, in the order of the shipped file."""
    with np.load(ROOT / "data" / "mnist_5k.npz") as file:
        images, labels = file["test_images"][:num], file["test_labels"][:num]
    images = torch.from_numpy(images).reshape(num, 1, 28, 28).float() / 255
    return (images - images.mean()) / images.std(), torch.from_numpy(labels).long()


def untrained_losses(net: Any) -> list[float]:
    """The cross-entropy of each head in training mode, then of the network in evaluation."""
    images, labels = digits(32)
    side = max(28, net.min_size)
    images = F.interpolate(images, size=(side, side))
    with torch.no_grad():
        outputs = net.train()(images)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        outputs = (*outputs, net.eval()(images))
        return [F.cross_entropy(logits, labels).item() for logits in outputs]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_untrained_network_takes_all_classes_for_equally_likely(name: str) -> None:
    # The default stem of the deep ones takes 16 times as long.
    stem = (
        ["model.stem=imagenet"]
        if name in ("resnet34", "resnet50", "resnet101", "resnet152")
        else []
    )
    overrides = [f"model={name}", "data.shape=[1,28,28]", "data.num_classes=10", *stem]
    with hydra.initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        config = hydra.compose("config", overrides=overrides)
    torch.manual_seed(0)
    losses = untrained_losses(hydra.utils.instantiate(config.model))
    assert len(losses) == (4 if name == "googlenet" else 2)
    assert losses == pytest.approx([math.log(10)] * len(losses), abs=NEAR_LN_K)


def test_with_the_gain_in_its_last_layer_too_it_would_not() -> None:
    torch.manual_seed(0)
    net = VGG((1, 28, 28), 10, depth=11)
    initialise(net, "kaiming")
    assert min(untrained_losses(net)) > math.log(10) + 2 * NEAR_LN_K


def last_layers(net: nn.Module) -> list[nn.Linear]:
    return [m for m in net.modules() if isinstance(m, nn.Linear) and m.out_features == 7]


@pytest.mark.parametrize(
    "make", [MLP, LeNet5, LeNetCaffe, CifarNet, AlexNet, VGG, GoogLeNet, ResNet]
)
def test_kaiming_starts_every_last_layer_small(make: Callable[..., nn.Module]) -> None:
    """The layers that give logits, known here by their seven outputs."""
    torch.manual_seed(0)
    net = make((3, 32, 32), 7, init="kaiming")
    heads = last_layers(net)
    assert len(heads) == (3 if make is GoogLeNet else 1)
    for head in heads:
        assert head.weight.std().item() == pytest.approx(SMALL_STD, rel=0.1)
    others = [m for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear)) and m not in heads]
    for layer in others:
        fan_in = layer.weight[0].numel()
        assert layer.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.2)

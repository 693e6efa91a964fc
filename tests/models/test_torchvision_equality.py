"""The classic networks against torchvision's: the same state_dict, the same logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import get_model, list_models

from models.alexnet import AlexNet
from models.googlenet import GoogLeNet
from models.resnet import BLOCKS, ResNet
from models.torchvision_zoo import torchvision_classifier
from models.vgg import STAGES, VGG

NAMES = [
    "alexnet",
    *(f"vgg{depth}{norm}" for depth in STAGES for norm in ("", "_bn")),
    "googlenet",
    *(f"resnet{depth}" for depth in BLOCKS),
]
SHAPE = (3, 224, 224)
# Of the zoo, computed without values: those of their smaller relatives are computed.
LARGEST = ("convnext_large", "vit_h_14", "vit_l_16", "vit_l_32")


def make_ours(name: str, **options: Any) -> nn.Module:
    if name == "alexnet":
        return AlexNet(SHAPE, 1000, **options)
    if name == "googlenet":
        form = {"batch_norm": True, "branch5x5": 3, "aux_pool": "adaptive"}
        return GoogLeNet(SHAPE, 1000, **{**form, **options})
    if name.startswith("vgg"):
        depth, _, norm = name[3:].partition("_")
        return VGG(SHAPE, 1000, depth=int(depth), batch_norm=norm == "bn", **options)
    return ResNet(SHAPE, 1000, depth=int(name[6:]), **options)


def make_theirs(name: str) -> nn.Module:
    options = {"init_weights": False} if name == "googlenet" else {}
    return get_model(name, weights=None, **options)


def randomise(net: nn.Module) -> None:
    """Draw weights that keep a signal's size through ReLU layers, and statistics that move it."""
    torch.manual_seed(0)
    for layer in net.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.uniform_(layer.bias, -0.5, 0.5)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.5, 0.5)
            nn.init.uniform_(layer.running_mean, -0.5, 0.5)  # type: ignore[arg-type]
            nn.init.uniform_(layer.running_var, 0.5, 1.5)  # type: ignore[arg-type]
            layer.num_batches_tracked.zero_()  # type: ignore[union-attr]


def make_pair(name: str) -> tuple[nn.Module, nn.Module]:
    """Ours and torchvision's, on the same memory."""
    with torch.device("meta"):
        ours, theirs = make_ours(name), make_theirs(name)
    theirs.to_empty(device="cpu")
    randomise(theirs)
    ours.load_state_dict(theirs.state_dict(), strict=True, assign=True)
    return ours, theirs


def make_images(side: int) -> Tensor:
    """(2, 3, side, side) two blurred patterns: of pure noise a deep net sees only the average."""
    return nn.functional.interpolate(torch.randn(2, 3, 4, 4), size=(side, side), mode="bilinear")


def assert_same_logits(ours: Tensor, theirs: Tensor) -> None:
    largest = theirs.abs().max().item()
    assert (theirs[0] - theirs[1]).abs().max().item() > 1e-2 * largest  # the images matter
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * largest)


def check_equality(name: str, side: int) -> None:
    ours, theirs = make_pair(name)
    images = make_images(side)
    assert_same_logits(ours.eval()(images), theirs.eval()(images))


@pytest.mark.parametrize(
    "name",
    ["alexnet", "vgg11", "vgg16_bn", "googlenet", "resnet18", "resnet34", "resnet50", "resnet152"],
)
@torch.no_grad()
def test_logits_are_torchvisions_on_small_images(name: str) -> None:
    check_equality(name, 64)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_logits_are_torchvisions(name: str) -> None:
    check_equality(name, 224)


@torch.no_grad()
def test_googlenet_heads_are_torchvisions_in_order() -> None:
    ours, theirs = make_pair("googlenet")
    for net in (ours, theirs):
        net.train()
        for layer in net.modules():
            if isinstance(layer, nn.Dropout):
                layer.p = 0.0
    images = make_images(96)
    outputs, expected = ours(images), theirs(images)
    assert len(outputs) == 3
    for output, other in zip(
        outputs, (expected.logits, expected.aux_logits2, expected.aux_logits1), strict=True
    ):
        assert_same_logits(output, other)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("googlenet", {"branch5x5": 5}),
        ("googlenet", {"batch_norm": False}),
        ("alexnet", {"variant": "paper"}),
        ("vgg16", {"head": "small"}),
        ("resnet18", {"stem": "small"}),
    ],
)
def test_other_forms_do_not_take_torchvisions_weights(name: str, options: dict[str, Any]) -> None:
    with torch.device("meta"):
        state = make_theirs(name).state_dict()
        with pytest.raises(RuntimeError, match=r"size mismatch|Missing key|Unexpected key"):
            make_ours(name, **options).load_state_dict(state, strict=True)
        make_ours(name).load_state_dict(state, strict=True)


# ---- the classifiers that torchvision itself provides ----


def check_zoo(name: str, shape: tuple[int, int, int]) -> None:
    net: Any = torchvision_classifier(shape, 42, name)
    channels, *sides = shape
    images = torch.randn(2, channels, *(max(side, net.min_size) for side in sides))
    with torch.no_grad():
        assert net.eval()(images[:1]).shape == (1, 42)
        outputs = net.train()(images)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    assert [output.shape for output in outputs] == [(2, 42)] * len(outputs)
    assert outputs[0].is_meta or outputs[0].isfinite().all()


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("mobilenet_v3_small", (1, 28, 28)),
        ("squeezenet1_1", (3, 28, 28)),
        ("shufflenet_v2_x0_5", (1, 30, 50)),
        ("regnet_y_400mf", (3, 32, 32)),
        ("vit_b_32", (1, 28, 40)),
        ("swin_t", (1, 28, 28)),
    ],
)
def test_zoo_takes_any_shape(name: str, shape: tuple[int, int, int]) -> None:
    check_zoo(name, shape)


@pytest.mark.slow
@pytest.mark.parametrize("name", list_models(module=torchvision.models))
def test_zoo_holds_every_classifier(name: str) -> None:
    with torch.device("meta" if name in LARGEST else "cpu"):
        check_zoo(name, (1, 28, 28))


@pytest.mark.slow
@pytest.mark.parametrize("side", [28, 32, 64, 96, 224])
@pytest.mark.parametrize("name", ["vit_b_16", "vit_h_14", "maxvit_t"])
def test_transformers_are_built_for_whole_patches(name: str, side: int) -> None:
    with torch.device("meta"):
        net: Any = torchvision_classifier((1, side, side), 42, name).eval()
        size = max(side, net.min_size)
        assert net(torch.empty(1, 1, size, size)).shape == (1, 42)
    step = {"vit_b_16": 16, "vit_h_14": 14, "maxvit_t": 224}[name]
    assert side <= size < side + step


def test_zoo_is_torchvisions_own_module_with_three_channels() -> None:
    torch.manual_seed(0)
    ours = torchvision_classifier((3, 32, 32), 7, "resnet18").eval()
    torch.manual_seed(0)
    theirs = torchvision.models.resnet18(num_classes=7).eval()
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(ours(images), theirs(images))

"""The networks against their papers and the files that others trained: sizes and formulas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.alexnet import AlexNet, local_response_norm
from models.cifar_net import CifarNet
from models.googlenet import GoogLeNet
from models.lenet import LeNet5, LeNetCaffe
from models.mlp import MLP
from models.resnet import BasicBlock, Bottleneck, ResNet
from models.vgg import VGG


def count_parameters(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def on_meta(make: Callable[[], nn.Module]) -> Any:
    """The net without memory for its weights: enough to count them."""
    with torch.device("meta"):
        return make()


# ---- parameter counts: torchvision's own, Caffe's files, and papers ----


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: MLP((1, 28, 28), 10), 784 * 128 + 128 + 128 * 64 + 64 + 64 * 10 + 10),
        (lambda: LeNet5((1, 28, 28), 10), 61_706),
        (lambda: LeNet5((1, 32, 32), 10), 61_706),
        (lambda: LeNetCaffe((1, 28, 28), 10), 431_080),
        (lambda: CifarNet((3, 32, 32), 10), 62_006),
        (lambda: AlexNet((3, 224, 224), 1000), 61_100_840),
        (lambda: AlexNet((3, 224, 224), 10), 57_044_810),
        (lambda: AlexNet((3, 224, 224), 1000, variant="paper"), 60_965_224),
        (lambda: VGG((3, 32, 32), 10, depth=11, batch_norm=True), 9_231_114),
        (lambda: VGG((3, 32, 32), 10, depth=13, batch_norm=True), 9_416_010),
        (lambda: VGG((3, 32, 32), 10, depth=16, batch_norm=True), 14_728_266),
        (lambda: VGG((3, 32, 32), 10, depth=19, batch_norm=True), 20_040_522),
        (lambda: GoogLeNet((3, 224, 224), 1000), 13_378_280),
        (lambda: ResNet((3, 32, 32), 10, depth=18), 11_173_962),
        (lambda: ResNet((3, 224, 224), 10, depth=18), 11_181_642),
        (lambda: ResNet((3, 32, 32), 10, depth=34), 21_282_122),
        (lambda: ResNet((3, 32, 32), 10, depth=50), 23_520_842),
        (lambda: ResNet((3, 32, 32), 10, depth=101), 42_512_970),
        (lambda: ResNet((3, 32, 32), 10, depth=152), 58_156_618),
    ],
)
def test_number_of_parameters(make: Callable[[], nn.Module], expected: int) -> None:
    assert count_parameters(on_meta(make)) == expected


@pytest.mark.parametrize("width", [1, 16, 64, 128])
@pytest.mark.parametrize("stem", ["small", "imagenet"])
def test_parameters_of_a_resnet_18_grow_with_the_square_of_its_width(width: int, stem: str) -> None:
    """Counted by hand: 3x3 convolutions, the 1x1 of shortcuts, two numbers a map of each norm."""
    w, (side, maps) = width, {"small": (3, 3), "imagenet": (7, 3)}[stem]
    within = 9 * w * w * (4 + 3 * (4 + 16 + 64))  # all but the first convolution of stages 2 to 4
    between = (9 + 1) * w * w * (2 + 8 + 32)
    norms = 2 * w * (1 + 4 + 5 * (2 + 4 + 8))
    expected = side * side * maps * w + within + between + norms + (8 * w + 1) * 10
    net = on_meta(lambda: ResNet((3, 64, 64), 10, stem=stem, width=width))
    assert count_parameters(net) == expected
    official = net.torchvision_name
    assert official == ("resnet18" if width == 64 else None)


@pytest.mark.parametrize("width", [1, 24, 64])
@pytest.mark.parametrize("head", ["small", "imagenet"])
def test_parameters_of_a_vgg_11_grow_with_the_square_of_its_width(width: int, head: str) -> None:
    w = width
    convolutions = 9 * (3 * w + w * w * (2 + 8 + 16 + 32 + 3 * 64)) + w * (1 + 2 + 8 + 16 + 16)
    norms = 2 * w * (1 + 2 + 8 + 16 + 16)
    last = {"small": 8 * w * 10 + 10,
            "imagenet": (8 * w * 49 + 1) * 4096 + 4097 * 4096 + 4097 * 10}[head]  # fmt: skip
    net = on_meta(lambda: VGG((3, 64, 64), 10, depth=11, batch_norm=True, head=head, width=width))
    assert count_parameters(net) == convolutions + norms + last
    assert net.torchvision_name == ("vgg11_bn" if width == 64 else None)


@pytest.mark.parametrize("width", [0, -1, 1.5, True, "wide"])
@pytest.mark.parametrize("network", [ResNet, VGG])
def test_a_width_that_is_none_is_refused(network: Any, width: Any) -> None:
    with pytest.raises(ValueError, match=r"model\.width=.*whole number at least 1"):
        network((1, 28, 28), 10, width=width)


@pytest.mark.parametrize(
    ("depth", "batch_norm", "expected"),
    [
        (11, False, 132_863_336),
        (11, True, 132_868_840),
        (13, False, 133_047_848),
        (13, True, 133_053_736),
        (16, False, 138_357_544),
        (16, True, 138_365_992),
        (19, False, 143_667_240),
        (19, True, 143_678_248),
    ],
)
def test_number_of_parameters_of_vgg(depth: int, batch_norm: bool, expected: int) -> None:
    net = on_meta(lambda: VGG((3, 224, 224), 1000, depth=depth, batch_norm=batch_norm))
    assert count_parameters(net) == expected


@pytest.mark.parametrize(
    ("depth", "expected"),
    [
        (18, 11_689_512),
        (34, 21_797_672),
        (50, 25_557_032),
        (101, 44_549_160),
        (152, 60_192_808),
    ],
)
def test_number_of_parameters_of_resnet(depth: int, expected: int) -> None:
    net = on_meta(lambda: ResNet((3, 224, 224), 1000, depth=depth))
    assert count_parameters(net) == expected


def test_googlenet_without_heads_counts_as_torchvision_and_caffe_do() -> None:
    paper = on_meta(lambda: GoogLeNet((3, 224, 224), 1000))
    other = on_meta(lambda: GoogLeNet((3, 224, 224), 1000, True, 3, "adaptive"))
    for net, whole, without_heads in (
        (paper, 13_378_280, 6_998_552),
        (other, 13_004_888, 6_624_904),
    ):
        heads = sum(count_parameters(head) for head in (net.aux1, net.aux2))
        assert (count_parameters(net), count_parameters(net) - heads) == (whole, without_heads)


def test_a_bottleneck_is_seventeen_times_cheaper() -> None:
    def count_weights(block: nn.Module) -> int:
        return sum(m.weight.numel() for m in block.modules() if isinstance(m, nn.Conv2d))

    assert count_weights(BasicBlock(256, 256, 1)) == 1_179_648
    assert count_weights(Bottleneck(256, 64, 1, "3x3")) == 69_632


# ---- single nets ----


def record_shapes(net: nn.Module, x: Tensor) -> dict[str, torch.Size]:
    """The output shape of every module, by name, in order of execution."""
    shapes: dict[str, torch.Size] = {}

    def keep(key: str) -> Callable[..., None]:
        return lambda module, args, output: shapes.update({key: output.shape})

    handles = [m.register_forward_hook(keep(key)) for key, m in net.named_modules() if key]
    net(x)
    for handle in handles:
        handle.remove()
    return shapes


def test_mlp_is_matrix_products() -> None:
    net = MLP((2, 3, 4), 5, hidden=(7, 6), activation="tanh").double()
    x = torch.randn(3, 2, 3, 4, dtype=torch.float64)
    state = {key: value.numpy() for key, value in net.state_dict().items()}
    hidden = x.numpy().reshape(3, 24)
    for i in (0, 2):
        weight, bias = state[f"hidden.{i}.weight"], state[f"hidden.{i}.bias"]
        hidden = np.tanh(hidden @ weight.T + bias)
    expected = hidden @ state["fc.weight"].T + state["fc.bias"]
    np.testing.assert_allclose(net(x).detach().numpy(), expected, rtol=1e-12)


def test_mlp_without_hidden_layers_is_a_linear_classifier() -> None:
    assert count_parameters(MLP((1, 28, 28), 10, hidden=[])) == 7850


def test_mlp_drops_units_only_in_training() -> None:
    net, x = MLP((1, 8, 8), 4, dropout=0.5), torch.randn(2, 1, 8, 8)
    assert not torch.equal(net.train()(x), net(x))
    assert torch.equal(net.eval()(x), net(x))


def test_lenet5_on_28_px_is_lenet5_on_padded_32_px() -> None:
    small, large = LeNet5((1, 28, 28), 10), LeNet5((1, 32, 32), 10)
    large.load_state_dict(small.state_dict())
    x = torch.randn(4, 1, 28, 28)
    torch.testing.assert_close(small(x), large(nn.functional.pad(x, (2, 2, 2, 2))))


def test_lenet5_has_an_activation_after_every_layer() -> None:
    shapes = record_shapes(LeNet5((1, 32, 32), 10), torch.randn(1, 1, 32, 32))
    trail = [(key, tuple(shape[1:])) for key, shape in shapes.items()]
    assert trail == [
        ("c1", (6, 28, 28)),
        ("act1", (6, 28, 28)),
        ("s2", (6, 14, 14)),
        ("act2", (6, 14, 14)),
        ("c3", (16, 10, 10)),
        ("act3", (16, 10, 10)),
        ("s4", (16, 5, 5)),
        ("act4", (16, 5, 5)),
        ("flatten", (400,)),
        ("c5", (120,)),
        ("act5", (120,)),
        ("f6", (84,)),
        ("act6", (84,)),
        ("output", (10,)),
    ]


def test_local_response_norm_is_the_papers_formula() -> None:
    a = np.random.default_rng(0).normal(size=(2, 9, 3, 4)) * 50  # large, so that it matters
    expected = np.empty_like(a)
    for i in range(9):
        neighbours = a[:, max(0, i - 2) : min(8, i + 2) + 1]
        expected[:, i] = a[:, i] / (2 + 1e-4 * (neighbours**2).sum(axis=1)) ** 0.75
    result = local_response_norm()(torch.from_numpy(a))
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 0),
        ({"lrn": True}, 2),
        ({"variant": "paper"}, 2),
        ({"variant": "paper", "lrn": False}, 0),
        ({"variant": "paper_half"}, 2),
    ],
)
def test_alexnet_normalises_between_relu_and_pooling(
    options: dict[str, Any], expected: int
) -> None:
    net = on_meta(lambda: AlexNet((3, 224, 224), 1000, **options))
    kinds = [type(layer) for layer in net.features]
    places = [i for i, kind in enumerate(kinds) if kind is nn.LocalResponseNorm]
    assert len(places) == expected
    for place in places:
        assert kinds[place - 2 : place + 2] == [
            nn.Conv2d,
            nn.ReLU,
            nn.LocalResponseNorm,
            nn.MaxPool2d,
        ]


def test_alexnet_of_the_paper_is_figure_2() -> None:
    net = on_meta(lambda: AlexNet((3, 224, 224), 1000, variant="paper")).eval()
    shapes = record_shapes(net, torch.empty(1, 3, 224, 224, device="meta"))
    convs = {k: m for k, m in net.named_modules() if isinstance(m, nn.Conv2d)}
    assert [tuple(shapes[key][1:]) for key in convs] == [
        (96, 55, 55),
        (256, 27, 27),
        (384, 13, 13),
        (384, 13, 13),
        (256, 13, 13),
    ]
    assert [conv.weight.shape[1] for conv in convs.values()] == [3, 48, 256, 192, 192]
    assert shapes["flatten"][1] == 9216


def test_googlenet_is_table_1() -> None:
    net = on_meta(lambda: GoogLeNet((3, 224, 224), 1000)).eval()
    shapes = record_shapes(net, torch.empty(1, 3, 224, 224, device="meta"))
    table = {
        "conv1": (64, 112, 112),
        "maxpool1": (64, 56, 56),
        "conv3": (192, 56, 56),
        "maxpool2": (192, 28, 28),
        "inception3a": (256, 28, 28),
        "inception3b": (480, 28, 28),
        "maxpool3": (480, 14, 14),
        "inception4a": (512, 14, 14),
        "inception4b": (512, 14, 14),
        "inception4c": (512, 14, 14),
        "inception4d": (528, 14, 14),
        "inception4e": (832, 14, 14),
        "maxpool4": (832, 7, 7),
        "inception5a": (832, 7, 7),
        "inception5b": (1024, 7, 7),
        "avgpool": (1024, 1, 1),
    }
    assert {key: tuple(shapes[key][1:]) for key in table} == table
    kernels = {
        module.branch3[1].conv.kernel_size
        for key, module in net.named_modules()
        if key.startswith("inception") and "." not in key
    }
    assert kernels == {(5, 5)}


@pytest.mark.parametrize("side", [32, 64, 96, 192, 224, 225, 227, 240, 256, 299])
def test_googlenet_heads_fit_every_size(side: int) -> None:
    """The paper's 5x5 windows stand where they leave 4x4, and nothing breaks elsewhere."""
    net = on_meta(lambda: GoogLeNet((3, side, side), 10))
    heads: list[tuple[type[nn.Module], torch.Size, torch.Size]] = []
    for head in (net.aux1, net.aux2):
        head.pool.register_forward_hook(
            lambda module, args, out: heads.append((type(module), args[0].shape, out.shape))
        )
    assert len(net(torch.empty(2, 3, side, side, device="meta"))) == 3
    for kind, before, after in heads:
        fits = (before[-1] - 5) // 3 + 1 == 4
        assert kind is (nn.AvgPool2d if fits else nn.AdaptiveAvgPool2d)
        assert after[-2:] == (4, 4)

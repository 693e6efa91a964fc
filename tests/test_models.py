"""The contract that every network keeps, and its parts checked against papers and formulas."""

from __future__ import annotations

import io
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from models.alexnet import AlexNet, local_response_norm
from models.cifar_net import CifarNet
from models.googlenet import GoogLeNet
from models.init import INITS, initialise
from models.lenet import LeNet5, LeNetCaffe
from models.mlp import MLP
from models.resnet import BasicBlock, Bottleneck, ResNet
from models.torchvision_zoo import torchvision_classifier
from models.vgg import VGG

CONFIGS = Path(__file__).parent.parent / "configs"
NAMES = sorted(path.stem for path in (CONFIGS / "model").glob("*.yaml"))
OUR_NETS = [name for name in NAMES if name != "torchvision"]


def compose_model(name: str, shape: tuple[int, int, int], *overrides: str) -> Any:
    """The net as the command line would build it, for 42 classes."""
    data = [f"data.shape=[{','.join(map(str, shape))}]", "data.num_classes=42"]
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = hydra.compose("config", overrides=[f"model={name}", *data, *overrides])
    return hydra.utils.instantiate(config.model)


def make_pictures(net: Any, num: int, shape: tuple[int, int, int]) -> Tensor:
    """(num, C, H, W) noise with the sides that the trainer would bring pictures to."""
    channels, height, width = shape
    return torch.randn(num, channels, max(height, net.min_size), max(width, net.min_size))


def count_parameters(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def on_meta(make: Callable[[], nn.Module]) -> Any:
    """The net without memory for its weights: enough to count them."""
    with torch.device("meta"):
        return make()


# ---- the contract, over every YAML file ----


def test_every_model_of_the_contract_has_a_file() -> None:
    small = ["mlp", "lenet5", "lenet_caffe", "cifar_net", "alexnet", "googlenet", "torchvision"]
    vggs = [f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn")]
    resnets = [f"resnet{depth}" for depth in (18, 34, 50, 101, 152)]
    assert sorted(small + vggs + resnets) == NAMES
    assert len(NAMES) == 20


def check_contract(name: str, shape: tuple[int, int, int], *overrides: str) -> None:
    torch.manual_seed(0)
    net = compose_model(name, shape, *overrides)
    assert isinstance(net.min_size, int)

    net.train()
    outputs = net(make_pictures(net, 2, shape))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    assert len(outputs) == (3 if name == "googlenet" else 1)
    assert all(output.shape == (2, 42) for output in outputs)
    loss = sum(nn.functional.cross_entropy(output, torch.tensor([0, 41])) for output in outputs)
    assert isinstance(loss, Tensor)
    loss.backward()
    for key, parameter in net.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key

    net.eval()
    picture = make_pictures(net, 1, shape)
    with torch.no_grad():
        logits = net(picture)
        assert logits.shape == (1, 42)
        file = io.BytesIO()
        torch.save(net.state_dict(), file)
        file.seek(0)
        twin = on_meta(lambda: compose_model(name, shape, *overrides))
        twin.load_state_dict(torch.load(file, weights_only=True), assign=True)
        assert torch.equal(twin.eval()(picture), logits)


# The forms of the heavy nets that a quick test has time for; the slow one takes the defaults.
QUICK_FORMS = {
    "alexnet": "model.variant=paper_half",
    "resnet50": "model.stem=imagenet",
    "resnet101": "model.stem=imagenet",
    "resnet152": "model.stem=imagenet",
}


@pytest.mark.parametrize("name", NAMES)
def test_contract_at_28_px(name: str) -> None:
    overrides = [QUICK_FORMS[name]] if name in QUICK_FORMS else []
    check_contract(name, (1, 28, 28), *overrides)


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("mlp", 64),
        ("lenet5", 32),
        ("lenet_caffe", 64),
        ("cifar_net", 32),
        ("vgg11", 64),
        ("googlenet", 32),
        ("resnet18", 64),
    ],
)
def test_contract_in_colour(name: str, side: int) -> None:
    check_contract(name, (3, side, side))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("channels", "side"), [(3, 28), (1, 32), (3, 64), (1, 96), (3, 224)])
def test_contract_at_every_size(name: str, channels: int, side: int) -> None:
    check_contract(name, (channels, side, side))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [28, 32, 64, 96, 224])
def test_shapes_fit_at_every_size(name: str, channels: int, side: int) -> None:
    shape = (channels, side, side)
    net = on_meta(lambda: compose_model(name, shape))
    assert net.eval()(make_pictures(net, 1, shape).to("meta")).shape == (1, 42)
    outputs = net.train()(make_pictures(net, 2, shape).to("meta"))
    logits = outputs[0] if isinstance(outputs, tuple) else outputs
    assert logits.shape == (2, 42)


@pytest.mark.parametrize("name", OUR_NETS)
def test_pictures_need_not_be_square(name: str) -> None:
    shape = (3, 28, 70)
    net = on_meta(lambda: compose_model(name, shape)).eval()
    pictures = make_pictures(net, 2, shape).to("meta")
    assert net(pictures).shape == (2, 42)


@pytest.mark.parametrize("name", OUR_NETS)
def test_layers_can_be_exchanged_one_by_one(name: str) -> None:
    """Between layers stand only sums and concatenations, and no layer is used twice."""
    net = on_meta(lambda: compose_model(name, (3, 32, 32)))
    nodes = list(fx.symbolic_trace(net).graph.nodes)
    functions = {node.target for node in nodes if node.op in ("call_function", "call_method")}
    assert functions <= {operator.add, torch.cat}
    used = [node.target for node in nodes if node.op == "call_module"]
    leaves = [key for key, module in net.named_modules() if not list(module.children())]
    assert sorted(used) == sorted(leaves)


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


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("alexnet", 61_100_840),
        ("vgg11", 132_863_336),
        ("vgg11_bn", 132_868_840),
        ("vgg13", 133_047_848),
        ("vgg13_bn", 133_053_736),
        ("vgg16", 138_357_544),
        ("vgg16_bn", 138_365_992),
        ("vgg19", 143_667_240),
        ("vgg19_bn", 143_678_248),
        ("resnet18", 11_689_512),
        ("resnet34", 21_797_672),
        ("resnet50", 25_557_032),
        ("resnet101", 44_549_160),
        ("resnet152", 60_192_808),
    ],
)
def test_number_of_parameters_on_imagenet(name: str, expected: int) -> None:
    net = on_meta(lambda: compose_model(name, (3, 224, 224), "data.num_classes=1000"))
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


# ---- options ----

BAD_OPTIONS: list[tuple[Callable[..., nn.Module], str, Any, Any]] = [
    (MLP, "activation", "gelu", "sigmoid"),
    (MLP, "dropout", 1.0, 0.5),
    (MLP, "dropout", -0.1, 0),
    (MLP, "hidden", [128, 0], [128, 1]),
    (MLP, "hidden", 128, [128]),
    (MLP, "init", "he", "kaiming"),
    (LeNet5, "activation", "Tanh", "tanh"),
    (LeNet5, "init", None, "default"),
    (LeNetCaffe, "activation", "swish", "leaky_relu"),
    (CifarNet, "init", "zeros", "normal"),
    (AlexNet, "variant", "caffe", "paper_half"),
    (AlexNet, "lrn", "yes", None),
    (AlexNet, "dropout", "half", 0.2),
    (VGG, "depth", 12, 11),
    (VGG, "batch_norm", "maybe", True),
    (VGG, "head", "large", "imagenet"),
    (VGG, "dropout", 2, 0.9),
    (GoogLeNet, "batch_norm", None, True),
    (GoogLeNet, "branch5x5", 7, 3),
    (GoogLeNet, "aux_pool", "max", "adaptive"),
    (GoogLeNet, "dropout", 1, 0),
    (ResNet, "depth", 20, 34),
    (ResNet, "stem", "7x7", "imagenet"),
    (ResNet, "stride_on", "1x1", "3x3"),  # depth 18 has no bottlenecks
    (ResNet, "zero_init_last", "yes", True),
    (torchvision_classifier, "name", "resnet19", "squeezenet1_1"),
    (torchvision_classifier, "init", "he", "xavier"),
]


@pytest.mark.parametrize(("make", "key", "bad", "good"), BAD_OPTIONS)
def test_a_bad_option_is_named(
    make: Callable[..., nn.Module], key: str, bad: Any, good: Any
) -> None:
    with torch.device("meta"):
        with pytest.raises(ValueError, match=rf"model\.{key}=") as error:
            make((1, 32, 32), 10, **{key: bad})
        assert str(bad).lower().replace("none", "null") in str(error.value).lower()
        make((1, 32, 32), 10, **{key: good})


@pytest.mark.parametrize(
    "make", [MLP, LeNet5, LeNetCaffe, CifarNet, AlexNet, VGG, GoogLeNet, ResNet]
)
def test_a_bad_size_of_the_data_is_named(make: Callable[..., nn.Module]) -> None:
    with torch.device("meta"):
        for shape in [(28, 28), (0, 28, 28), (1, 28, -1), (1, 28, 28.5)]:
            with pytest.raises(ValueError, match=r"data\.shape="):
                make(shape, 10)
        for num_classes in [0, -1, None, 2.5]:
            with pytest.raises(ValueError, match=r"data\.num_classes="):
                make((1, 28, 28), num_classes)
        net = make((1, 1, 1), 1).eval()  # the smallest of all
        assert net(make_pictures(net, 1, (1, 1, 1)).to("meta")).shape == (1, 1)


def test_bottlenecks_stride_where_asked() -> None:
    for stride_on, strides in (("3x3", (1, 2)), ("1x1", (2, 1))):
        with torch.device("meta"):
            net: Any = ResNet((3, 224, 224), 10, depth=50, stride_on=stride_on)
        for stage in (net.layer2, net.layer3, net.layer4):
            first, second = stage[0], stage[1]
            assert (first.conv1.stride[0], first.conv2.stride[0]) == strides
            assert (second.conv1.stride[0], second.conv2.stride[0]) == (1, 1)
        assert net(torch.empty(1, 3, 224, 224, device="meta")).shape == (1, 10)


@pytest.mark.parametrize(("side", "stem"), [(32, "small"), (63, "small"), (64, "imagenet")])
def test_resnet_chooses_its_stem_by_size(side: int, stem: str) -> None:
    auto = on_meta(lambda: ResNet((3, side, side), 10))
    asked = on_meta(lambda: ResNet((3, 224, 224), 10, stem=stem))
    assert str(auto) == str(asked)


@pytest.mark.parametrize(("side", "head"), [(32, "small"), (127, "small"), (128, "imagenet")])
def test_vgg_chooses_its_head_by_size(side: int, head: str) -> None:
    auto = on_meta(lambda: VGG((3, side, side), 10))
    asked = on_meta(lambda: VGG((3, 224, 224), 10, head=head))
    assert str(auto) == str(asked)


def test_zero_init_last_starts_blocks_as_their_shortcuts() -> None:
    for depth, maps in ((18, 64), (50, 256)):
        x = torch.randn(2, maps, 8, 8).relu()
        for zero in (True, False):
            net: Any = ResNet((3, 28, 28), 10, depth=depth, zero_init_last=zero)
            block = net.layer1[1]  # its shortcut is the identity, and x >= 0
            assert torch.equal(block(x), x) is zero


# ---- initialisation ----


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


@pytest.mark.parametrize("name", ["vgg16", "vgg19", "googlenet"])
def test_deep_plain_nets_keep_their_signal_by_default(name: str) -> None:
    """Logits differ between pictures; with PyTorch's own weights they hardly do."""

    def spread_of_logits(*overrides: str) -> float:
        torch.manual_seed(0)
        net = compose_model(name, (1, 32, 32), *overrides).eval()
        with torch.no_grad():
            return net(torch.randn(8, 1, 32, 32)).std(dim=0).mean().item()

    assert 0.02 < spread_of_logits() < 5
    assert spread_of_logits("model.init=default") < 1e-3


# ---- single nets against their papers ----


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

"""The contract that every network keeps, over every YAML file, and its options."""

from __future__ import annotations

import io
import operator
from collections.abc import Callable
from typing import Any

import hydra
import pytest
import torch
from torch import Tensor, fx, nn

from models.alexnet import AlexNet
from models.cifar_net import CifarNet
from models.googlenet import GoogLeNet
from models.lenet import LeNet5, LeNetCaffe
from models.mlp import MLP
from models.resnet import ResNet
from models.torchvision_zoo import torchvision_classifier
from models.vgg import VGG
from tests.helpers.commands import ROOT

CONFIGS = ROOT / "configs"
NAMES = sorted(path.stem for path in (CONFIGS / "model").glob("*.yaml"))
OUR_NETS = [name for name in NAMES if name != "torchvision"]
# Deeper nets repeat the blocks of the others.
REPEATING = {"vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn",
             "resnet34", "resnet101", "resnet152"}  # fmt: skip
EACH_NAME = [
    pytest.param(name, marks=pytest.mark.slow) if name in REPEATING else name for name in NAMES
]


def compose_model(name: str, shape: tuple[int, int, int], *overrides: str) -> Any:
    """The net as the command line would build it, for 42 classes."""
    data = [f"data.shape=[{','.join(map(str, shape))}]", "data.num_classes=42"]
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = hydra.compose("config", overrides=[f"model={name}", *data, *overrides])
    return hydra.utils.instantiate(config.model)


def make_images(net: Any, num: int, shape: tuple[int, int, int]) -> Tensor:
    """(num, C, H, W) noise with the sides that the trainer would bring images to."""
    channels, height, width = shape
    return torch.randn(num, channels, max(height, net.min_size), max(width, net.min_size))


def on_meta(make: Callable[[], nn.Module]) -> Any:
    """The net without memory for its weights: enough to count them."""
    with torch.device("meta"):
        return make()


# ---- the contract, over every YAML file ----


def test_every_model_of_the_contract_has_a_file() -> None:
    small = ["mlp", "lenet5", "lenet_caffe", "cifar_net", "alexnet", "googlenet", "airbench",
             "quick_net", "torchvision"]  # fmt: skip
    vggs = [f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn")]
    resnets = [f"resnet{depth}" for depth in (18, 34, 50, 101, 152)]
    assert sorted(small + vggs + resnets) == NAMES
    assert len(NAMES) == 22


def check_contract(name: str, shape: tuple[int, int, int], *overrides: str) -> None:
    torch.manual_seed(0)
    net = compose_model(name, shape, *overrides)
    assert isinstance(net.min_size, int)

    net.train()
    outputs = net(make_images(net, 2, shape))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    assert len(outputs) == (3 if name == "googlenet" else 1)
    assert all(output.shape == (2, 42) for output in outputs)
    loss = sum(nn.functional.cross_entropy(output, torch.tensor([0, 41])) for output in outputs)
    assert isinstance(loss, Tensor)
    loss.backward()
    for key, parameter in net.named_parameters():
        if not parameter.requires_grad:
            continue
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key

    net.eval()
    image = make_images(net, 1, shape)
    with torch.no_grad():
        logits = net(image)
        assert logits.shape == (1, 42)
        file = io.BytesIO()
        torch.save(net.state_dict(), file)
        file.seek(0)
        twin = on_meta(lambda: compose_model(name, shape, *overrides))
        twin.load_state_dict(torch.load(file, weights_only=True), assign=True)
        assert torch.equal(twin.eval()(image), logits)


# The forms of the heavy nets that a quick test has time for; the slow one takes the defaults.
QUICK_FORMS = {
    "alexnet": "model.variant=paper_half",
    "resnet50": "model.stem=imagenet",
    "resnet101": "model.stem=imagenet",
    "resnet152": "model.stem=imagenet",
}


@pytest.mark.parametrize("name", EACH_NAME)
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
@pytest.mark.parametrize("name", EACH_NAME)
@pytest.mark.parametrize(("channels", "side"), [(3, 28), (1, 32), (3, 64), (1, 96), (3, 224)])
def test_contract_at_every_size(name: str, channels: int, side: int) -> None:
    check_contract(name, (channels, side, side))


@pytest.mark.slow
@pytest.mark.parametrize("name", EACH_NAME)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [28, 32, 64, 96, 224])
def test_shapes_fit_at_every_size(name: str, channels: int, side: int) -> None:
    shape = (channels, side, side)
    net = on_meta(lambda: compose_model(name, shape))
    assert net.eval()(make_images(net, 1, shape).to("meta")).shape == (1, 42)
    outputs = net.train()(make_images(net, 2, shape).to("meta"))
    logits = outputs[0] if isinstance(outputs, tuple) else outputs
    assert logits.shape == (2, 42)


@pytest.mark.parametrize("name", OUR_NETS)
def test_images_need_not_be_square(name: str) -> None:
    shape = (3, 28, 70)
    net = on_meta(lambda: compose_model(name, shape)).eval()
    images = make_images(net, 2, shape).to("meta")
    assert net(images).shape == (2, 42)


@pytest.mark.parametrize("name", OUR_NETS)
def test_layers_can_be_exchanged_one_by_one(name: str) -> None:
    """Between layers stand only sums, concatenations and factors, and no layer is used twice."""
    net = on_meta(lambda: compose_model(name, (3, 32, 32)))
    nodes = list(fx.symbolic_trace(net).graph.nodes)
    functions = {node.target for node in nodes if node.op in ("call_function", "call_method")}
    assert functions <= {operator.add, operator.mul, torch.cat}
    used = [node.target for node in nodes if node.op == "call_module"]
    leaves = [key for key, module in net.named_modules() if not list(module.children())]
    assert sorted(used) == sorted(leaves)


# ---- options ----

BAD_OPTIONS: list[tuple[Callable[..., nn.Module], str, Any, Any]] = [
    (MLP, "activation", "gelu", "sigmoid"),
    (MLP, "dropout", 1.0, 0.5),
    (MLP, "dropout", -0.1, 0),
    (MLP, "hidden", [128, 0], [128, 1]),
    (MLP, "hidden", 128, [128]),
    (MLP, "hidden", [True], []),
    (MLP, "init", "he", "kaiming"),
    (LeNet5, "activation", "Tanh", "tanh"),
    (LeNet5, "init", None, "default"),
    (LeNetCaffe, "activation", "swish", "leaky_relu"),
    (CifarNet, "init", "zeros", "normal"),
    (AlexNet, "variant", "caffe", "paper_half"),
    (AlexNet, "variant", ["paper"], "paper"),
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
    (ResNet, "zero_init_last", "yes", False),
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
        for shape in [None, (28, 28), (0, 28, 28), (1, 28, -1), (1, 28, 28.5)]:
            with pytest.raises(ValueError, match=r"data\.shape="):
                make(shape, 10)
        for num_classes in [0, -1, None, 2.5]:
            with pytest.raises(ValueError, match=r"data\.num_classes="):
                make((1, 28, 28), num_classes)
        net = make((1, 1, 1), 1).eval()  # the smallest of all
        assert net(make_images(net, 1, (1, 1, 1)).to("meta")).shape == (1, 1)


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

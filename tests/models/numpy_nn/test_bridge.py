"""The bridge: torch's networks on the layers written in NumPy, one layer at a time."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from models.mlp import MLP
from models.numpy_nn.bridge import TWINS, convert
from trainer import losses
from trainer.builders.numpy_losses import PAIRS, convert_loss

# (layer, input shape): every kind of leaf, with options beside the defaults.
LAYERS: list[tuple[Callable[[], nn.Module], tuple[int, ...]]] = [
    (lambda: nn.Conv2d(3, 4, 3), (2, 3, 7, 6)),
    (lambda: nn.Conv2d(4, 6, (3, 2), (2, 1), (1, 2), (1, 2), groups=2, bias=False), (2, 4, 7, 6)),
    (lambda: nn.Linear(5, 3), (4, 5)),
    (lambda: nn.Linear(5, 3, bias=False), (2, 4, 5)),
    (lambda: nn.BatchNorm2d(3), (4, 3, 5, 5)),
    (lambda: nn.BatchNorm2d(3, eps=1e-3, momentum=None), (4, 3, 5, 5)),
    (lambda: nn.BatchNorm2d(3, affine=False), (4, 3, 5, 5)),
    (lambda: nn.BatchNorm2d(3, track_running_stats=False), (4, 3, 5, 5)),
    (lambda: nn.Dropout(0.3), (40, 50)),
    (lambda: nn.Dropout(0.3, inplace=True), (2, 3, 5, 5)),
    (lambda: nn.Dropout(0.0), (40, 50)),
    (lambda: nn.Dropout(1.0), (40, 50)),
    (lambda: nn.MaxPool2d(3, 2, 1), (2, 3, 7, 6)),
    (lambda: nn.MaxPool2d(3, 2, ceil_mode=True), (2, 3, 2, 2)),  # a window beyond the image
    (lambda: nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False), (2, 3, 8, 6)),
    (lambda: nn.AdaptiveAvgPool2d((3, 2)), (2, 3, 7, 5)),
    (lambda: nn.LocalResponseNorm(4, 1e-1, 0.6, 1.5), (2, 7, 3, 3)),
    (lambda: nn.ReLU(inplace=True), (2, 3, 4, 4)),
    (lambda: nn.LeakyReLU(0.2), (2, 3, 4, 4)),
    (lambda: nn.Tanh(), (2, 3)),
    (lambda: nn.Sigmoid(), (2, 3)),
    (lambda: nn.Softmax(dim=1), (2, 3, 4)),
]


def run(layer: nn.Module, x: Tensor) -> list[Tensor]:
    """Output, gradients of input and parameters, and buffers after a step with its dropout."""
    torch.manual_seed(1)
    x = x.detach().requires_grad_()
    out = layer(x.clone(memory_format=torch.preserve_format))  # as in place needs no leaf
    weights = torch.randn(out.shape, dtype=out.dtype, generator=torch.Generator().manual_seed(2))
    (out * weights).sum().backward()
    grads = [p.grad for p in (x, *layer.parameters())]
    return [out.detach(), *grads, *layer.buffers()]  # type: ignore[list-item]


def in_memory_order(x: Tensor, order: str) -> Tensor:
    if order == "transposed" or x.ndim != 4:
        return x.transpose(0, -1).contiguous().transpose(0, -1) if order != "contiguous" else x
    return x.to(memory_format=getattr(torch, f"{order}_format", torch.channels_last))


@pytest.mark.parametrize("order", ["contiguous", "channels_last", "transposed"])
@pytest.mark.parametrize(("make", "shape"), LAYERS)
def test_each_leaf_computes_as_torch_does(
    make: Callable[[], nn.Module], shape: tuple[int, ...], order: str
) -> None:
    torch.manual_seed(0)
    layer = make().double()
    twin = convert(copy.deepcopy(layer))
    assert type(twin) is TWINS[type(layer)]
    for mode in (True, False):
        for _ in range(2):
            x = in_memory_order(torch.randn(shape, dtype=torch.float64), order)
            # Torch's mask follows the order in memory; the twin's is that of a contiguous input.
            theirs = x.contiguous() if isinstance(layer, nn.Dropout) else x
            found, expected = run(twin.train(mode), x), run(layer.train(mode), theirs)
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
            layer.zero_grad()
            twin.zero_grad()


def test_every_twin_is_tried() -> None:
    assert {type(make()) for make, _ in LAYERS} == set(TWINS)


REFUSED = [
    (nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"), "padding_mode='reflect'"),
    (nn.Conv2d(1, 1, 3, padding="same"), "padding='same'"),
    (nn.MaxPool2d(2, return_indices=True), "return_indices=True"),
    (nn.AvgPool2d(2, divisor_override=3), "divisor_override=3"),
    (nn.AdaptiveAvgPool2d((None, 2)), r"output_size=\(None, 2\)"),
    (nn.Softmax(), "dim=None"),
    (nn.GELU(), "GELU"),
    (nn.BatchNorm1d(3), "BatchNorm1d"),
]


@pytest.mark.parametrize(("leaf", "said"), REFUSED)
def test_a_leaf_without_a_twin_is_named_and_nothing_is_changed(leaf: nn.Module, said: str) -> None:
    model = nn.Sequential(nn.ReLU(), nn.Sequential(nn.Linear(3, 3), leaf))
    before = list(model.modules())
    with pytest.raises(ValueError, match=rf"1\.1 is .*{type(leaf).__name__}.*{said}|{said}"):
        convert(model)
    assert list(model.modules()) == before


class Relu(nn.Module):
    """Computes by itself, beside its layer."""

    def __init__(self, call: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.fc, self.call = nn.Linear(3, 3), call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(self.fc(x))


def test_what_a_network_computes_between_its_layers_is_no_silent_exception() -> None:
    for call in (
        torch.relu,
        nn.functional.relu,
        lambda x: x.relu(),
        lambda x: x * 2,
        lambda x: x @ x,
    ):
        with pytest.raises(ValueError, match="between its layers"):
            convert(Relu(call))
    for call in (torch.flatten, lambda x: x + x, lambda x: torch.cat([x, x]), lambda x: x.view(9)):
        convert(Relu(call))


def test_a_change_in_place_of_what_the_backward_needs_is_an_error() -> None:
    x = torch.ones(2, 3, requires_grad=True)
    relu, pool = convert(nn.ReLU()), convert(nn.AdaptiveAvgPool2d(1))
    out = relu(x)
    out += 1  # the backward looks where it is positive
    with pytest.raises(RuntimeError, match="inplace operation"):
        out.sum().backward()
    image = torch.ones(1, 1, 2, 2, requires_grad=True)
    out = pool(image)
    out += 1  # of its backward no business
    out.sum().backward()
    torch.testing.assert_close(image.grad, torch.full((1, 1, 2, 2), 0.25))


def test_parameters_stay_the_same_objects() -> None:
    net = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(inplace=True), MLP((2, 2, 2), 3)
    )
    before = dict(net.state_dict(keep_vars=True))
    assert convert(net) is net
    after = net.state_dict(keep_vars=True)
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before)
    assert net[2].inplace is False


def test_twins_can_be_copied_cast_and_loaded() -> None:
    net = convert(MLP((1, 4, 4), 3, activation="tanh"))
    x = torch.randn(2, 1, 4, 4)
    wide, other = copy.deepcopy(net).double(), convert(MLP((1, 4, 4), 3, activation="tanh"))
    torch.testing.assert_close(wide(x.double()), net(x).double(), rtol=1e-5, atol=1e-6)
    other.load_state_dict(net.state_dict())
    assert torch.equal(other(x), net(x))
    before = net(x)
    with torch.no_grad():
        for p in wide.parameters():
            p.zero_()
    assert torch.equal(net(x), before)
    assert not wide(x.double()).any()


# ---- Winograd ----


@pytest.fixture
def transforms(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What `winograd_weight` was called with."""
    from models.numpy_nn import bridge

    seen: list[Any] = []
    real = bridge.winograd_weight
    monkeypatch.setattr(bridge, "winograd_weight", lambda w: (seen.append(w), real(w))[1])
    return seen


def test_winograd_transforms_weights_once_until_they_change(transforms: list[Any]) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(16, 17, 3, padding=1).double().eval()
    twin: Any = convert(copy.deepcopy(layer))
    x = torch.randn(2, 16, 9, 7, dtype=torch.float64)

    def agree(number: int) -> None:
        with torch.inference_mode():
            torch.testing.assert_close(twin(x), layer(x), rtol=1e-10, atol=1e-10)
            twin(x)
        assert len(transforms) == number

    twin(x)  # with a gradient to come, or in training, it is the other way
    with torch.no_grad():
        twin.train()(x)
    assert not transforms
    twin.eval()
    agree(1)
    agree(1)
    fused = torch.optim.Adam(twin.parameters(), fused=True)
    twin(x).sum().backward()
    fused.step()
    layer.load_state_dict(twin.state_dict())
    agree(2)
    twin.load_state_dict({name: value * 2 for name, value in layer.state_dict().items()})
    layer.load_state_dict(twin.state_dict())
    agree(3)
    twin, layer = copy.deepcopy(twin).float().double(), layer.float().double()
    agree(4)
    narrow: Any = convert(nn.Conv2d(3, 16, 3).eval())
    with torch.no_grad():
        narrow(torch.zeros(1, 3, 5, 5))
    assert len(transforms) == 4


# ---- losses ----

LOSSES = [
    losses.CrossEntropy(), losses.CrossEntropy(0.1), losses.MSE(), losses.MSE("logits", 0.2),
    losses.L1(), losses.L1("logits", 0.2), losses.BCE(), losses.BCE(0.1),
    losses.Focal(), losses.Focal(1.5, 0.1),
]  # fmt: skip


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_heads", [0, 3])
def test_losses(loss: nn.Module, dtype: torch.dtype, num_heads: int) -> None:
    generator = torch.Generator().manual_seed(0)
    heads = [torch.randn(5, 4, generator=generator, dtype=dtype) for _ in range(num_heads or 1)]
    indices = torch.randint(4, (5,), generator=generator)
    soft = torch.rand(5, 4, generator=generator, dtype=dtype).softmax(1)
    for target in (indices, soft):
        found = []
        for form in (convert_loss(loss), loss):
            logits = [head.clone().requires_grad_() for head in heads]
            value = form(tuple(logits) if num_heads else logits[0], target)
            value.backward()
            found.append([value.detach(), *(z.grad for z in logits)])
        tolerance = 1e-10 if dtype == torch.float64 else 1e-5
        torch.testing.assert_close(*found, rtol=tolerance, atol=tolerance)


def test_a_loss_without_a_numpy_form_is_named() -> None:
    assert {type(loss) for loss in LOSSES} == set(PAIRS)
    with pytest.raises(ValueError, match="HuberLoss"):
        convert_loss(nn.HuberLoss())


# ---- what is left to torch ----


class Watch(TorchDispatchMode):
    """Records the name of every aten operation."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


VIEWS = {"view", "_unsafe_view", "reshape", "alias", "detach", "slice", "narrow", "as_strided"}
LAYOUT = {"clone", "copy_", "contiguous", "new_empty_strided", "empty_strided", "empty_like"}
LAYOUT |= {"lift_fresh"}  # a tensor around memory that is there, as from_numpy makes it
BETWEEN = {"add", "cat"}
AUTOGRAD = {
    "add_",
    "ones_like",
    "fill_",
}  # sums of gradients, and the 1 that a backward starts from
DROPOUT = {"zeros", "bernoulli_"}  # the mask, of the step's generator
COUNT = {"add_"}  # num_batches_tracked
ALLOWED = VIEWS | LAYOUT | BETWEEN | AUTOGRAD | DROPOUT | COUNT


def watched(model: nn.Module, loss: nn.Module, x: Tensor, target: Tensor) -> set[str]:
    """All that torch does in forward, loss and backward of a step, and in evaluation."""
    with Watch() as watch:
        loss(model.train()(x), target).backward()
        with torch.no_grad():
            loss(model.eval()(x), target)
    return watch.names

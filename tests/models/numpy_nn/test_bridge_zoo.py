"""Every network of the zoo: a training step on either kind of layers, and what is left to torch."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from models.numpy_nn.bridge import KEPT, TWINS, convert
from tests.models.numpy_nn.test_bridge import ALLOWED, LOSSES, watched
from tests.models.test_contract import NAMES, REPEATING, compose_model, make_images
from trainer import losses
from trainer.builders.numpy_losses import convert_loss

# Of those that repeat the blocks of others, the deepest of either family.
REPEATED = REPEATING - {"resnet152", "vgg19_bn"}
# Its GELU has no NumPy form: error function, which NumPy lacks.
REFUSED = {"airbench"}
NETS = [name for name in NAMES if name not in {"torchvision", *REPEATED, *REFUSED}]
SHAPE = (1, 28, 28)
SLOW = dict.fromkeys(("alexnet", "resnet50", "resnet152", "vgg19_bn"), pytest.mark.slow)
# Smaller forms of the heavy ones; the default forms of the rest.
FORMS = {
    "mlp": ["model.dropout=0.5"],
    "resnet18": ["model.stem=imagenet"],
    "resnet50": ["model.stem=imagenet"],
    "resnet152": ["model.stem=imagenet"],
}
CASES = [
    *(pytest.param(name, FORMS.get(name, []), marks=SLOW.get(name, ())) for name in NETS),
    pytest.param("alexnet", ["model.variant=paper_half"]),
    pytest.param("vgg11", ["model.head=imagenet"], marks=pytest.mark.slow),
    pytest.param("googlenet", ["model.batch_norm=true", "model.branch5x5=3"]),
    pytest.param("resnet50", ["model.stride_on=1x1"], marks=pytest.mark.slow),
]


def test_all_files_are_among_the_cases() -> None:
    assert len({*NETS, *REPEATED, *REFUSED}) == 21
    assert {case.values[0] for case in CASES} == set(NETS)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_layer_without_numpy_form_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=r"gelu is torch\.nn\.modules\.activation\.GELU"):
        convert(make_net(name, []))


def make_net(name: str, forms: list[str]) -> nn.Module:
    torch.manual_seed(0)
    net: nn.Module = compose_model(name, SHAPE, *forms)
    return net.double()


def step(model: nn.Module, loss: nn.Module, x: torch.Tensor) -> tuple[float, dict[str, Any]]:
    """A step with its dropout: the loss and all gradients."""
    torch.manual_seed(1)
    value = loss(model.train()(x), torch.tensor([0, 41]))
    value.backward()
    return value.item(), {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize(("name", "forms"), CASES)
def test_one_step_equals_torchs(name: str, forms: list[str]) -> None:
    theirs = make_net(name, forms)
    ours = convert(copy.deepcopy(theirs))
    leaves = [m for m in ours.modules() if not list(m.children())]
    assert all(type(leaf) in TWINS.values() or isinstance(leaf, KEPT) for leaf in leaves)
    x = make_images(theirs, 2, SHAPE).double()
    loss = losses.CrossEntropy(label_smoothing=0.1)
    expected, gradients = step(theirs, loss, x)
    found, by_hand = step(ours, convert_loss(loss), x)
    assert found == pytest.approx(expected, rel=1e-10)
    largest = max(float(g.abs().max()) for g in gradients.values())
    assert largest > 0
    for key, gradient in gradients.items():
        assert float((by_hand[key] - gradient).abs().max()) <= 1e-8 * largest, key
    for key, buffer in theirs.named_buffers():  # running statistics
        torch.testing.assert_close(ours.get_buffer(key), buffer, rtol=1e-10, atol=1e-12)
    with torch.inference_mode():
        logits = theirs.eval()(x)
        bound = 1e-10 * float(logits.abs().max())
        torch.testing.assert_close(ours.eval()(x), logits, rtol=0, atol=bound)


@pytest.mark.parametrize(
    "name", ["mlp", "lenet5", "lenet_caffe", "googlenet", "resnet18", "vgg11_bn"]
)
def test_torch_only_reshapes_adds_and_concatenates(name: str) -> None:
    net = make_net(name, FORMS.get(name, []))
    x, target = make_images(net, 2, SHAPE).double(), torch.tensor([0, 41])
    for loss in LOSSES if name == "mlp" else LOSSES[:1]:
        twin = convert(copy.deepcopy(net))
        assert watched(twin, convert_loss(loss), x, target) <= ALLOWED
    twin = copy.deepcopy(net)
    assert {"addmm", "_log_softmax"} <= watched(twin, losses.CrossEntropy(), x, target) - ALLOWED

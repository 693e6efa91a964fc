"""The network of airbench: its whitening, its beginning as the identity, its views."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import v2

from models.airbench import AirBench, Stage


def smooth_images(number: int, channels: int = 3) -> Tensor:
    """Neighbouring pixels and channels agree, as in photographs."""
    torch.manual_seed(0)
    coarse = torch.randn(number, channels, 8, 8) + torch.randn(number, 1, 8, 8)
    return F.interpolate(coarse, size=(32, 32), mode="bilinear")


@pytest.mark.parametrize("channels", [1, 3])
def test_the_first_layer_whitens_the_patches(channels: int) -> None:
    images = smooth_images(200, channels)
    net = AirBench((channels, 32, 32), 10)
    net.start_from(images)
    filters = 4 * channels
    outputs = net.first(images).detach()
    values = outputs[:, :filters].transpose(0, 1).flatten(1).double().numpy()
    about_zero = values @ values.T / values.shape[1]
    # Directions of hardly any variance are damped, by eps; by numpy's own singular values:
    windows = np.lib.stride_tricks.sliding_window_view(images.double().numpy(), (2, 2), axis=(2, 3))
    patches = windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, filters)
    variances = np.linalg.svd(patches, compute_uv=False)[::-1] ** 2 / len(patches)
    np.testing.assert_allclose(about_zero, np.diag(variances / (variances + 5e-4)), atol=1e-4)
    assert torch.equal(outputs[:, filters:], -outputs[:, :filters])
    assert not net.first.weight.requires_grad
    assert net.first.bias is not None
    assert net.first.bias.requires_grad


def test_without_whitening_the_first_layer_is_trained_and_left_as_it_is() -> None:
    net = AirBench((1, 28, 28), 10, whitening=False)
    before = net.first.weight.clone()
    net.start_from(smooth_images(5, 1))
    assert torch.equal(net.first.weight, before)
    assert net.first.weight.requires_grad


def test_the_first_maps_begin_as_the_identity() -> None:
    stage = AirBench((3, 32, 32), 10).stage2
    images = torch.randn(2, 64, 15, 15)
    assert torch.equal(stage.conv1(images)[:, :64], images)
    assert not torch.allclose(stage.conv1(images)[:, 64:128], images)
    random = AirBench((3, 32, 32), 10, identity=False).stage2
    assert not torch.allclose(random.conv1(images)[:, :64], images)


def test_sizes_are_those_of_the_paper() -> None:
    """The paper's figure 2: 24 whitening maps, then 64, 256 and 256, at 31, 15, 7 and 3 pixels."""
    net = AirBench((3, 32, 32), 10).eval()
    sizes = []
    for layer in (net.first, net.stage1, net.stage2, net.stage3, net.pool, net.head):
        layer.register_forward_hook(lambda _, __, output: sizes.append(tuple(output.shape)))
    net(torch.randn(1, 3, 32, 32))
    assert sizes == [(1, 24, 31, 31), (1, 64, 15, 15), (1, 256, 7, 7), (1, 256, 3, 3),
                     (1, 256, 1, 1), (1, 10)]  # fmt: skip
    maps = [24, 64, 256, 256]
    convolutions = sum(9 * (a * b + b * b) for a, b in pairwise(maps))
    biases = 24 + 2 * (64 + 256 + 256)
    trained = sum(p.numel() for p in net.parameters() if p.requires_grad)
    assert trained == convolutions + biases + 256 * 10
    stages = [module for module in net.modules() if isinstance(module, Stage)]
    assert all(stage.norm1.momentum == 0.4 for stage in stages)


@pytest.mark.parametrize("views", ["mirror", "shifts"])
def test_views_average_the_logits_in_evaluation_alone(views: str) -> None:
    net = AirBench((1, 28, 28), 10, widths=(4, 8, 8), views=views)
    one = AirBench((1, 28, 28), 10, widths=(4, 8, 8))
    one.load_state_dict(net.state_dict())
    images = torch.randn(5, 1, 28, 28)
    mirror = v2.RandomHorizontalFlip(p=1.0)
    assert torch.equal(net.train()(images), one.train()(images))
    net.load_state_dict(one.state_dict())
    net.eval(), one.eval()

    def both(shown: Tensor) -> Tensor:
        return (one(shown) + one(mirror(shown))) / 2

    expected = both(images)
    if views == "shifts":
        padded = v2.Pad(1, padding_mode="reflect")(images)
        corners = [both(v2.functional.crop(padded, top, top, 28, 28)) for top in (0, 2)]
        expected = expected / 2 + sum(corners) / 4
    torch.testing.assert_close(net(images), expected)


@pytest.mark.parametrize(
    ("key", "value"), [("widths", (64, 256)), ("widths", (0, 1, 1)), ("views", "both")]
)
def test_wrong_options_are_named(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"model\.{key}="):
        AirBench((3, 32, 32), 10, **{key: value})  # type: ignore[arg-type]


def test_it_learns_at_once_what_is_easy() -> None:
    """Eight classes by their brightness, twenty steps."""
    torch.manual_seed(0)
    net: nn.Module = AirBench((1, 16, 16), 2, widths=(4, 8, 8))
    labels = torch.arange(64) % 2
    images = torch.randn(64, 1, 16, 16) + 2 * labels.view(-1, 1, 1, 1)
    optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr=0.02)
    for _ in range(20):
        optimizer.zero_grad()
        F.cross_entropy(net(images), labels).backward()
        optimizer.step()
    assert (net.eval()(images).argmax(1) == labels).float().mean() > 0.9

"""Multiply-adds and parameters as torchvision publishes them with its weights."""

from __future__ import annotations

import pytest
import torch
from torchvision.models import get_model_weights

from models.torchvision_zoo import torchvision_classifier
from trainer.builders.networks import measure_cost


@pytest.mark.parametrize(
    "name",
    [
        "alexnet",
        "resnet18",
        "mobilenet_v3_small",
        pytest.param("vit_b_32", marks=pytest.mark.slow),
        pytest.param("vgg11", marks=pytest.mark.slow),
    ],
)
def test_costs_are_torchvisions(name: str) -> None:
    published = next(iter(get_model_weights(name))).meta
    before = torch.backends.mha.get_fastpath_enabled()
    cost = measure_cost(torchvision_classifier((3, 224, 224), 1000, name), (3, 224, 224))
    assert cost.num_parameters == published["num_params"]
    assert cost.macs / 1e9 == pytest.approx(published["_ops"], rel=0.01)
    assert torch.backends.mha.get_fastpath_enabled() is before

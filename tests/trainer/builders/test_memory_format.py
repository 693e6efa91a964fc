"""Order in memory of images and weights: channels last, where torch can."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models.resnet import ResNet
from tests.helpers.commands import run_trainer
from trainer.builders import networks
from trainer.errors import UserError


@pytest.mark.parametrize("width", [4, 8])
def test_an_order_in_memory_that_torch_fails_at_is_not_taken(width: int) -> None:
    """Its backward corrupts the memory of the process; with eight channels it does not."""
    model = ResNet([1, 28, 28], 2, width=width)
    for layers in ("torch", "numpy"):
        config = {"channels_last": "auto", "layers": layers}
        wanted = width == 8 and layers == "torch"
        taken = networks.memory_format(config, model)
        assert taken == (torch.channels_last if wanted else torch.contiguous_format)
    config = {"channels_last": True, "layers": "torch"}
    if width == 8:
        assert networks.memory_format(config, model) == torch.channels_last
        return
    with pytest.raises(UserError, match=r"channels_last=true: .*layer2\.0\.downsample\.0"):
        networks.memory_format(config, model)


def test_asked_for_it_is_refused_before_a_run_is_made(tmp_path: Path) -> None:
    done = run_trainer(
        "data=synthetic", "model=resnet18", "model.width=4", "channels_last=true",
        "hydra.run.dir=run", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2, done.output
    assert done.output.startswith("channels_last=true: ")
    assert not (tmp_path / "run").exists()

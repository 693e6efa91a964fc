"""A small network with batch norm and dropout in a module of one's own, and a tiny training."""

from __future__ import annotations

from pathlib import Path

# Three epochs of three steps; the last batch is smaller.
TINY = ["data=synthetic", "data.num_train=56", "data.val_size=0.25", "data.num_test=20",
        "data.shape=[3,8,8]", "data.num_classes=4", "batch_size=16", "epochs=3",
        "tensorboard=false", "num_threads=1"]  # fmt: skip
NORM_NET = ["model._target_=norm_net.Net", "~model.hidden", "~model.activation",
            "~model.dropout", "~model.init"]  # fmt: skip
SOURCE = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self, shape, num_classes):
        super().__init__(
            nn.Conv2d(shape[0], 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(),
            nn.Dropout(0.2), nn.Linear(54, num_classes),
        )
"""


def write(folder: Path) -> list[str]:
    """Words of a training of the network, whose module is written into the folder."""
    (folder / "norm_net.py").write_text(SOURCE)
    return [*TINY, *NORM_NET]

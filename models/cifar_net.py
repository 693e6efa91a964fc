"""The small network of PyTorch's tutorial "Training a classifier": LeNet-5 in today's dress.

Six and sixteen 5x5 filters, then 120 and 84 units, as in LeCun et al. 1998 (`models/lenet.py`), but
with ReLU and max pooling, and without activations after the pooling.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from models.init import Init, check_data, initialise


class CifarNet(nn.Module):
    """62,006 parameters on CIFAR-10; on larger images only the first linear layer grows.

    Args:
        shape: (C, H, W) of an image; a side below 28 is brought to 28 before the network sees it.
        num_classes: number of logits.
        init: see `initialise`.
    """

    min_size = 28

    def __init__(self, shape: Sequence[int], num_classes: int, init: Init = "default") -> None:
        super().__init__()
        channels, *sides = check_data(shape, num_classes)
        # Each 5x5 window takes 4 off a side, each pooling halves it.
        height, width = (((max(side, self.min_size) - 4) // 2 - 4) // 2 for side in sides)

        self.conv1 = nn.Conv2d(channels, 6, 5)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.relu2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d(2)
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(16 * height * width, 120)
        self.relu3 = nn.ReLU()
        self.fc2 = nn.Linear(120, 84)
        self.relu4 = nn.ReLU()
        self.fc3 = nn.Linear(84, num_classes)
        initialise(self, init, self.fc3)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) float -> (N, num_classes) logits; the trail is for 32 px."""
        x = self.relu1(self.conv1(x))  # (N, 6, 28, 28)
        x = self.pool1(x)  # (N, 6, 14, 14)
        x = self.relu2(self.conv2(x))  # (N, 16, 10, 10)
        x = self.pool2(x)  # (N, 16, 5, 5)
        x = self.relu3(self.fc1(self.flatten(x)))  # (N, 120)
        x = self.relu4(self.fc2(x))  # (N, 84)
        return self.fc3(x)  # (N, num_classes)

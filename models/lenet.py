"""LeNet, twice: the network of the paper, and the one that Caffe made popular.

LeCun, Bottou, Bengio and Haffner 1998, "Gradient-based learning applied to document recognition",
section II.B and figure 2.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from models.init import Activation, Init, check_data, initialise, make_activation


class LeNet5(nn.Module):
    """LeNet-5: 61,706 parameters on 28 or 32 px images with one channel and ten classes.

    The paper puts the 28 px digits into 32 px images, so that strokes near the border come to lie
    in the middle of some window; here the first convolution pads by 2 for sides below 32, which is
    the same. On larger images C5 still sees the whole of S4, and only its width grows.

    Departures from the paper, all usual today: C3 sees all six maps of S2 (table I leaves some
    out), the subsampling layers have no weights of their own, tanh is not scaled to
    1.7159 tanh(2x/3), and the output is linear, for the loss to judge, not Euclidean RBF units.

    Args:
        shape: (C, H, W) of an image; a side below 28 is brought to 28 before the network sees it.
        num_classes: number of logits.
        activation: stands after every layer up to F6, the subsampling ones included; the paper's is
            tanh.
        init: see `initialise`.
    """

    min_size = 28

    def __init__(
        self,
        shape: Sequence[int],
        num_classes: int,
        activation: Activation = "tanh",
        init: Init = "default",
    ) -> None:
        super().__init__()
        channels, *sides = check_data(shape, num_classes)
        sides = [max(side, self.min_size) for side in sides]
        padding = [2 if side < 32 else 0 for side in sides]
        # Each 5x5 window takes 4 off a side, each subsampling halves it.
        height, width = (
            ((side + 2 * pad - 4) // 2 - 4) // 2 for side, pad in zip(sides, padding, strict=True)
        )

        self.c1 = nn.Conv2d(channels, 6, 5, padding=(padding[0], padding[1]))
        self.act1 = make_activation(activation)
        self.s2 = nn.AvgPool2d(2)
        self.act2 = make_activation(activation)
        self.c3 = nn.Conv2d(6, 16, 5)
        self.act3 = make_activation(activation)
        self.s4 = nn.AvgPool2d(2)
        self.act4 = make_activation(activation)
        self.flatten = nn.Flatten()
        self.c5 = nn.Linear(16 * height * width, 120)
        self.act5 = make_activation(activation)
        self.f6 = nn.Linear(120, 84)
        self.act6 = make_activation(activation)
        self.output = nn.Linear(84, num_classes)
        initialise(self, init, self.output)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) float -> (N, num_classes) logits; the trail is for 28 or 32 px."""
        x = self.act1(self.c1(x))  # (N, 6, 28, 28)
        x = self.act2(self.s2(x))  # (N, 6, 14, 14)
        x = self.act3(self.c3(x))  # (N, 16, 10, 10)
        x = self.act4(self.s4(x))  # (N, 16, 5, 5)
        x = self.act5(self.c5(self.flatten(x)))  # (N, 120)
        x = self.act6(self.f6(x))  # (N, 84)
        return self.output(x)  # (N, num_classes)


class LeNetCaffe(nn.Module):
    """The LeNet of Caffe's MNIST example: 431,080 parameters on MNIST.

    Wider than LeNet-5, with max pooling and a single activation, after the hidden linear layer: the
    convolutions have none but the pooling. On larger images only the linear layer's input grows.

    Args:
        shape: (C, H, W) of an image; a side below 28 is brought to 28 before the network sees it.
        num_classes: number of logits.
        activation: of the hidden linear layer; Caffe's is relu.
        init: see `initialise`; Caffe's is xavier.
    """

    min_size = 28

    def __init__(
        self,
        shape: Sequence[int],
        num_classes: int,
        activation: Activation = "relu",
        init: Init = "default",
    ) -> None:
        super().__init__()
        channels, *sides = check_data(shape, num_classes)
        # Each 5x5 window takes 4 off a side, each pooling halves it.
        height, width = (((max(side, self.min_size) - 4) // 2 - 4) // 2 for side in sides)

        self.conv1 = nn.Conv2d(channels, 20, 5)
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.pool2 = nn.MaxPool2d(2)
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(50 * height * width, 500)
        self.act1 = make_activation(activation)
        self.fc2 = nn.Linear(500, num_classes)
        initialise(self, init, self.fc2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) float -> (N, num_classes) logits; the trail is for 28 px."""
        x = self.conv1(x)  # (N, 20, 24, 24)
        x = self.pool1(x)  # (N, 20, 12, 12)
        x = self.conv2(x)  # (N, 50, 8, 8)
        x = self.pool2(x)  # (N, 50, 4, 4)
        x = self.act1(self.fc1(self.flatten(x)))  # (N, 500)
        return self.fc2(x)  # (N, num_classes)

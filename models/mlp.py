"""The multilayer perceptron.

Rumelhart, Hinton and Williams 1986, "Learning representations by back-propagating errors". Its
sigmoid units are ReLUs here by default, and the sizes are the usual ones for MNIST.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, get_args

from torch import Tensor, nn

from models.init import (
    Activation,
    Dropout,
    Init,
    check_data,
    check_dropout,
    check_options,
    initialise,
    is_count,
    make_activation,
)

Widths = Annotated[Sequence[int], "a list, each a whole number at least 1"]


class MLP(nn.Module):
    """Linear layers with an activation between them: 784-128-64-10 on MNIST.

    Args:
        shape: (C, H, W) of an image.
        num_classes: number of logits.
        hidden: width of each hidden layer; none at all makes it a linear classifier.
        activation: of each hidden layer.
        dropout: probability of dropping a hidden unit in training; 0 = off.
        init: see `initialise`.
    """

    min_size = 1

    def __init__(
        self,
        shape: Sequence[int],
        num_classes: int,
        hidden: Widths = (128, 64),
        activation: Activation = "relu",
        dropout: Dropout = 0.0,
        init: Init = "default",
    ) -> None:
        super().__init__()
        channels, height, width = check_data(shape, num_classes)
        check_dropout(dropout)
        check_options(self, activation=activation)
        if not isinstance(hidden, Sequence) or not all(map(is_count, hidden)):
            raise ValueError(f"model.hidden={hidden}: must be {get_args(Widths)[1]}, as [128,64]")

        self.flatten = nn.Flatten()
        self.hidden = nn.Sequential()
        size = channels * height * width
        for next_size in hidden:
            self.hidden.extend([nn.Linear(size, next_size), make_activation(activation)])
            if dropout > 0:
                self.hidden.append(nn.Dropout(dropout))
            size = next_size
        self.fc = nn.Linear(size, num_classes)
        initialise(self, init, self.fc)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) float -> (N, num_classes) logits."""
        x = self.flatten(x)  # (N, C * H * W)
        x = self.hidden(x)  # (N, hidden[-1])
        return self.fc(x)  # (N, num_classes)

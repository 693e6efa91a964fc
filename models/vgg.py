"""VGG.

Simonyan and Zisserman 2015, "Very deep convolutional networks for large-scale image recognition"
(arXiv 1409.1556), table 1; batch norm after Ioffe and Szegedy 2015 (arXiv 1502.03167).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from torch import Tensor, nn

from models.init import (
    Dropout,
    Init,
    Width,
    check_data,
    check_dropout,
    check_options,
    check_width,
    initialise,
)

# Table 1: maps of the 3x3 convolutions of the five stages; a 2x2 max pooling ends each stage.
STAGES: dict[int, tuple[tuple[int, ...], ...]] = {
    11: ((64,), (128,), (256,) * 2, (512,) * 2, (512,) * 2),  # A
    13: ((64,) * 2, (128,) * 2, (256,) * 2, (512,) * 2, (512,) * 2),  # B
    16: ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3),  # D
    19: ((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4),  # E
}


class VGG(nn.Module):
    """Stacks of 3x3 convolutions: two see 5x5 pixels, three 7x7, with fewer weights than one such.

    Parameters of VGG16: 138,357,544 with the ImageNet head, 1000 classes and three channels, of
    which 123,642,856 in the head; 14,723,136 for the rest with batch norm.

    Departures from the paper: the heads pool adaptively (which does nothing at 224 px), so that
    any size may come in; initial weights after He et al. 2015, where the paper started its deep
    networks from a trained shallow one, since random weights made them stall (section 3.1).

    Args:
        shape: (C, H, W) of an image; a side below 32 is brought to 32 before the network sees it.
        num_classes: number of logits.
        depth: number of layers with weights under the ImageNet head.
        batch_norm: a batch norm after each convolution.
        head: imagenet (7x7 pool, 4096, 4096, logits), small (global average, logits) or auto:
            imagenet if both sides are at least 128, so that stage 5 leaves 4x4 or more to pool.
        width: maps of the first stage, the paper's is 64; the later ones have 2, 4, 8 and 8 times
            as many. A quarter of it computes about a sixteenth.
        dropout: probability of dropping a hidden unit of the ImageNet head; 0 = off.
        init: see `initialise`.
    """

    min_size = 32  # five poolings halve it to 1

    def __init__(
        self,
        shape: Sequence[int],
        num_classes: int,
        depth: Annotated[int, STAGES] = 16,
        batch_norm: bool = False,
        head: Annotated[str, ("auto", "imagenet", "small")] = "auto",
        width: Width = 64,
        dropout: Dropout = 0.5,
        init: Init = "kaiming",
    ) -> None:
        super().__init__()
        channels, *sides = check_data(shape, num_classes)
        check_options(self, depth=depth, batch_norm=batch_norm, head=head)
        check_dropout(dropout)
        check_width(width)
        if head == "auto":
            head = "imagenet" if min(sides) >= 128 else "small"

        official = f"vgg{depth}_bn" if batch_norm else f"vgg{depth}"
        self.torchvision_name = official if width == 64 else None
        stages = tuple(tuple(maps * width // 64 for maps in stage) for stage in STAGES[depth])
        self.features = make_features(channels, stages, batch_norm)
        self.avgpool = nn.AdaptiveAvgPool2d(7 if head == "imagenet" else 1)
        self.flatten = nn.Flatten()
        if head == "imagenet":
            self.classifier = nn.Sequential(
                nn.Linear(8 * width * 7 * 7, 4096),
                nn.ReLU(inplace=True),
                nn.Dropout(dropout),
                nn.Linear(4096, 4096),
                nn.ReLU(inplace=True),
                nn.Dropout(dropout),
                nn.Linear(4096, num_classes),
            )
        else:
            self.classifier = nn.Sequential(nn.Linear(8 * width, num_classes))
        initialise(self, init, self.classifier[-1])

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) float -> (N, num_classes) logits; the trail is for 224 px."""
        x = self.features(x)  # (N, 512, 7, 7)
        x = self.avgpool(x)  # (N, 512, 7, 7), small head: (N, 512, 1, 1)
        x = self.flatten(x)  # (N, 25088), small head: (N, 512)
        return self.classifier(x)  # (N, num_classes)


def make_features(
    channels: int, stages: tuple[tuple[int, ...], ...], batch_norm: bool
) -> nn.Sequential:
    """The five stages: (N, channels, H, W) -> (N, last maps, H // 32, W // 32)."""
    layers: list[nn.Module] = []
    for stage in stages:
        for num_maps in stage:
            layers.append(nn.Conv2d(channels, num_maps, 3, padding=1))
            if batch_norm:
                layers.append(nn.BatchNorm2d(num_maps))
            layers.append(nn.ReLU(inplace=True))
            channels = num_maps
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)

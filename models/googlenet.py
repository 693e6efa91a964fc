"""GoogLeNet, also called Inception v1.

Szegedy et al. 2015, "Going deeper with convolutions" (arXiv 1409.4842), table 1 and figure 3; batch
norm after Ioffe and Szegedy 2015 (arXiv 1502.03167).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated

import torch
from torch import Tensor, nn

from models.init import Dropout, Init, check_data, check_dropout, check_options, initialise


class GoogLeNet(nn.Module):
    """Nine inception modules and, in training, two auxiliary classifiers.

    Parameters for 1000 classes and three channels, counted here: 13,378,280, of which 6,379,728 in
    the auxiliary heads, which are there for training alone, and 6,998,552 in the rest; with
    torchvision's options 13,004,888, 6,379,984 and 6,624,904 (torchvision gives the last one). The
    paper prints no such sum: its table 1 has rounded counts without the auxiliary heads, which add
    up to 6,798K (6.96 million, as its 1000K for 1024 x 1000 weights says that K is 1024); section 1
    has "12 times fewer" than AlexNet, which would be 5 million.

    torchvision's form is batch_norm=true branch5x5=3 aux_pool=adaptive. Its 3x3 in place of the
    5x5 convolutions is a known slip, kept there for the sake of its trained weights; with branch5x5
    set to 3 the fourth pooling is also 2x2 as there, not the paper's 3x3.

    Departures from the paper: with batch norm the local response norms are left out; below 224 px
    the auxiliary heads pool adaptively, as the paper's 5x5 windows do not fit.

    Args:
        shape: (C, H, W) of an image; a side below 32 is brought to 32 before the network sees it.
        num_classes: number of logits.
        batch_norm: a batch norm after each convolution, in place of its bias; else as in the paper.
        branch5x5: kernel of the third branch; the paper's is 5, torchvision's 3.
        aux_pool: paper (5x5 average with stride 3, if that leaves 4x4 as at 224 px, else adaptive)
            or adaptive (to 4x4, torchvision's).
        dropout: probability of dropping a feature before the last layer; 0 = off. The paper's is
            0.4; the auxiliary heads always have its 0.7.
        init: see `initialise`.
    """

    min_size = 32  # leaves 2x2 to the fourth pooling, the least that it takes

    def __init__(
        self,
        shape: Sequence[int],
        num_classes: int,
        batch_norm: bool = False,
        branch5x5: Annotated[int, (5, 3)] = 5,
        aux_pool: Annotated[str, ("paper", "adaptive")] = "paper",
        dropout: Dropout = 0.4,
        init: Init = "kaiming",
    ) -> None:
        super().__init__()
        channels, height, width = check_data(shape, num_classes)
        check_options(self, batch_norm=batch_norm, branch5x5=branch5x5, aux_pool=aux_pool)
        check_dropout(dropout)
        self.torchvision_name = "googlenet" if batch_norm and branch5x5 == 3 else None
        conv = partial(BasicConv2d, batch_norm=batch_norm)
        inception = partial(Inception, batch_norm=batch_norm, branch5x5=branch5x5)
        # The paper gives no values for its local response norms; these are AlexNet's (see there).
        lrn = partial(nn.LocalResponseNorm, 5, alpha=5e-4, beta=0.75, k=2.0)

        self.conv1 = conv(channels, 64, 7, stride=2, padding=3)
        self.maxpool1 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.norm1 = nn.Identity() if batch_norm else lrn()
        self.conv2 = conv(64, 64, 1)
        self.conv3 = conv(64, 192, 3, padding=1)
        self.norm2 = nn.Identity() if batch_norm else lrn()
        self.maxpool2 = nn.MaxPool2d(3, stride=2, ceil_mode=True)

        # Table 1: maps in, 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool proj
        self.inception3a = inception(192, 64, 96, 128, 16, 32, 32)
        self.inception3b = inception(256, 128, 128, 192, 32, 96, 64)
        self.maxpool3 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.inception4a = inception(480, 192, 96, 208, 16, 48, 64)
        self.inception4b = inception(512, 160, 112, 224, 24, 64, 64)
        self.inception4c = inception(512, 128, 128, 256, 24, 64, 64)
        self.inception4d = inception(512, 112, 144, 288, 32, 64, 64)
        self.inception4e = inception(528, 256, 160, 320, 32, 128, 128)
        self.maxpool4 = nn.MaxPool2d(3 if branch5x5 == 5 else 2, stride=2, ceil_mode=True)
        self.inception5a = inception(832, 256, 160, 320, 32, 128, 128)
        self.inception5b = inception(832, 384, 192, 384, 48, 128, 128)

        # The first convolution has halved the sides, rounding up, three poolings, rounding down.
        map_size = [(side + 1) // 2 // 8 for side in (height, width)]
        is_5x5_pool = aux_pool == "paper" and all((side - 5) // 3 == 3 for side in map_size)
        self.aux1 = AuxiliaryHead(512, num_classes, is_5x5_pool, batch_norm)
        self.aux2 = AuxiliaryHead(528, num_classes, is_5x5_pool, batch_norm)

        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(1024, num_classes)
        initialise(self, init, self.fc, self.aux1.fc2, self.aux2.fc2)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        """(N, C, H, W) float -> (N, num_classes) logits; the trail is for 224 px.

        In training mode a tuple (logits, aux2, aux1), each (N, num_classes). The paper adds the
        auxiliary losses with a weight of 0.3 each (section 5), and so does a run's `train` loss.
        """
        x = self.conv1(x)  # (N, 64, 112, 112)
        x = self.norm1(self.maxpool1(x))  # (N, 64, 56, 56)
        x = self.conv2(x)  # (N, 64, 56, 56)
        x = self.norm2(self.conv3(x))  # (N, 192, 56, 56)
        x = self.maxpool2(x)  # (N, 192, 28, 28)
        x = self.inception3a(x)  # (N, 256, 28, 28)
        x = self.inception3b(x)  # (N, 480, 28, 28)
        x = self.maxpool3(x)  # (N, 480, 14, 14)
        x = self.inception4a(x)  # (N, 512, 14, 14)
        aux1 = self.aux1(x) if self.training else None  # (N, num_classes)
        x = self.inception4b(x)  # (N, 512, 14, 14)
        x = self.inception4c(x)  # (N, 512, 14, 14)
        x = self.inception4d(x)  # (N, 528, 14, 14)
        aux2 = self.aux2(x) if self.training else None  # (N, num_classes)
        x = self.inception4e(x)  # (N, 832, 14, 14)
        x = self.maxpool4(x)  # (N, 832, 7, 7)
        x = self.inception5a(x)  # (N, 832, 7, 7)
        x = self.inception5b(x)  # (N, 1024, 7, 7)
        x = self.flatten(self.avgpool(x))  # (N, 1024)
        logits = self.fc(self.dropout(x))  # (N, num_classes)
        return logits if aux1 is None or aux2 is None else (logits, aux2, aux1)


class Inception(nn.Module):
    """Four branches side by side, their maps concatenated: (N, C, H, W) -> (N, sum, H, W)."""

    def __init__(
        self,
        in_maps: int,
        maps1x1: int,
        reduce3x3: int,
        maps3x3: int,
        reduce5x5: int,
        maps5x5: int,
        pool_maps: int,
        *,
        batch_norm: bool,
        branch5x5: int,
    ) -> None:
        super().__init__()
        conv = partial(BasicConv2d, batch_norm=batch_norm)
        self.branch1 = conv(in_maps, maps1x1, 1)
        self.branch2 = nn.Sequential(
            conv(in_maps, reduce3x3, 1), conv(reduce3x3, maps3x3, 3, padding=1)
        )
        self.branch3 = nn.Sequential(
            conv(in_maps, reduce5x5, 1),
            conv(reduce5x5, maps5x5, branch5x5, padding=branch5x5 // 2),
        )
        self.branch4 = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1), conv(in_maps, pool_maps, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        branches = [self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)]
        return torch.cat(branches, dim=1)  # (N, maps1x1 + maps3x3 + maps5x5 + pool_maps, H, W)


class AuxiliaryHead(nn.Module):
    """A classifier halfway up, which feeds gradient to the layers below (section 5)."""

    def __init__(self, in_maps: int, num_classes: int, is_5x5_pool: bool, batch_norm: bool) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(5, stride=3) if is_5x5_pool else nn.AdaptiveAvgPool2d(4)
        self.conv = BasicConv2d(in_maps, 128, 1, batch_norm=batch_norm)
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(128 * 4 * 4, 1024)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(0.7)
        self.fc2 = nn.Linear(1024, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(x)  # (N, 512 or 528, 4, 4)
        x = self.conv(x)  # (N, 128, 4, 4)
        x = self.relu(self.fc1(self.flatten(x)))  # (N, 1024)
        return self.fc2(self.dropout(x))  # (N, num_classes)


class BasicConv2d(nn.Module):
    """Convolution, batch norm if asked, ReLU: (N, C, H, W) -> (N, out_maps, H', W')."""

    def __init__(
        self,
        in_maps: int,
        out_maps: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        *,
        batch_norm: bool,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_maps, out_maps, kernel_size, stride=stride, padding=padding, bias=not batch_norm
        )
        # eps as in torchvision, whose weights come from TensorFlow
        self.bn = nn.BatchNorm2d(out_maps, eps=0.001) if batch_norm else nn.Identity()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn(self.conv(x)))

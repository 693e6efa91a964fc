"""ResNet.

He, Zhang, Ren and Sun 2016, "Deep residual learning for image recognition" (arXiv 1512.03385),
table 1 and figure 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from torch import Tensor, nn

from models.init import (
    Dropout,
    Init,
    Width,
    check_choice,
    check_data,
    check_dropout,
    check_options,
    check_width,
    initialise,
)
from models.stochastic_depth import drop_linearly


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut: (N, C, H, W) -> (N, width, H/stride, W/stride)."""

    expansion = 1  # maps that come out, per map of width

    def __init__(self, in_maps: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_maps, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.drop = nn.Identity()
        self.downsample = make_shortcut(in_maps, width, stride)
        self.relu2 = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu1(self.bn1(self.conv1(x)))  # (N, width, H/stride, W/stride)
        out = self.drop(self.bn2(self.conv2(out)))  # (N, width, H/stride, W/stride)
        return self.relu2(out + self.downsample(x))  # (N, width, H/stride, W/stride)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions: (N, C, H, W) -> (N, 4 * width, H/stride, W/stride).

    The deep networks use it because the 3x3 convolution works on a quarter of the maps. At 256 maps
    in and out a basic block has 2 * 3*3*256*256 = 1,179,648 weights, a bottleneck 256*64 +
    3*3*64*64 + 64*256 = 69,632 (without batch norm), a seventeenth.

    The paper strides in the first 1x1, which skips three quarters of its input. Most
    later implementations, torchvision's among them, stride in the 3x3 ("v1.5").
    """

    expansion = 4

    def __init__(self, in_maps: int, width: int, stride: int, stride_on: str) -> None:
        super().__init__()
        stride1, stride2 = (stride, 1) if stride_on == "1x1" else (1, stride)
        self.conv1 = nn.Conv2d(in_maps, width, 1, stride=stride1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.drop = nn.Identity()
        self.downsample = make_shortcut(in_maps, 4 * width, stride)
        self.relu3 = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu1(self.bn1(self.conv1(x)))  # (N, width, H, W); v1: H/stride, W/stride
        out = self.relu2(self.bn2(self.conv2(out)))  # (N, width, H/stride, W/stride)
        out = self.drop(self.bn3(self.conv3(out)))  # (N, 4 * width, H/stride, W/stride)
        return self.relu3(out + self.downsample(x))  # (N, 4 * width, H/stride, W/stride)


def make_shortcut(in_maps: int, out_maps: int, stride: int) -> nn.Module:
    """The identity where shapes agree, else a strided 1x1 convolution (the paper's option B)."""
    if stride == 1 and in_maps == out_maps:
        return nn.Identity()
    return nn.Sequential(
        nn.Conv2d(in_maps, out_maps, 1, stride=stride, bias=False), nn.BatchNorm2d(out_maps)
    )


# depth: number of blocks in each of the four stages
BLOCKS: dict[int, tuple[int, int, int, int]] = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


class ResNet(nn.Module):
    """Four stages of residual blocks: basic ones at depth 18 and 34, bottlenecks beyond.

    Parameters for 1000 classes and the ImageNet stem: 11,689,512 (18), 21,797,672 (34),
    25,557,032 (50), 44,549,160 (101), 60,192,808 (152).

    Departures from the paper: the stride (see `stride_on`) and the small stem. The paper's own
    CIFAR networks are narrower (16 to 64 maps in three stages); the small stem here keeps the
    ImageNet widths unless `width` says otherwise.

    Args:
        shape: (C, H, W) of an image; a side below 28 is brought to 28 before the network sees it.
        num_classes: number of logits.
        depth: number of layers with weights.
        stem: imagenet (7x7 with stride 2, then 3x3 pooling with stride 2), small (3x3, stride 1, no
            pooling) or auto: imagenet if both sides are at least 64. The small one leaves 16 times
            as many pixels to every later layer and takes about as much longer.
        width: maps of the stem and of the first stage's 3x3 convolutions; each later stage has
            twice as many. The paper's is 64; a quarter of it computes a sixteenth.
        stride_on: 3x3 (v1.5) or 1x1 (v1, the paper's): the convolution of a bottleneck that
            strides. Basic blocks have no 1x1 but the shortcut's; for them it must be 3x3.
        zero_init_last: start the last norm's scale of every block at 0, so that each block begins
            as its shortcut (Goyal et al. 2017, arXiv 1706.02677, section 5.1). Without it, as in
            the paper, the deep ones start to learn far more slowly.
        stochastic_depth: probability of leaving out the last block's branch in training; that of
            the others falls in a line with their place. 0 = off.
        init: see `initialise`.
    """

    min_size = 28

    def __init__(
        self,
        shape: Sequence[int],
        num_classes: int,
        depth: Annotated[int, BLOCKS] = 18,
        stem: Annotated[str, ("auto", "imagenet", "small")] = "auto",
        width: Width = 64,
        stride_on: Annotated[str, ("3x3", "1x1")] = "3x3",
        zero_init_last: bool = True,
        stochastic_depth: Dropout = 0.0,
        init: Init = "kaiming",
    ) -> None:
        super().__init__()
        channels, *sides = check_data(shape, num_classes)
        check_options(self, depth=depth, stem=stem, stride_on=stride_on,
                      zero_init_last=zero_init_last)  # fmt: skip
        check_dropout(stochastic_depth, "stochastic_depth")
        check_width(width)
        if depth < 50:
            check_choice("stride_on", stride_on, ("3x3",))
        # The paper's stride has the same shapes and another function: no weights of torchvision's.
        official = stride_on == "3x3" and width == 64
        self.torchvision_name = f"resnet{depth}" if official else None
        if stem == "auto":
            stem = "imagenet" if min(sides) >= 64 else "small"

        if stem == "imagenet":
            self.conv1 = nn.Conv2d(channels, width, 7, stride=2, padding=3, bias=False)
        else:
            self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if stem == "imagenet" else nn.Identity()

        expansion = Bottleneck.expansion if depth >= 50 else BasicBlock.expansion
        blocks = BLOCKS[depth]
        maps = [width * expansion, 2 * width * expansion, 4 * width * expansion]
        self.layer1 = make_stage(depth, width, width, blocks[0], 1, stride_on)
        self.layer2 = make_stage(depth, maps[0], 2 * width, blocks[1], 2, stride_on)
        self.layer3 = make_stage(depth, maps[1], 4 * width, blocks[2], 2, stride_on)
        self.layer4 = make_stage(depth, maps[2], 8 * width, blocks[3], 2, stride_on)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(8 * width * expansion, num_classes)
        initialise(self, init, self.fc)
        blocks_of = [m for m in self.modules() if isinstance(m, (BasicBlock, Bottleneck))]
        drop_linearly([(block, "drop") for block in blocks_of], stochastic_depth)
        if zero_init_last:
            zero_last_norms(self)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) float -> (N, num_classes) logits.

        The trail is for basic blocks and width 64 at 224 px; bottlenecks have four times the maps
        after each stage, and the small stem at 32 px keeps 32 until layer2.
        """
        x = self.relu(self.bn1(self.conv1(x)))  # (N, 64, 112, 112)
        x = self.maxpool(x)  # (N, 64, 56, 56)
        x = self.layer1(x)  # (N, 64, 56, 56)
        x = self.layer2(x)  # (N, 128, 28, 28)
        x = self.layer3(x)  # (N, 256, 14, 14)
        x = self.layer4(x)  # (N, 512, 7, 7)
        x = self.avgpool(x)  # (N, 512, 1, 1)
        x = self.flatten(x)  # (N, 512)
        return self.fc(x)  # (N, num_classes)


def make_stage(
    depth: int, in_maps: int, width: int, num_blocks: int, stride: int, stride_on: str
) -> nn.Sequential:
    """`num_blocks` blocks, of which the first one strides and changes the number of maps."""
    blocks: list[nn.Module] = []
    for i in range(num_blocks):
        if depth >= 50:
            blocks.append(Bottleneck(in_maps, width, stride if i == 0 else 1, stride_on))
            in_maps = width * Bottleneck.expansion
        else:
            blocks.append(BasicBlock(in_maps, width, stride if i == 0 else 1))
            in_maps = width
    return nn.Sequential(*blocks)


def zero_last_norms(model: nn.Module) -> None:
    """Set the scale of the last norm on each block's residual branch to 0."""
    for block in model.modules():
        if isinstance(block, BasicBlock):
            nn.init.zeros_(block.bn2.weight)
        elif isinstance(block, Bottleneck):
            nn.init.zeros_(block.bn3.weight)

"""The eight-layer network of airbench, made to be trained in a few epochs.

Jordan 2024, "94% on CIFAR-10 in 3.29 seconds on a single GPU" (arXiv 2404.00498), sections 3.1 to
3.3; its first layer after Page 2018 and tysam-code's hlb-CIFAR10.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.init import Init, check_data, check_options, initialise, is_count

MAPS_PER_FILTER = 2  # each whitening filter comes with its negative, as GELU passes one sign alone
EPS = 5e-4  # added to the variances of patches, which may be next to nothing
LOGIT_SCALE = 1 / 9
VIEWS = ("one", "mirror", "shifts")
Count = Annotated[int, "a whole number at least 1"]


def make_norm(num_maps: int) -> nn.BatchNorm2d:
    """Batch norm whose scale stays 1 and whose statistics follow fast: a running mean is 0.6 of
    itself and 0.4 of the batch's."""
    norm = nn.BatchNorm2d(num_maps, eps=1e-12, momentum=0.4)
    norm.weight.requires_grad_(False)
    return norm


class Stage(nn.Module):
    """Two 3x3 convolutions, halved between: (N, C, H, W) -> (N, maps, H // 2, W // 2)."""

    def __init__(self, in_maps: int, maps: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_maps, maps, 3, padding=1, bias=False)
        self.pool = nn.MaxPool2d(2)
        self.norm1 = make_norm(maps)
        self.gelu1 = nn.GELU()
        self.conv2 = nn.Conv2d(maps, maps, 3, padding=1, bias=False)
        self.norm2 = make_norm(maps)
        self.gelu2 = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.gelu1(self.norm1(self.pool(self.conv1(x))))  # (N, maps, H // 2, W // 2)
        return self.gelu2(self.norm2(self.conv2(x)))  # (N, maps, H // 2, W // 2)


class AirBench(nn.Module):
    """A whitening layer, three stages of two convolutions, a linear layer.

    What makes it learn in a few epochs: the first layer is solved for instead of trained (see
    `start_from`); the first maps of each convolution begin as the identity, so that the signal
    passes a deep network from the first step; and in eval mode it may look at an image several
    times.

    Args:
        shape: (C, H, W) of an image; a side below `min_size` is brought to it before the network
            sees it.
        num_classes: number of logits.
        widths: maps of the three stages.
        kernel: side of the filters of the first layer.
        stride: pixels from one of its windows to the next.
        whitening: the first layer is set by the training images and stays but for its bias; False:
            it is trained as the others are.
        identity: the first maps of each 3x3 convolution begin as those that came in.
        views: in eval mode, of what the logits are averaged. one: the image; mirror: it and its
            mirror image, which must be of the same class; shifts: half of that, and half of the
            same of two copies, shifted by a pixel up and left, and down and right.
        init: see `initialise`.
    """

    def __init__(
        self,
        shape: Sequence[int],
        num_classes: int,
        widths: Annotated[Sequence[int], "three whole numbers, each at least 1"] = (64, 256, 256),
        kernel: Count = 2,
        stride: Count = 1,
        whitening: bool = True,
        identity: bool = True,
        views: Annotated[str, VIEWS] = "one",
        init: Init = "default",
    ) -> None:
        super().__init__()
        channels, _, _ = check_data(shape, num_classes)
        check_options(self, whitening=whitening, identity=identity, views=views)
        if not isinstance(widths, Sequence) or len(widths) != 3 or not all(map(is_count, widths)):
            raise ValueError(f"model.widths={widths}: must be three whole numbers, each at least 1")
        for key, value in (("kernel", kernel), ("stride", stride)):
            if not is_count(value):
                raise ValueError(f"model.{key}={value}: must be {get_args(Count)[1]}")
        self.whitening, self.views = whitening, views
        self.min_size = kernel + 7 * stride  # 8 after the first layer; three halvings leave 1

        maps = MAPS_PER_FILTER * channels * kernel**2
        self.first = nn.Conv2d(channels, maps, kernel, stride)
        self.first.weight.requires_grad_(not whitening)
        self.gelu = nn.GELU()
        self.stage1 = Stage(maps, widths[0])
        self.stage2 = Stage(widths[0], widths[1])
        self.stage3 = Stage(widths[1], widths[2])
        self.pool = nn.AdaptiveMaxPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(widths[2], num_classes, bias=False)
        initialise(self, init, self.head)
        if identity:
            begin_as_identity(self)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) float -> (N, num_classes) logits."""
        if self.training or self.views == "one":
            return self.logits(x)
        return torch.stack([share * self.logits(view) for view, share in seen(x, self.views)]).sum(
            0
        )

    def logits(self, x: Tensor) -> Tensor:
        """The same of one view; the trail is for 32 px in colour."""
        x = self.gelu(self.first(x))  # (N, 24, 31, 31)
        x = self.stage1(x)  # (N, 64, 15, 15)
        x = self.stage2(x)  # (N, 256, 7, 7)
        x = self.stage3(x)  # (N, 256, 3, 3)
        x = self.flatten(self.pool(x))  # (N, 256)
        return self.head(x) * LOGIT_SCALE  # (N, num_classes)

    @torch.no_grad()
    def start_from(self, images: Tensor) -> None:
        """Set the first layer so that its outputs are uncorrelated and of variance 1 over these
        images, (N, C, H, W) float as the network sees them.

        Its filters are the eigenvectors of the covariance of all patches that a filter sees, each
        divided by the root of its eigenvalue, and their negatives.
        """
        if not self.whitening:
            return
        size = self.first.weight[0].numel()
        products, count = torch.zeros(size, size, dtype=torch.float64, device=images.device), 0
        for some in images.split(500):
            patches = (
                F.unfold(some.double(), self.first.kernel_size, stride=self.first.stride)
                .transpose(0, 1)
                .flatten(1)
            )  # (size, number)
            products += patches @ patches.T
            count += patches.shape[1]
        values, vectors = torch.linalg.eigh(products / count)
        filters = (vectors / (values + EPS).sqrt()).T.reshape(size, *self.first.weight.shape[1:])
        self.first.weight.copy_(torch.cat((filters, -filters)))
        if self.first.bias is not None:
            self.first.bias.zero_()


def begin_as_identity(model: nn.Module) -> None:
    """Set the first filters of each 3x3 convolution, as many as maps come in, to the identity."""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):
            nn.init.dirac_(layer.weight.data[: layer.in_channels])


def seen(images: Tensor, views: str) -> Iterator[tuple[Tensor, float]]:
    """The views of images in evaluation, and their shares."""
    share = 0.25 if views == "shifts" else 0.5
    yield images, share
    yield images.flip(-1), share
    if views == "shifts":
        height, width = images.shape[-2:]
        padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
        for corner in (0, 2):
            shifted = padded[..., corner : corner + height, corner : corner + width]
            yield shifted, share / 2
            yield shifted.flip(-1), share / 2

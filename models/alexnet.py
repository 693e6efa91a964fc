"""AlexNet.

Krizhevsky, Sutskever and Hinton 2012, "ImageNet classification with deep convolutional neural
networks" (NIPS); and torchvision's narrower form, which is nearly the single column of Krizhevsky
2014, "One weird trick for parallelizing convolutional neural networks" (arXiv 1404.5997): that one
has 64, 192, 384, 384 and 256 maps, and torchvision's fourth convolution has 256 instead of 384.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from torch import Tensor, nn

from models.init import Dropout, Init, check_data, check_dropout, check_options, initialise

# variant: maps of the five convolutions, groups of the 2nd, 4th and 5th, width of the hidden layers
VARIANTS: dict[str, tuple[tuple[int, ...], int, int]] = {
    "torchvision": ((64, 192, 384, 256, 256), 1, 4096),
    "paper": ((96, 256, 384, 384, 256), 2, 4096),
    "paper_half": ((48, 128, 192, 192, 128), 1, 2048),
}


class AlexNet(nn.Module):
    """Five convolutions and three linear layers.

    Parameters for 1000 classes and three channels: torchvision 61,100,840, paper 60,965,224.

    The paper's network lay on two GPUs, each with half of the maps, and only the third convolution
    (and the linear layers) read both halves. `paper` says the same with groups=2 in the second,
    fourth and fifth convolution; `paper_half` is what one of the two GPUs held.

    Departures from the paper: images are padded by 2 (the paper says 224 px, but its arithmetic
    asks for 227), a 6x6 adaptive pool (which does nothing at 224 px) lets other sizes in, and the
    initial biases are 0 with every `init` but default (the paper sets some to 1).

    Args:
        shape: (C, H, W) of an image; a side below 63 is brought to 63 before the network sees it.
        num_classes: number of logits.
        variant: see above; maps and groups in `VARIANTS`.
        lrn: local response normalisation after the ReLUs of the first two convolutions; None: as
            the variant says (the paper's have it, torchvision's does not).
        dropout: probability of dropping a unit around the hidden linear layers; 0 = off.
        init: see `initialise`; the paper's is normal.
    """

    min_size = 63  # below it the third pooling has nothing left to look at

    def __init__(
        self,
        shape: Sequence[int],
        num_classes: int,
        variant: Annotated[str, VARIANTS] = "torchvision",
        lrn: bool | None = None,
        dropout: Dropout = 0.5,
        init: Init = "default",
    ) -> None:
        super().__init__()
        channels, _, _ = check_data(shape, num_classes)
        check_options(self, variant=variant, lrn=lrn)
        check_dropout(dropout)
        is_paper = variant != "torchvision"
        use_lrn = is_paper if lrn is None else lrn

        self.torchvision_name = None if is_paper or use_lrn else "alexnet"
        (c1, c2, c3, c4, c5), groups, width = VARIANTS[variant]
        # LRN stands between the ReLU and the pooling of the first two stages. It bought the paper
        # 1.4 % of top-1 error. The VGG paper (section 4.1, A-LRN) measured no gain from it, only
        # time and memory, and since then batch norm, which has the scale under control in every
        # layer, took its place.
        self.features = nn.Sequential(
            nn.Conv2d(channels, c1, 11, stride=4, padding=2),  # (N, c1, 55, 55)
            nn.ReLU(inplace=True),
            *([local_response_norm()] if use_lrn else []),
            nn.MaxPool2d(3, stride=2),  # (N, c1, 27, 27)
            nn.Conv2d(c1, c2, 5, padding=2, groups=groups),  # (N, c2, 27, 27)
            nn.ReLU(inplace=True),
            *([local_response_norm()] if use_lrn else []),
            nn.MaxPool2d(3, stride=2),  # (N, c2, 13, 13)
            nn.Conv2d(c2, c3, 3, padding=1),  # (N, c3, 13, 13)
            nn.ReLU(inplace=True),
            nn.Conv2d(c3, c4, 3, padding=1, groups=groups),  # (N, c4, 13, 13)
            nn.ReLU(inplace=True),
            nn.Conv2d(c4, c5, 3, padding=1, groups=groups),  # (N, c5, 13, 13)
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),  # (N, c5, 6, 6)
        )
        self.avgpool = nn.AdaptiveAvgPool2d(6)
        self.flatten = nn.Flatten()
        hidden1 = [nn.Linear(c5 * 6 * 6, width), nn.ReLU(inplace=True)]
        hidden2 = [nn.Linear(width, width), nn.ReLU(inplace=True)]
        # The paper drops hidden units, that is after each ReLU; torchvision drops what goes in.
        if is_paper:
            layers = [*hidden1, nn.Dropout(dropout), *hidden2, nn.Dropout(dropout)]
        else:
            layers = [nn.Dropout(dropout), *hidden1, nn.Dropout(dropout), *hidden2]
        self.classifier = nn.Sequential(*layers, nn.Linear(width, num_classes))
        initialise(self, init, self.classifier[-1])

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) float -> (N, num_classes) logits; the trail is for 224 px."""
        x = self.features(x)  # (N, 256, 6, 6)
        x = self.avgpool(x)  # (N, 256, 6, 6)
        x = self.flatten(x)  # (N, 9216)
        return self.classifier(x)  # (N, num_classes)


def local_response_norm() -> nn.LocalResponseNorm:
    """Local response normalisation as in section 3.3 of the paper, across neighbouring maps.

        b[i] = a[i] / (k + alpha * sum of a[j]^2 over j)^beta,
        j from max(0, i - n/2) to min(C - 1, i + n/2),   n = 5, k = 2, alpha = 1e-4, beta = 0.75

    for each pixel by itself. PyTorch (as Caffe) takes the mean over the n maps, not the sum, so
    that its alpha is n times the paper's: 5e-4.
    """
    return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)

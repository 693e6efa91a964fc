"""Labels that are probably wrong, from predictions of images that a model was not trained on.

Confident learning (Northcutt, Jiang and Chuang 2021, "Confident learning: estimating uncertainty in
dataset labels", JAIR 70, section 3.1): the threshold of a class is the mean probability that images
labelled so get for it; an image is suspected if another class reaches its own threshold, and none
that does, the label's included, is more probable.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Suspects:
    """Images whose label is probably wrong, the most certain first.

    Attributes:
        rows: (M,) int64, their positions among the images given.
        suggested: (M,) int64, the class that they probably are of.
        of_label, of_suggested: (M,) probabilities of the label and of the suggested class.
    """

    rows: NDArray[np.int64]
    suggested: NDArray[np.int64]
    of_label: NDArray[np.float64]
    of_suggested: NDArray[np.float64]


def suspects(
    labels: NDArray[np.int64],
    of_label: NDArray[np.float64],
    top: NDArray[np.int64],
    of_top: NDArray[np.float64],
) -> Suspects:
    """Suspected images, by the smallest margin: the label's probability less the suggested one's.

    Args:
        labels: (N,) 0..K-1.
        of_label: (N,) probability of the label.
        top: (N, k) the most probable classes of each image; -1 where there are fewer.
        of_top: (N, k) their probabilities.
    """
    num_classes = int(max(labels.max(initial=-1), top.max(initial=-1))) + 1
    sums = np.bincount(labels, of_label, num_classes)
    counts = np.bincount(labels, minlength=num_classes)
    # Of a class without images no threshold is known, and nothing is suggested as one of it.
    thresholds = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
    reached = (top >= 0) & (of_top >= thresholds[top])
    shares = np.where(reached, of_top, -1.0)
    best = shares.argmax(axis=1)
    each = np.arange(len(labels))
    suggested, share = top[each, best], shares[each, best]
    beats_label = (of_label < thresholds[labels]) | (share > of_label)
    rows = np.flatnonzero((share >= 0) & (suggested != labels) & beats_label)
    rows = rows[np.argsort((of_label - share)[rows], kind="stable")]
    return Suspects(rows, suggested[rows], of_label[rows], share[rows])

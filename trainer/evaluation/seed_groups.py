"""Comparison of two groups of runs over seeds on the same images, and the seeds that one needs.

Without torch, scipy or NumPy's functions, as `statistics`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from trainer.evaluation.statistics import LEVEL, NORMAL, Interval, root, t_cdf, t_quantile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_SEEDS = 1000  # that anybody trains


class Difference(NamedTuple):
    """Accuracy of B minus that of A, its interval, and the two-sided p-value of "none".

    Attributes:
        of_images: variance of the difference that more seeds do not reduce.
        of_seed: variance of one run's accuracy over the seeds, mean of both groups.
    """

    value: float
    interval: Interval
    p_value: float
    of_images: float = 0.0
    of_seed: float = 0.0


def seeds_and_images(
    a: NDArray[np.bool_],
    b: NDArray[np.bool_],
    level: float = LEVEL,
) -> Difference:
    """Difference of two groups of runs, with the variance of their seeds and of the images in its
    error: what is claimed holds for other seeds and other images.

    The images' share is that of each image's difference of means over the seeds, less what the
    seeds' noise adds to it. The seeds' share is that of the runs' accuracies, of each group by
    itself (Welch 1947, Biometrika 34); a single run has none of its own and is taken to vary as the
    other group does; where a group's runs tie, it is that which independent images alone would
    give. The sum has the degrees of freedom of Satterthwaite, so that three seeds are taken for
    three (a bootstrap that draws from so few finds differences between equal models far more often
    than its level allows); where two runs meet more than two those of Cochran and Cox (1957,
    "Experimental designs"), since the spread of two is too small by chance too often.

    Args:
        a, b: (runs, images), True where a run has an image right; the same images in both, and at
            least one group of two runs.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or max(len(a), len(b)) < 2:
        raise ValueError("two groups of runs on the same images are needed, one of at least two")
    value, n = float(b.mean() - a.mean()), a.shape[1]
    spreads = [(g if len(g) > 1 else other) for g, other in ((a, b), (b, a))]
    noise = [float(g.var(axis=0, ddof=1).mean()) for g in spreads]
    of_run = [
        float(g.mean(axis=1).var(ddof=1)) or x / n for g, x in zip(spreads, noise, strict=True)
    ]
    per_image = float((b.mean(axis=0) - a.mean(axis=0)).var(ddof=1))
    of_images = max(0.0, per_image - noise[0] / len(a) - noise[1] / len(b)) / n
    of_seeds = [of_run[0] / len(a), of_run[1] / len(b)]
    if min(len(a), len(b)) == 1:  # one spread was measured, not two
        of_seeds = [sum(of_seeds)]
    error = math.sqrt(of_images + sum(of_seeds))
    if error == 0:  # the same images right in all runs, or all of them in one group alone
        return Difference(value, Interval(value, value), float(value == 0))
    freedom = [len(g) - 1 for g in (a, b) if len(g) > 1]
    shares = [part / error**2 for part in (*of_seeds, of_images)]
    parts = list(zip(shares, (*freedom, n - 1), strict=True))
    if min(len(a), len(b)) == 2 < max(len(a), len(b)):
        degrees = degrees_of_cochran_and_cox(parts, level)
    else:
        degrees = 1 / sum(part * part / own for part, own in parts)
    half = t_quantile((1 + level) / 2, degrees) * error
    p_value = min(1.0, 2 * (1 - t_cdf(abs(value) / error, degrees)))
    interval = Interval(value - half, value + half)
    return Difference(value, interval, p_value, of_images, sum(of_run) / 2)


def degrees_of_cochran_and_cox(parts: Sequence[tuple[float, int]], level: float) -> float:
    """Degrees of freedom of a sum of variances, with which the quantile of Student's t is the mean
    of the parts' own.

    Args:
        parts: the share of each variance in the sum, and its degrees of freedom.
    """
    probability = (1 + level) / 2
    quantile = sum(share * t_quantile(probability, own) for share, own in parts)
    least, most = min(own for _, own in parts), max(own for _, own in parts)
    return root(lambda degrees: t_cdf(quantile, degrees) - probability, least, most)


def seeds_needed(
    difference: float,
    std: float,
    power: float = 0.8,
    level: float = LEVEL,
    of_images: float = 0.0,
) -> int | None:
    """Seeds for each of two configurations with which a t-test shows this difference; None if no
    number of seeds does on these images.

    Args:
        difference: of the mean accuracies, above 0.
        std: standard deviation of accuracy over the seeds of one configuration.
        of_images: variance of the difference that more seeds do not reduce.
    """
    if difference <= 0 or std < 0:
        raise ValueError(f"difference={difference}, std={std}: must be above 0, and 0 or more")
    for n in range(2, MOST_SEEDS):
        of_seeds = max(2 * std * std / n, 1e-24)
        error = math.sqrt(of_seeds + of_images)
        freedom = 2.0 * (n - 1) * (error * error / of_seeds) ** 2
        if 1 - NORMAL.cdf(t_quantile((1 + level) / 2, freedom) - difference / error) >= power:
            return n
    return None

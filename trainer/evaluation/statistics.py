"""Statistics of accuracies: intervals, paired tests, corrections for several comparisons, power.

All of it is arithmetic on counts and small arrays, without torch, scipy or NumPy's functions, so
that `compare` and `report` start at once. Accuracies and probabilities are shares, 0..1; `level` is
the coverage of an interval, 0.95 unless said otherwise.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import NamedTuple

NORMAL = NormalDist()
LEVEL = 0.95
# A root is bracketed to this width: shares of a billionth of a point.
WIDTH = 1e-12


class Interval(NamedTuple):
    """Confidence interval. As text "0.924 to 0.953", with four digits where it is narrow; "-" if it
    is unknown (NaN)."""

    low: float
    high: float

    def __str__(self) -> str:
        if math.isnan(self.low):
            return "-"
        digits = 3 if self.high - self.low >= 0.01 else 4
        return f"{self.low:.{digits}f} to {self.high:.{digits}f}"


class Spread(NamedTuple):
    """Mean of several runs, their standard deviation (n - 1) and the interval of the mean."""

    mean: float
    std: float
    interval: Interval
    n: int


def wilson(num_correct: int, n: int, level: float = LEVEL) -> Interval:
    """Wilson's score interval of a share (Wilson 1927, JASA 22).

    Unlike the usual mean plus or minus two standard errors it stays within 0..1 and holds its
    level near the ends, where accuracies are.

    Args:
        num_correct: 0..n.
        n: number of images, at least 1.
    """
    if not 0 <= num_correct <= n or n < 1:
        raise ValueError(f"num_correct={num_correct}, n={n}: must be 0 to n, of at least one image")
    z = NORMAL.inv_cdf((1 + level) / 2)
    share, weight = num_correct / n, z * z / n
    middle = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(share * (1 - share) / n + weight / (4 * n))
    low = 0.0 if num_correct == 0 else middle - half
    high = 1.0 if num_correct == n else middle + half
    return Interval(low, high)


def interval_of(accuracy: float | None, n: int) -> Interval | None:
    """Wilson's interval of an accuracy over n images; None if there is none."""
    if accuracy is None or not 0 <= accuracy <= 1 or n < 1:
        return None
    return wilson(round(accuracy * n), n)


def spread(values: Sequence[float], level: float = LEVEL, overlap: float = 0.0) -> Spread:
    """Mean of several runs' accuracies with Student's t interval, cut off at 0 and 1; of one run
    the interval is unknown (NaN), and of runs that are all equal.

    Args:
        overlap: test images by training images, of runs whose training sets overlap: 1 / (K - 1)
            for K folds. The variance is corrected by it (Nadeau and Bengio 2003, "Inference for the
            generalization error", Machine Learning 52, eq. 9); 0: the runs are independent.
    """
    n = len(values)
    if n < 1:
        raise ValueError("a mean needs at least one value")
    mean = math.fsum(values) / n
    if n == 1:
        return Spread(mean, math.nan, Interval(math.nan, math.nan), 1)
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    if min(values) == max(values):
        return Spread(mean, 0.0, Interval(math.nan, math.nan), n)
    half = t_quantile((1 + level) / 2, n - 1) * std * math.sqrt(1 / n + overlap)
    return Spread(mean, std, Interval(max(0.0, mean - half), min(1.0, mean + half)), n)


@functools.cache  # a table of many seeds asks for the same few
def t_quantile(probability: float, freedom: float) -> float:
    """Quantile of Student's t distribution.

    Args:
        probability: within 0..1.
        freedom: degrees of freedom, above 0.
    """
    if probability < 0.5:
        return -t_quantile(1 - probability, freedom)
    high = 1.0
    while t_cdf(high, freedom) < probability:
        high *= 2
    return root(lambda x: t_cdf(x, freedom) - probability, 0.0, high)


def t_cdf(x: float, freedom: float) -> float:
    """Probability that Student's t is at most x."""
    tail = incomplete_beta(freedom / 2, 0.5, freedom / (freedom + x * x)) / 2
    return tail if x < 0 else 1 - tail


def incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularised incomplete beta function I_x(a, b), by Lentz's continued fraction
    (Abramowitz and Stegun 26.5.8)."""
    if not 0 < x < 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # where the fraction converges fast
        return 1 - incomplete_beta(b, a, 1 - x)
    logarithm = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front = math.exp(logarithm + a * math.log(x) + b * math.log1p(-x)) / a
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    fraction = d
    for m in range(1, 300):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / (1 + term * d)
            c = 1 + term / c
            fraction *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return front * fraction


def root(function: Callable[[float], float], low: float, high: float) -> float:
    """Zero of a rising function between low and high, by bisection."""
    while high - low > WIDTH * max(1.0, abs(high)):
        middle = (low + high) / 2
        if function(middle) < 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p-value of McNemar's test (McNemar 1947, Psychometrika 12): two models on the
    same images are equally good.

    Args:
        only_a: number of images that the first model alone has right; only_b: the second alone.
    """
    n, few = only_a + only_b, min(only_a, only_b)
    term = total = 1
    for k in range(1, few + 1):
        term = term * (n - k + 1) // k
        total += term
    return min(1.0, 2 * total / 2**n) if n <= 1000 else min(1.0, 2 * _ratio(total, n))


def _ratio(total: int, power: int) -> float:
    """total / 2**power of whole numbers that no float holds."""
    shift = max(0, total.bit_length() - 60)
    return math.ldexp(float(total >> shift), shift - power)


def paired_difference(only_a: int, only_b: int, n: int, level: float = LEVEL) -> Interval:
    """Interval of accuracy B minus accuracy A on the same n images: Tango's score interval (Tango
    1998, Statistics in Medicine 17), which is to paired shares what Wilson's is to one."""
    z = NORMAL.inv_cdf((1 + level) / 2)

    def score(difference: float) -> float:
        """Of the hypothesis that B is better by so much; falls as the difference rises."""
        a, b = only_a, only_b
        linear = -a - b + (2 * n - b + a) * difference
        constant = -a * difference * (1 - difference)
        discordant = max(
            0.0, (math.sqrt(max(0.0, linear**2 - 8 * n * constant)) - linear) / (4 * n)
        )
        variance = n * (2 * discordant + difference * (1 - difference))
        if variance <= 0:
            return math.inf if b - a > n * difference else -math.inf
        return (b - a - n * difference) / math.sqrt(variance)

    found = (only_b - only_a) / n
    low = root(lambda d: z - score(d), -1.0, found) if found > -1 else -1.0
    high = root(lambda d: -z - score(d), found, 1.0) if found < 1 else 1.0
    return Interval(low, high)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979, Scandinavian Journal of Statistics 6), in the
    order given."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, (len(p_values) - rank) * p_values[i])
        corrected[i] = min(1.0, largest)
    return corrected


def expected_maximum(n: int, std: float) -> float:
    """How far the best of n equal models lies above their mean, on average: what choosing by the
    same images costs (the expected maximum of n normal values, by quadrature)."""
    step = 0.005
    points = (step * k for k in range(-2000, 2001))
    return std * step * math.fsum(x * n * NORMAL.cdf(x) ** (n - 1) * NORMAL.pdf(x) for x in points)

"""Comparison of runs, or of groups of runs, on the same images."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trainer.evaluation import statistics
from trainer.evaluation.seed_groups import MOST_SEEDS, Difference, seeds_and_images, seeds_needed
from trainer.evaluation.statistics import NORMAL, Interval
from trainer.runs.shared_images import shared_images
from trainer.runs.sides import Side
from trainer.text.values import count

ALPHA, POWER = 0.05, 0.8
SMALL = 0.005  # a difference that people ask for: half a point


@dataclass
class Comparison:
    """Two sides on the same images: accuracies, their difference (B minus A), and how sure it is.

    Attributes:
        p_value: two-sided, unadjusted; p_holm: corrected where there are several comparisons.
    """

    a: str
    b: str
    n: int
    accuracy_a: float
    accuracy_b: float
    difference: float
    interval: Interval
    p_value: float
    p_holm: float
    method: str
    advice: str
    images: Sequence[str]

    @property
    def verdict(self) -> str:
        """In words: which is better by how much, or what it would take to tell."""
        low, high = (100 * value for value in sorted(self.interval))
        if self.p_holm < ALPHA and self.difference:
            better, other = (self.b, self.a) if self.difference > 0 else (self.a, self.b)
            low, high = (low, high) if self.difference > 0 else (-high, -low)
            return (
                f"{better} is better than {other} by {100 * abs(self.difference):.1f} points "
                f"({low:.1f} to {high:.1f}), p = {self.p_holm:.2g}"
            )
        return (
            f"{self.a} and {self.b} are not distinguishable with {count(self.n, 'image')} "
            f"(difference {100 * self.difference:+.1f} points, {low:.1f} to {high:.1f}, "
            f"p = {self.p_holm:.2g}); {self.advice}"
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "a": self.a, "b": self.b, "n": self.n, "accuracy_a": self.accuracy_a,
            "accuracy_b": self.accuracy_b, "difference": self.difference,
            "low": self.interval.low, "high": self.interval.high, "p_value": self.p_value,
            "p_holm": self.p_holm, "method": self.method, "verdict": self.verdict,
        }  # fmt: skip


def compared(sides: Sequence[Side]) -> list[Comparison]:
    """Every pair of sides, with Holm's correction for their number."""
    pairs = [compare(a, b) for a, b in itertools.combinations(sides, 2)]
    for pair, p_value in zip(pairs, statistics.holm([p.p_value for p in pairs]), strict=True):
        pair.p_holm = p_value
    return pairs


def compare(a: Side, b: Side) -> Comparison:
    images = shared_images(a, b)
    right_a, right_b = a.right(images), b.right(images)
    n, accuracies = len(images), (float(right_a.mean()), float(right_b.mean()))
    if len(right_a) == len(right_b) == 1:
        only_a, only_b = (
            int((x[0] & ~y[0]).sum()) for x, y in ((right_a, right_b), (right_b, right_a))
        )
        interval = statistics.paired_difference(only_a, only_b, n)
        p_value = statistics.mcnemar(only_a, only_b)
        method = "McNemar's exact test, Tango's interval"
        advice = images_advice(only_a + only_b, n)
    else:
        found = seeds_and_images(right_a, right_b)
        interval, p_value = found.interval, found.p_value
        method = "t-test over seeds and images"
        if min(len(right_a), len(right_b)) == 1:
            method += ", which takes a single run to vary over seeds as the other side does"
        advice = seeds_advice(found)
    difference = accuracies[1] - accuracies[0]
    return Comparison(
        a.name, b.name, n, *accuracies, difference, interval, p_value, p_value, method, advice,
        images,
    )  # fmt: skip


def images_advice(discordant: int, n: int) -> str:
    """Number of images that would show half a point, if as many of them are told apart."""
    if not discordant:
        return "both have the same images right"
    z = NORMAL.inv_cdf(1 - ALPHA / 2), NORMAL.inv_cdf(POWER)
    share = max(discordant / n, SMALL)
    needed = ((z[0] * math.sqrt(share) + z[1] * math.sqrt(share - SMALL**2)) / SMALL) ** 2
    return (
        f"about {round(needed, -2):,.0f} images would show a difference of {100 * SMALL:g} points "
        f"with {100 * POWER:.0f} % power"
    )


def seeds_advice(found: Difference) -> str:
    """Number of seeds that would show half a point on these images, or what these images can show
    at all."""
    std = math.sqrt(found.of_seed)
    needed = seeds_needed(SMALL, std, POWER, of_images=found.of_images)
    if needed is not None:
        return (
            f"{needed} seeds each would show a difference of {100 * SMALL:g} points with "
            f"{100 * POWER:.0f} % power on these images"
        )
    z = NORMAL.inv_cdf(1 - ALPHA / 2) + NORMAL.inv_cdf(POWER)
    if z * math.sqrt(found.of_images) < SMALL:
        return (
            f"more than {MOST_SEEDS:,} seeds each would be needed to show a difference of "
            f"{100 * SMALL:g} points with {100 * POWER:.0f} % power: the seeds differ too much"
        )
    least = 100 * z * math.sqrt(found.of_images)
    return (
        f"on these images no number of seeds shows less than {least:.1f} points with "
        f"{100 * POWER:.0f} % power: it takes more images"
    )

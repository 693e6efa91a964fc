"""Statistics of accuracies against scipy's, and by simulation where scipy has none."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from trainer.evaluation.seed_groups import (
    degrees_of_cochran_and_cox,
    seeds_and_images,
    seeds_needed,
)
from trainer.evaluation.statistics import (
    expected_maximum,
    holm,
    mcnemar,
    paired_difference,
    spread,
    t_cdf,
    t_quantile,
    wilson,
)

COUNTS = [(0, 1), (1, 1), (0, 10), (10, 10), (5, 7), (940, 1000), (9999, 10_000), (1, 70_000)]


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
@pytest.mark.parametrize(("num_correct", "n"), COUNTS)
def test_wilson_is_scipys(num_correct: int, n: int, level: float) -> None:
    want = stats.binomtest(num_correct, n).proportion_ci(level, "wilson")
    assert wilson(num_correct, n, level) == pytest.approx((want.low, want.high), abs=1e-9)


@pytest.mark.parametrize(("num_correct", "n"), [(-1, 5), (6, 5), (0, 0)])
def test_wilson_refuses_what_is_no_count(num_correct: int, n: int) -> None:
    with pytest.raises(ValueError, match=f"num_correct={num_correct}, n={n}"):
        wilson(num_correct, n)


@pytest.mark.parametrize("freedom", [1, 2, 3.7, 10, 1000.5])
@pytest.mark.parametrize("p", [0.001, 0.025, 0.4, 0.5, 0.9, 0.975, 0.9995])
def test_students_t_is_scipys(p: float, freedom: float) -> None:
    want = stats.t.ppf(p, freedom)
    assert t_quantile(p, freedom) == pytest.approx(want, rel=1e-8, abs=1e-9)
    assert t_cdf(want, freedom) == pytest.approx(p, abs=1e-10)


def test_the_spread_of_runs_is_scipys() -> None:
    values = [0.938, 0.941, 0.950, 0.936]
    found = spread(values)
    want = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert found.interval == pytest.approx(want, abs=1e-10)
    assert (found.mean, found.std) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    assert found.n == 4


def test_of_one_run_no_spread_is_claimed() -> None:
    found = spread([0.9])
    assert (found.mean, found.n) == (0.9, 1)
    assert math.isnan(found.std)
    assert all(map(math.isnan, found.interval))
    with pytest.raises(ValueError, match="at least one"):
        spread([])


@pytest.mark.parametrize(
    ("a", "b"), [(0, 0), (0, 1), (3, 9), (10, 10), (0, 12), (600, 700), (480, 520), (3000, 3200)]
)
def test_mcnemar_is_scipys_binomial_test(a: int, b: int) -> None:
    want = stats.binomtest(a, a + b, 0.5).pvalue if a + b else 1.0
    assert mcnemar(a, b) == pytest.approx(want, rel=1e-9)
    assert mcnemar(b, a) == mcnemar(a, b)


def test_holm_is_the_papers_rule() -> None:
    """By hand: 4 * 0.005, 3 * 0.01, 2 * 0.03 and max(0.06, 0.04)."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize(
    ("n", "want"), [(1, 0.0), (2, 1 / math.sqrt(math.pi)), (3, 1.5 / math.sqrt(math.pi))]
)
def test_the_expected_maximum_has_the_closed_forms(n: int, want: float) -> None:
    """Of two and three normal values (Jones 1948, Annals of Mathematical Statistics 19)."""
    assert expected_maximum(n, 2.0) == pytest.approx(2 * want, abs=1e-6)


def test_the_expected_maximum_of_sixteen_by_simulation() -> None:
    drawn = np.random.default_rng(0).standard_normal((200_000, 16)).max(axis=1)
    assert expected_maximum(16, 1.0) == pytest.approx(drawn.mean(), abs=4 * 0.5 / 447)


@pytest.mark.parametrize(("only_a", "only_b", "n"), [(5, 12, 200), (0, 0, 50), (0, 7, 60)])
def test_the_paired_interval_holds_the_estimate(only_a: int, only_b: int, n: int) -> None:
    low, high = paired_difference(only_a, only_b, n)
    assert -1 <= low <= (only_b - only_a) / n <= high <= 1
    assert high > low
    flipped = paired_difference(only_b, only_a, n)
    assert flipped == pytest.approx((-high, -low), abs=1e-9)


def test_tangos_interval_is_the_papers() -> None:
    """The counts of its example, 12 and 2 of 68 pairs; its score equation solved by scipy."""
    from scipy.optimize import brentq

    a, b, n, z = 2, 12, 68, stats.norm.ppf(0.975)

    def score(d: float) -> float:
        linear, constant = -a - b + (2 * n - b + a) * d, -a * d * (1 - d)
        q = (math.sqrt(linear**2 - 8 * n * constant) - linear) / (4 * n)
        return (b - a - n * d) / math.sqrt(n * (2 * q + d * (1 - d)))

    want = brentq(lambda d: score(d) - z, 0, 0.147), brentq(lambda d: score(d) + z, 0.147, 0.6)
    assert paired_difference(a, b, n) == pytest.approx(want, abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("p", "q", "n"), [(0.05, 0.08, 200), (0.03, 0.03, 1000), (0.01, 0.02, 1000)]
)
def test_the_paired_interval_covers_as_often_as_it_says(p: float, q: float, n: int) -> None:
    rng, covered = np.random.default_rng(1), 0
    for a, b, _ in rng.multinomial(n, [p, q, 1 - p - q], 10_000):
        low, high = paired_difference(int(a), int(b), n)
        covered += low <= q - p <= high
    assert 0.94 <= covered / 10_000 <= 0.96


@pytest.mark.parametrize(("low", "high", "n"), [(0.5, 0.99, 1000), (0.2, 0.8, 60)])
def test_wilson_covers_as_often_as_it_says(low: float, high: float, n: int) -> None:
    """Over many accuracies: for a single one the steps of the binomial move it by a point."""
    rng = np.random.default_rng(2)
    shares = rng.uniform(low, high, 10_000)
    intervals = [wilson(int(k), n) for k in rng.binomial(n, shares)]
    covered = sum(
        one.low <= share <= one.high for one, share in zip(intervals, shares, strict=True)
    )
    assert 0.94 <= covered / 10_000 <= 0.96


@pytest.mark.parametrize("n", [3, 16])
def test_the_interval_over_seeds_covers_as_often_as_it_says(n: int) -> None:
    rng, quantile = np.random.default_rng(3), t_quantile(0.975, n - 1)
    drawn = rng.normal(0.9, 0.004, (10_000, n))
    first = spread(drawn[0].tolist())
    half = quantile * drawn.std(axis=1, ddof=1) / math.sqrt(n)
    assert first.interval == pytest.approx((drawn[0].mean() - half[0], drawn[0].mean() + half[0]))
    covered = (abs(drawn.mean(axis=1) - 0.9) <= half).mean()
    assert 0.94 <= covered <= 0.96


@pytest.mark.slow
def test_the_interval_over_folds_is_not_too_narrow() -> None:
    """Ten folds of a nearest-mean classifier: its accuracy on new images, which it has on average
    when trained on nine tenths, is covered about as often as Nadeau and Bengio promise; by the
    plain interval far less often."""
    rng, covered, plain, trials = np.random.default_rng(4), 0, 0, 400
    for _ in range(trials):
        labels = rng.integers(0, 2, 120)
        images = rng.normal(size=(120, 30)) + 0.25 * np.where(labels, 1, -1)[:, None]
        new_labels = rng.integers(0, 2, 4000)
        new = rng.normal(size=(4000, 30)) + 0.25 * np.where(new_labels, 1, -1)[:, None]
        own, truth = [], []
        for fold in range(10):
            out = np.arange(120) % 10 == fold
            means = [images[~out & (labels == k)].mean(axis=0) for k in (0, 1)]
            w, b = means[1] - means[0], (means[1] @ means[1] - means[0] @ means[0]) / 2
            own.append(float((((images[out] @ w) > b) == labels[out]).mean()))
            truth.append((((new @ w) > b) == new_labels).mean())
        for overlap in (1 / 9, 0.0):
            low, high = spread(own, overlap=overlap).interval
            inside = low <= np.mean(truth) <= high
            covered, plain = covered + (inside and overlap > 0), plain + (inside and overlap == 0)
    assert 0.94 <= covered / trials <= 1
    assert plain < covered


def group(rng: np.random.Generator, ease: NDArray[np.float64], k: int, std: float, shift: float):
    """k runs of one configuration on the same images, some of which are hard for all."""
    seeds = rng.normal(shift, std, (k, 1))
    return ease + seeds + rng.normal(0, 0.7, (k, len(ease))) > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("runs", "n", "stds", "least", "most"),
    [
        ((3, 3), 1000, (0.05, 0.05), 0.03, 0.065), ((3, 8), 300, (0.05, 0.05), 0.03, 0.065),
        ((10, 10), 1000, (0.03, 0.03), 0.03, 0.065), ((3, 3), 300, (0.02, 0.3), 0.03, 0.075),
        ((10, 3), 300, (0.02, 0.3), 0.03, 0.08), ((10, 2), 300, (0.02, 0.3), 0, 0.07),
        ((2, 2), 300, (0.02, 0.3), 0.02, 0.07), ((2, 10), 300, (0.05, 0.05), 0, 0.05),
    ],
)  # fmt: skip
def test_equal_groups_are_told_apart_as_seldom_as_the_level_says(
    runs: tuple[int, int], n: int, stds: tuple[float, float], least: float, most: float
) -> None:
    """Also where one of two equally good configurations varies far more over its seeds. The bounds
    leave two standard errors of the simulation around 4 to 6, or to 7, of 100."""
    rng, rejected = np.random.default_rng(3), 0
    for _ in range(2000):
        ease = rng.normal(1.9, 1.2, n)
        a, b = (group(rng, ease, k, std, 0.0) for k, std in zip(runs, stds, strict=True))
        rejected += seeds_and_images(a, b).p_value < 0.05
    assert least <= rejected / 2000 <= most


@pytest.mark.parametrize(("ka", "kb"), [(3, 3), (10, 4), (2, 2), (2, 6)])
def test_where_all_images_are_alike_it_is_welchs_test(ka: int, kb: int) -> None:
    """By scipy. Each run has a random part of the images right, so that none is hard for all;
    with two runs against more it is more careful than that."""
    rng, found = np.random.default_rng(ka), []
    while len(found) < 5:
        a, b = (
            rng.random((k, 400)) < rng.normal(0.85, std, (k, 1))
            for k, std in ((ka, 0.01), (kb, 0.08))
        )
        if (one := seeds_and_images(a, b)).of_images == 0:
            found.append(one)
            want = stats.ttest_ind(b.mean(axis=1), a.mean(axis=1), equal_var=False)
            if min(ka, kb) == 2 < max(ka, kb):
                assert one.p_value > want.pvalue
            else:
                assert one.p_value == pytest.approx(want.pvalue, rel=1e-6)
                assert one.interval == pytest.approx(want.confidence_interval(), abs=1e-9)
            assert (one.p_value < 0.05) == (one.interval.low > 0 or one.interval.high < 0)


def test_the_quantile_of_cochran_and_cox_is_the_mean_of_the_parts() -> None:
    parts = [(0.5, 1), (0.3, 9), (0.2, 399)]
    quantile = sum(share * stats.t.ppf(0.975, own) for share, own in parts)
    degrees = degrees_of_cochran_and_cox(parts, 0.95)
    assert stats.t.ppf(0.975, degrees) == pytest.approx(quantile, rel=1e-8)


def test_groups_that_differ_are_told_apart() -> None:
    rng = np.random.default_rng(4)
    ease = rng.normal(1.9, 1.2, 2000)
    a, b = group(rng, ease, 5, 0.03, 0.0), group(rng, ease, 5, 0.03, 0.6)
    found = seeds_and_images(a, b)
    assert found.interval.low > 0
    assert found.p_value < 0.001
    assert found.value == pytest.approx(b.mean() - a.mean())


@pytest.mark.parametrize("shapes", [((1, 9), (1, 9)), ((3, 9), (3, 8))])
def test_groups_that_cannot_be_compared(shapes: tuple[tuple[int, int], ...]) -> None:
    a, b = (np.ones(shape, bool) for shape in shapes)
    with pytest.raises(ValueError, match="same images"):
        seeds_and_images(a, b)


@pytest.mark.slow
def test_so_many_seeds_show_the_difference_as_often_as_promised() -> None:
    n = seeds_needed(0.005, 0.004)
    rng = np.random.default_rng(5)
    a, b = rng.normal(0.940, 0.004, (5000, n)), rng.normal(0.945, 0.004, (5000, n))
    power = (stats.ttest_ind(a, b, axis=1).pvalue < 0.05).mean()
    assert 0.78 <= power <= 0.87
    fewer = (stats.ttest_ind(a[:, :-2], b[:, :-2], axis=1).pvalue < 0.05).mean()
    assert fewer < 0.8


def test_seeds_needed_names_what_is_no_difference() -> None:
    with pytest.raises(ValueError, match="difference=0"):
        seeds_needed(0, 0.01)

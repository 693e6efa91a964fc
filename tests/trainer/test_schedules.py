"""Schedules against torch.optim.lr_scheduler, and warm-up by hand."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from trainer import schedules

STEPS_PER_EPOCH, EPOCHS = 7, 12
TOTAL = STEPS_PER_EPOCH * EPOCHS
TIMING = {"total_steps": TOTAL, "steps_per_epoch": STEPS_PER_EPOCH}


def torch_factors(make: Callable[[Any], Any], per_step: bool) -> list[float]:
    """The rate that torch's scheduler gives each of our steps, with a base rate of 1."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the order of optimizer.step, of which there is none
        scheduler, factors = make(optimizer), []
        for step in range(TOTAL):
            if step and (per_step or step % STEPS_PER_EPOCH == 0):
                scheduler.step()
            factors.append(optimizer.param_groups[0]["lr"])
    return factors


CASES = [
    (schedules.Constant(**TIMING), lambda o: lr_scheduler.ConstantLR(o, 1.0), False),
    (schedules.Step(first=3, every=3, divide_by=10, **TIMING),
     lambda o: lr_scheduler.StepLR(o, 3, 0.1), False),
    (schedules.Step(first=5, every=2, divide_by=5, **TIMING),
     lambda o: lr_scheduler.MultiStepLR(o, [5, 7, 9, 11], 0.2), False),
    (schedules.MultiStep([4, 9], 0.3, **TIMING),
     lambda o: lr_scheduler.MultiStepLR(o, [4, 9], 0.3), False),
    (schedules.Exponential(0.9, **TIMING), lambda o: lr_scheduler.ExponentialLR(o, 0.9), False),
    (schedules.Cosine(**TIMING), lambda o: lr_scheduler.CosineAnnealingLR(o, TOTAL), True),
    (schedules.Cosine(min_factor=0.1, **TIMING),
     lambda o: lr_scheduler.CosineAnnealingLR(o, TOTAL, eta_min=0.1), True),
    (schedules.OneCycle(0.3, 0.04, 4e-6, "cosine", **TIMING),
     lambda o: lr_scheduler.OneCycleLR(o, 1.0, TOTAL), True),
    (schedules.OneCycle(0.2, 0.1, 1e-4, "linear", **TIMING),
     lambda o: lr_scheduler.OneCycleLR(o, 1.0, TOTAL, pct_start=0.2, anneal_strategy="linear",
                                       div_factor=10, final_div_factor=1000), True),
    (schedules.Polynomial(1.0, 0.0, **TIMING),
     lambda o: lr_scheduler.PolynomialLR(o, TOTAL, power=1.0), True),
    (schedules.Polynomial(2.5, 0.0, **TIMING),
     lambda o: lr_scheduler.PolynomialLR(o, TOTAL, power=2.5), True),
    (schedules.Polynomial(1.0, 0.1, **TIMING),
     lambda o: lr_scheduler.LinearLR(o, 1.0, 0.1, TOTAL), True),
    (schedules.WSD(0.25, "linear", 0.2, **TIMING),
     lambda o: lr_scheduler.SequentialLR(
         o, [lr_scheduler.ConstantLR(o, 1.0), lr_scheduler.LinearLR(o, 1.0, 0.2, TOTAL // 4)],
         [TOTAL - TOTAL // 4]), True),
    (schedules.WSD(0.25, "1-sqrt", 0.0, **TIMING),
     lambda o: lr_scheduler.LambdaLR(o, lambda s: 1 - max(0.0, (s - 63) / 21) ** 0.5), True),
]  # fmt: skip


@pytest.mark.parametrize(("ours", "make", "per_step"), CASES)
def test_same_as_torch(ours: schedules.Schedule, make: Any, per_step: bool) -> None:
    factors = [ours.factor(step) for step in range(TOTAL)]
    assert factors == pytest.approx(torch_factors(make, per_step), rel=1e-6, abs=1e-9)


def test_plateau_is_torchs() -> None:
    losses = [1.0, 0.9, 0.95, 0.91, 0.92, 0.93, 0.8, 0.9, 0.9, 0.9, 0.9, 0.9, math.nan, 0.9]
    ours = schedules.Plateau(gamma=0.5, patience=2, threshold=1e-4, min_factor=0.2, **TIMING)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=2, threshold=1e-4, min_lr=0.2
    )
    seen = []
    for loss in losses:
        ours.observe(loss)
        theirs.step(loss)
        assert ours.factor(0) == optimizer.param_groups[0]["lr"]
        seen.append(ours.factor(0))
    assert len(set(seen)) > 2


def test_plateau_goes_on_from_its_state() -> None:
    options = {"gamma": 0.5, "patience": 1, "threshold": 0.0, "min_factor": 0.0, **TIMING}
    whole, first, second = (schedules.Plateau(**options) for _ in range(3))
    losses = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    for loss in losses:
        whole.observe(loss)
    for loss in losses[:3]:
        first.observe(loss)
    second.load_state_dict(first.state_dict())
    for loss in losses[3:]:
        second.observe(loss)
    assert second.state_dict() == whole.state_dict()
    assert second.factor(0) < first.factor(0)


def test_warm_up_rises_in_a_line_and_then_is_gone() -> None:
    plain = schedules.Cosine(**TIMING)
    steps = STEPS_PER_EPOCH + 1  # a tenth of the run, rounded down, is the most
    assert schedules.Cosine(warmup_steps=10**6, **TIMING).warmup_steps == TOTAL // 10 == steps
    warm = schedules.Cosine(warmup_steps=steps, **TIMING)
    for step in range(TOTAL):
        expected = plain.factor(step) * min(1, (step + 1) / steps)
        assert warm.factor(step) == pytest.approx(expected)
    assert warm.factor(0) > 0


def test_stable_part_does_not_depend_on_the_length_of_the_run() -> None:
    longer = {**TIMING, "total_steps": 2 * TOTAL}
    short, long = (schedules.WSD(0.2, "1-sqrt", 0.0, **t) for t in (TIMING, longer))
    stable = TOTAL - math.ceil(0.2 * TOTAL)
    assert {short.factor(step) for step in range(stable)} == {1.0}
    assert {long.factor(step) for step in range(2 * stable)} == {1.0}
    assert 0 < short.factor(TOTAL - 1) < 0.1


def test_a_run_of_a_single_step() -> None:
    timing = {"total_steps": 1, "steps_per_epoch": 1}
    assert schedules.WSD(0.2, "linear", 0.0, **timing).factor(0) == 1
    assert schedules.Polynomial(1.0, 0.0, **timing).factor(0) == 1
    assert schedules.OneCycle(0.3, 0.04, 4e-6, "cosine", **timing).factor(0) == pytest.approx(1)
    assert schedules.Cosine(**timing).factor(0) == 1

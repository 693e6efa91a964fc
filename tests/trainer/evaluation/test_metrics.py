"""Meter of loss and accuracy: a sum in float64, and the same batch by batch."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
import torch

from trainer.evaluation.metrics import (
    BLOCK,
    MAX_PENDING_BATCHES,
    MAX_PENDING_LOGITS,
    Meter,
    TensorBuffer,
    no_better_than_guessing,
)

K = 8


def losses_in(meter: Meter, values: list[float], every: int) -> Meter:
    """Batches of three images, read after each so many."""
    for number, value in enumerate(values, 1):
        mean = torch.tensor(value, dtype=torch.float64)
        meter.add(mean, torch.zeros(3, K), torch.zeros(3, dtype=torch.long))
        if number % every == 0:
            meter.read()
    return meter


@pytest.mark.parametrize("every", [1, 3, 100])
def test_the_sum_of_losses_is_the_same_however_often_it_is_read(every: int) -> None:
    """And as good as the exact one: losses in float32 that fall from 10 to 1e-6."""
    values = torch.logspace(1, -6, 5000, dtype=torch.float32).tolist()
    once = losses_in(Meter(), values, 10**6).read().loss
    assert losses_in(Meter(), values, every).read().loss == once
    exact = sum(Fraction(value) for value in values) / len(values)
    assert once == pytest.approx(float(exact), rel=5000 * 2**-53)
    assert torch.tensor(once, dtype=torch.float32) == float(torch.tensor(float(exact)))
    for bad in (math.inf, -math.inf, math.nan):
        assert math.isnan(losses_in(Meter(), [1.0, bad, 1.0], every).read().loss)


def test_a_meter_does_not_hold_the_logits_of_a_whole_split() -> None:
    meter, right, num_batches = Meter(), 0, MAX_PENDING_BATCHES + 5
    for n in range(num_batches):
        meter.add(torch.tensor(1.0), torch.eye(K)[:3], torch.tensor([0, 1, n % K]))
        right += 2 + (n % K == 2)
    assert len(meter._pending) == 5
    assert meter.read().accuracy == right / (3 * num_batches)


def test_a_meter_goes_on_from_its_state() -> None:
    values = [0.1 * n for n in range(-5, 20)]
    whole = losses_in(Meter(), values, 4).read()
    first, second = losses_in(Meter(), values[:7], 4), Meter()
    second.load_state_dict(first.state_dict())
    assert losses_in(second, values[7:], 5).read() == whole
    first.load_state_dict(losses_in(Meter(), [math.nan], 1).state_dict())
    assert math.isnan(losses_in(first, values, 4).read().loss)


@pytest.mark.parametrize("kind", ["losses", "a whole number", "not finite"])
def test_a_meter_takes_what_earlier_states_have(kind: str) -> None:
    """A list of terms, then a whole number of the smallest float, 2**-1074, in hexadecimal."""
    values = [0.125 * n for n in range(25)]
    state: dict[str, Any] = {"num_images": 21, "num_correct": 21}
    if kind == "losses":
        state["losses"] = [3 * value for value in values[:7]]
    else:
        whole = int(sum(Fraction(3 * value) for value in values[:7]) * 2**1074)
        state |= {"loss_sum": hex(whole), "is_finite": kind != "not finite"}
    meter = Meter()
    meter.load_state_dict(state)
    found, want = losses_in(meter, values[7:], 5).read(), losses_in(Meter(), values, 5).read()
    if kind == "not finite":
        assert math.isnan(found.loss)
    else:
        assert found == want


@pytest.mark.parametrize("sizes", [[3, 4], [BLOCK, 1], [BLOCK - 1, 2, 5], [7, 3 * BLOCK, 2]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool])
def test_what_is_gathered_comes_back_in_order(sizes: list[int], dtype: torch.dtype) -> None:
    gathered = TensorBuffer()
    for _ in range(2):
        given = [torch.arange(n).remainder(7).to(dtype) for n in sizes]
        for values in given:
            with torch.inference_mode(len(values) < 4):
                gathered.add(values)
        assert torch.equal(gathered.all(), torch.cat(given))
        assert gathered.all().dtype == dtype
        gathered.clear()
    for values in (torch.tensor([0.5]), torch.tensor([0.1], dtype=torch.float64)):
        gathered.add(values)
    assert gathered.all().tolist() == [0.5, 0.1]


def test_a_meter_holds_few_logits_of_many_classes() -> None:
    num_classes = MAX_PENDING_LOGITS // 4
    meter, logits = Meter(), torch.zeros(1, num_classes)
    for n in range(1, 10):
        meter.add(torch.tensor(1.0), logits, torch.tensor([0]))
        assert len(meter._pending) == n % 4
    assert meter.read().num_images == 9
    for _ in range(3):
        meter.add(torch.tensor(1.0), logits[:, :9], torch.tensor([0]))
    assert len(meter._pending) == 3  # what was read counts no more


@pytest.mark.parametrize("num_wrong", [0, 1, 2])
def test_the_count_is_exact_beyond_what_float32_holds(num_wrong: int) -> None:
    """One batch of 2**24 + 1 images of one class."""
    num_images = 2**24 + 1
    labels = torch.zeros(num_images, dtype=torch.int64)
    labels[:num_wrong] = 1
    meter = Meter()
    meter.add(torch.tensor(0.5), torch.zeros(num_images, 1, dtype=torch.bfloat16), labels)
    assert meter.read().num_images == num_images
    assert meter.num_correct == num_images - num_wrong
    assert meter.read().accuracy == (num_images - num_wrong) / num_images


def test_no_better_than_always_saying_the_largest_class() -> None:
    labels = torch.tensor([0, 1, 1, 1])
    line = no_better_than_guessing(labels, ["cat", "dog"], 0.75)
    assert line.startswith("no better than always predicting dog, which is right for 0.7500 of")
    assert no_better_than_guessing(labels, ["cat", "dog"], 0.5)
    assert not no_better_than_guessing(labels, ["cat", "dog"], 0.76)

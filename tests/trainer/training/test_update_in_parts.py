"""A batch in parts is the whole batch up to rounding, however uneven its parts."""

from __future__ import annotations

import contextlib
import functools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from data.loading.part import Part
from tests.helpers import norm_net, results, several
from tests.helpers.commands import run_trainer, train
from trainer.builders.steps import number_of_parts
from trainer.losses import CrossEntropy
from trainer.training import loop
from trainer.training.step import CheckedStep, ScaledStep


def stepped(
    update: Any, number: int, step: type[CheckedStep] = CheckedStep
) -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 20), nn.Tanh(), nn.Linear(20, 5))
    guard = step(torch.optim.SGD(model.parameters(), lr=1.0), model.parameters())
    images, targets = torch.randn(number, 12), torch.randint(5, (number,))
    return model, update(model, CrossEntropy(), guard, contextlib.nullcontext(), images, targets)


@pytest.mark.parametrize("step", [CheckedStep, ScaledStep])
@pytest.mark.parametrize(("number", "most"), [(128, 32), (101, 32), (7, 32), (33, 32)])
def test_it_is_the_whole_batch(number: int, most: int, step: type[CheckedStep]) -> None:
    in_parts = functools.partial(
        loop.update_in_parts, count=functools.partial(number_of_parts, most, None)
    )
    whole, (loss, logits) = stepped(loop.update, number, step)
    parts, (its_loss, its_logits) = stepped(in_parts, number, step)
    assert float(abs(loss - its_loss).detach()) < 1e-6
    torch.testing.assert_close(its_logits, logits)
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        assert float((one - other).detach().abs().max()) < 1e-6


def test_parts_that_weigh_alike_are_another_update() -> None:
    """The twin: of 33 images in two parts, one has more."""
    whole, _ = stepped(loop.update, 33)

    def wrong(model: Any, loss: Any, stepper: Any, autocast: Any, x: Any, t: Any) -> None:
        for a, b in zip(x.tensor_split(2), t.tensor_split(2), strict=True):
            stepper.backward(loss(model(a), b) / 2)
        stepper.check_and_clip()
        stepper.step()

    parts, _ = stepped(wrong, 33)
    assert not torch.allclose(whole[0].weight, parts[0].weight, atol=1e-5)  # type: ignore[index]


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("most", [1, 2, 3, 5, 16])
def test_processes_divide_alike(size: int, most: int) -> None:
    for number in range(2 * size, 60):
        counts, spans = set(), []
        for rank in range(size):
            part = Part(rank, size)
            part.begin(number)
            first, end = part.span(number)
            spans.append(end - first)
            counts.add(number_of_parts(most, part, end - first))
        (count,) = counts
        assert count <= min(spans)
        assert math.ceil(max(spans) / count) <= most + 1


def test_the_run_is_that_of_the_whole_batch(tmp_path: Path) -> None:
    words = [*norm_net.TINY, "precision=fp64", "optimizer=sgd", "hydra.run.dir=two"]
    one = train(tmp_path, *words[:-1], folder="one").folder
    parts = train(tmp_path, *words[:-1], "micro_batch_size=5", folder="parts").folder
    ended = several.run(tmp_path, *words, "micro_batch_size=3", number=2)
    assert [e.code for e in ended] == [0, 0], [e.output for e in ended]
    losses = [[row["loss"] for row in results.rows(f)] for f in (one, parts, tmp_path / "two")]
    assert losses[1] == pytest.approx(losses[0], abs=1e-12)
    assert losses[2] == pytest.approx(losses[0], abs=1e-12)
    assert results.summary(parts)["steps"] == results.summary(one)["steps"]


def test_batch_norm_over_parts_of_several_processes(tmp_path: Path) -> None:
    words = [*norm_net.write(tmp_path), "micro_batch_size=3", "hydra.run.dir=two"]
    ended = several.run(tmp_path, *words, number=2)
    assert [e.code for e in ended] == [0, 0], [e.output for e in ended]


@pytest.mark.parametrize(
    ("words", "told"),
    [(["compile=step", "micro_batch_size=4"], "micro_batch_size=4 with compile=step"),
     (["micro_batch_size=16"], "micro_batch_size=16: has no effect: batch_size=16")],
)  # fmt: skip
def test_refused(tmp_path: Path, words: list[str], told: str) -> None:
    done = run_trainer(*norm_net.TINY, *words, cwd=tmp_path)
    assert done.returncode == 2
    assert told in done.output


def test_numpy_layers_take_parts(tmp_path: Path) -> None:
    words = [*norm_net.TINY, "layers=numpy", "precision=fp64", "epochs=1"]
    one = train(tmp_path, *words, folder="one").folder
    parts = train(tmp_path, *words, "micro_batch_size=5", folder="parts").folder
    assert results.rows(parts)[0]["loss"] == pytest.approx(results.rows(one)[0]["loss"], abs=1e-12)

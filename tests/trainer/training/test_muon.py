"""Muon against torch.optim.Muon on matrices and torch.optim.AdamW on the rest; in a training."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.lenet import LeNet5
from tests.helpers import results, several
from tests.helpers.commands import run_trainer, train
from tests.helpers.compiled_parts import Perceptron, assert_trains_alike, parts
from trainer.builders import param_groups
from trainer.training.muon import Muon, orthogonalised

OPTIONS: dict[str, Any] = {"lr": 0.03, "weight_decay": 0.2}
LENET = ["data=synthetic", "data.num_train=120", "data.num_test=40", "data.num_classes=4",
         "data.shape=[1,16,16]", "model=lenet5", "optimizer=muon", "epochs=3", "num_threads=1",
         "tensorboard=false"]  # fmt: skip


def trained(optimizer: type[Any], weights: list[Tensor], steps: int = 20, **options: Any) -> Any:
    parameters = [nn.Parameter(weight.clone()) for weight in weights]
    made = optimizer(parameters, **OPTIONS, **options)
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        made.step()
    return parameters


def weights(*shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for shape in shapes]


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("exact", [True, False])
def test_matrices_as_torchs_muon(
    monkeypatch: pytest.MonkeyPatch, nesterov: bool, exact: bool
) -> None:
    """Torch's iterates in bfloat16, here in the weights' own precision; told not to, it agrees."""
    if exact:
        monkeypatch.setattr(Tensor, "bfloat16", Tensor.clone)
    start = weights((9, 4), (4, 9), (5, 5))
    ours = trained(Muon, start, nesterov=nesterov, momentum=0.9)
    theirs = trained(
        torch.optim.Muon, start, nesterov=nesterov, momentum=0.9, adjust_lr_fn="match_rms_adamw"
    )
    tolerance = 1e-5 if exact else 0.05
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)
    if not exact:  # the twin: so near by chance is nothing
        plain = trained(torch.optim.AdamW, start)
        assert (plain[0] - theirs[0]).abs().max() > 0.2


def test_filters_are_matrices_of_their_maps() -> None:
    (filters,) = weights((6, 2, 3, 3))
    (ours,) = trained(Muon, [filters])
    (matrix,) = trained(Muon, [filters.flatten(1)])
    torch.testing.assert_close(ours.flatten(1), matrix, rtol=1e-4, atol=1e-5)


def test_the_rest_is_torchs_adamw() -> None:
    start = weights((7,), (5, 3), (2, 3, 2, 2))
    ours = [nn.Parameter(weight.clone()) for weight in start]
    theirs = [nn.Parameter(weight.clone()) for weight in start]
    mine = Muon([{"params": ours, "is_hidden": False}], **OPTIONS, betas=[0.8, 0.95])
    reference = torch.optim.AdamW(theirs, **OPTIONS, betas=(0.8, 0.95))
    for step in range(20):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn(one.shape, generator=torch.Generator().manual_seed(step))
            other.grad = one.grad.clone()
        mine.step()
        reference.step()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_singular_values_come_near_one() -> None:
    matrix = torch.randn(30, 20, generator=torch.Generator().manual_seed(0))
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    assert s.max() / s.min() > 5
    after = u.T @ orthogonalised(matrix, 5) @ v.T
    assert 0.6 < after.diagonal().min() <= after.diagonal().max() < 1.3
    assert (after - after.diagonal().diag()).abs().max() < 1e-4


def test_first_and_last_layer_are_no_hidden_ones() -> None:
    model = LeNet5([1, 32, 32], 10)
    layers = [n for n, p in model.named_parameters() if p.ndim > 1]
    assert param_groups.hidden(model) == set(layers[1:-1])
    assert len(layers) > 3


def test_compiled_step_is_the_eager_one() -> None:
    ours, theirs = (parts(Perceptron, Muon, {"lr": 0.01}) for _ in range(2))
    assert_trains_alike(ours, copy.copy(theirs), 20, 1e-4)


@pytest.mark.slow  # of the usual engine: a row of tests.campaigns.kills
@pytest.mark.parametrize("more", [["compile=step"], ["precision=fp16"], ["layers=numpy"]])
def test_resumed_to_the_same_bits(tmp_path: Path, more: list[str]) -> None:
    whole = train(tmp_path, *LENET, *more, folder="whole")
    assert "_hidden: learning rate 0.001, weight decay 0.01" in whole.command.stdout
    train(tmp_path, *LENET, *more, "stop_epoch=1")
    later = run_trainer("resume", "run", cwd=tmp_path)
    assert later.returncode == 0, later.output
    results.assert_same(tmp_path / "run", tmp_path / "whole")


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    words = [*LENET, "precision=fp64"]
    alone = train(tmp_path, *words, folder="alone")
    ended = several.run(tmp_path, *words, "processes=2", "hydra.run.dir=run")
    assert [one.code for one in ended] == [0, 0], ended
    losses = [[row["loss"] for row in results.rows(f)] for f in (alone.folder, tmp_path / "run")]
    assert losses[0] == pytest.approx(losses[1], abs=1e-9)

"""Frozen parts: what is trained, from which epoch on, and which statistics go on."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from tests.helpers import norm_net, results, several
from tests.helpers.commands import run_trainer, train
from trainer import checkpoints
from trainer.runs.progress import Progress
from trainer.training.rules.unfreezing import Unfreezing
from trainer.training.step import CheckedStep

BODY = ["freeze=[0.*,1.*]", "save_every_steps=1"]


def state_after(run: Path, step: int) -> dict[str, torch.Tensor]:
    """Weights in the newest state, which must be of that step."""
    path = checkpoints.states_in(run / "checkpoints")[-1]
    assert checkpoints.step_of(path) == step
    weights: dict[str, torch.Tensor] = checkpoints.read(path)["model"]
    return weights


@pytest.mark.parametrize("freezes", [True, False])
def test_frozen_statistics_stay_or_go_on(tmp_path: Path, freezes: bool) -> None:
    words = [*norm_net.write(tmp_path), *BODY, f"freeze_batch_norm={str(freezes).lower()}"]
    run = train(tmp_path, *words, folder="run").folder
    weights = state_after(run, 9)
    assert bool(weights["1.running_mean"].any()) is not freezes
    assert bool((weights["1.weight"] == 1).all())


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_what_was_frozen_is_trained_from_its_epoch_on(tmp_path: Path, optimizer: str) -> None:
    body = [*BODY, f"optimizer={optimizer}"]
    words = [*norm_net.write(tmp_path), *body, "unfreeze_epoch=2", "stop_epoch=1"]
    run = train(tmp_path, *words, folder="run").folder
    first = state_after(run, 3)
    assert not first["1.running_mean"].any()
    assert (first["1.weight"] == 1).all()
    done = run_trainer("resume", "run", "stop_epoch=2", "trust=[norm_net]", cwd=tmp_path)
    assert done.returncode == 0, done.output
    assert "epoch 2: what was frozen is trained from here on" in done.output
    second = state_after(run, 6)
    for name in ("0.weight", "1.weight", "1.running_mean", "5.weight"):
        assert not torch.equal(first[name], second[name]), name
    done = run_trainer("resume", "run", "stop_epoch=0", "trust=[norm_net]", cwd=tmp_path)
    assert done.returncode == 0, done.output
    whole = train(tmp_path, *words[:-1], folder="whole").folder
    key = "weights_sha256"
    assert results.summary(run)[key] == results.summary(whole)[key]
    # Before its epoch it is the training with frozen parts.
    frozen = train(tmp_path, *words[:-2], folder="frozen").folder
    assert results.rows(frozen)[:2] == results.rows(whole)[:2]
    assert results.rows(frozen)[2:] != results.rows(whole)[2:]


def test_several_processes_unfreeze_together(tmp_path: Path) -> None:
    words = [*norm_net.TINY, "freeze=[hidden*]", "unfreeze_epoch=2", "precision=fp64"]
    one = train(tmp_path, *words, folder="one").folder
    ended = several.run(tmp_path, *words, "hydra.run.dir=two")
    assert [e.code for e in ended] == [0, 0], [e.output for e in ended]
    losses = [[row["loss"] for row in results.rows(f)] for f in (one, tmp_path / "two")]
    assert losses[0] == pytest.approx(losses[1], abs=1e-12)


@pytest.mark.parametrize("options", [{"momentum": 0.9, "nesterov": True}, {}])
def test_momentum_begins_as_torch_begins_it(options: dict[str, Any]) -> None:
    nets = [nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2)) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    fused, plain = (
        torch.optim.SGD(net.parameters(), lr=0.1, weight_decay=0.1, fused=is_fused, **options)
        for net, is_fused in zip(nets, (True, False), strict=True)
    )
    for net in nets:
        net[0].requires_grad_(False)
    rule = Unfreezing(2, nets[0])
    guard = CheckedStep(fused, nets[0].parameters())
    for epoch in range(3):
        rule.start_epoch(SimpleNamespace(progress=Progress(epoch), optimizer=fused))  # type: ignore[arg-type]
        nets[1][0].requires_grad_(epoch > 0)
        for _ in range(2):
            guard.zero_grad()
            guard.backward(nets[0](torch.ones(4, 3)).square().mean())
            guard.check_and_clip()
            guard.step()
            plain.zero_grad()
            nets[1](torch.ones(4, 3)).square().mean().backward()
            plain.step()
    for one, other in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("words", "told"),
    [(["unfreeze_epoch=2"], "unfreeze_epoch=2: has no effect: nothing is frozen"),
     (["freeze_batch_norm=false"], "freeze_batch_norm=false: has no effect: nothing is frozen"),
     (["freeze=[hidden*]", "unfreeze_epoch=9"], "unfreeze_epoch=9 with epochs=3"),
     (["freeze=[hidden*]", "unfreeze_epoch=2", "compile=step"],
      "unfreeze_epoch=2 with compile=step: not supported")],
)  # fmt: skip
def test_refused(tmp_path: Path, words: list[str], told: str) -> None:
    done = run_trainer(*norm_net.TINY, *words, cwd=tmp_path)
    assert done.returncode == 2
    assert told in done.output

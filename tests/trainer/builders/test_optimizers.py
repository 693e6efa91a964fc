"""Optimizers of torch and of the user by _target_, and AMSGrad."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.helpers import results
from tests.helpers.commands import run_trainer, train
from tests.helpers.small_sweeps import SMALL
from trainer import checkpoints

OWN = """
import torch


class Signs(torch.optim.Optimizer):
    def __init__(self, params, lr=0.01, decay=0.9):
        super().__init__(params, {"lr": lr, "decay": decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                mean = self.state[p].setdefault("mean", torch.zeros_like(p))
                mean.lerp_(p.grad, 1 - group["decay"])
                p.sub_(mean.sign() * group["lr"])
"""
YAML = "_target_: {}\n_partial_: true\nlr: 0.002\n"
NOT_OF_ASGD = ["~optimizer.betas", "~optimizer.eps"]

CASES = {
    "NAdam": ["optimizer._target_=torch.optim.NAdam", "+optimizer.momentum_decay=0.01"],
    "ASGD": ["optimizer._target_=torch.optim.ASGD", *NOT_OF_ASGD, "+optimizer.lambd=0.001"],
    "AdamW": ["optimizer=adamw", "optimizer.amsgrad=true"],
    "Signs": ["--config-dir", "own", "optimizer=signs"],
    "Adafactor": ["--config-dir", "own", "optimizer=adafactor"],
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_trained_and_resumed_to_the_same_bits(tmp_path: Path, name: str) -> None:
    (tmp_path / "own" / "optimizer").mkdir(parents=True)
    (tmp_path / "signs.py").write_text(OWN)
    for choice, target in (("signs", "signs.Signs"), ("adafactor", "torch.optim.Adafactor")):
        (tmp_path / "own" / "optimizer" / f"{choice}.yaml").write_text(YAML.format(target))
    words = [*SMALL, "epochs=3", *CASES[name]]
    whole = train(tmp_path, *words, folder="whole")
    rows = [row["loss"] for row in whole.rows if row["split"] == "train"]
    assert rows[-1] < rows[0]
    train(tmp_path, *words, "stop_epoch=1")
    trusted = ["trust=[signs]"] * (name == "Signs")
    later = run_trainer("resume", "run", *trusted, cwd=tmp_path)
    assert later.returncode == 0, later.output
    results.assert_same(tmp_path / "run", tmp_path / "whole")
    state = checkpoints.read(tmp_path / "run" / "checkpoints" / "last.pth")
    assert state["optimizer_class"] == name
    kept = {key for one in state["optimizer"]["state"].values() for key in one}
    assert ("max_exp_avg_sq" in kept) == ("optimizer.amsgrad=true" in words)


def test_the_options_reach_torch(tmp_path: Path) -> None:
    run = train(tmp_path, *SMALL, *CASES["NAdam"], "epochs=1")
    state = checkpoints.read(run.folder / "checkpoints" / "last.pth")["optimizer"]
    assert state["param_groups"][0]["momentum_decay"] == 0.01
    assert torch.optim.NAdam([torch.zeros(1)]).defaults["momentum_decay"] != 0.01


def test_a_switch_of_another_class_is_refused_unless_it_is_off(tmp_path: Path) -> None:
    words = [*SMALL, "optimizer._target_=torch.optim.NAdam", "epochs=1"]
    train(tmp_path, *words)
    refused = run_trainer(*words, "optimizer.amsgrad=true", "hydra.run.dir=no", cwd=tmp_path)
    assert refused.returncode == 2
    assert "There is no key 'optimizer.amsgrad'" in refused.output

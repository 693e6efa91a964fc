"""Averaged weights against torch.optim.swa_utils and the formulas, and exact over resume."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from tests.helpers import norm_net, results, several
from tests.helpers.commands import run_trainer, train
from trainer import checkpoints
from trainer.system.device import autocast
from trainer.training.rules.averaging import ExponentialAverage, StochasticWeightAverage

EMA = ["average=ema", "average.decay=0.8"]
SWA = ["average=swa", "average.start_epoch=1"]


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(0.3), nn.Linear(5, 3))


def walk(model: nn.Module) -> None:
    """Other weights and statistics."""
    model.train()
    model(torch.randn(6, 4))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))


def differ(one: nn.Module, other: nn.Module) -> float:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return max(float((a.double() - b.double()).abs().max()) for a, b in pairs)


def test_the_moving_average_is_torchs() -> None:
    model, rule = net(), ExponentialAverage(decay=0.8, warmup=False)
    rule.attach(model)
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.8), use_buffers=True)
    for _ in range(5):
        walk(model)
        rule.take()
        theirs.update_parameters(model)
    theirs.module[1].num_batches_tracked.fill_(5)  # torch averages this counter, too
    assert differ(rule.model, theirs.module) == 0
    assert differ(rule.model, model) > 0.1


def test_the_decay_warms_up() -> None:
    model, rule = net(), ExponentialAverage(decay=0.25)
    rule.attach(model)
    weight: Any = model[0].weight  # type: ignore[index]
    mean = None
    for number in range(6):
        walk(model)
        rule.take()
        decay = min(0.25, (1 + number) / (10 + number))
        now = weight.detach().clone()
        mean = now if mean is None else decay * mean + (1 - decay) * now
    torch.testing.assert_close(rule.model[0].weight, mean)  # type: ignore[index]


def fake_run(model: nn.Module, batches: list[Any], batch: int = 0) -> Any:
    source = SimpleNamespace(epoch=lambda epoch=0, start=0: iter(batches))
    return SimpleNamespace(
        model=model, train=batches, interruptible=lambda _: source,
        seed_step=lambda _: torch.manual_seed(7), autocast=autocast("fp32", torch.device("cpu")),
        progress=SimpleNamespace(epoch=0, batch=batch, step=0),
    )  # fmt: skip


def test_the_mean_of_epochs_has_statistics_of_its_own() -> None:
    model, rule, seen = net(), StochasticWeightAverage(), []
    rule.attach(model)
    batches = [(torch.randn(6, 4), torch.zeros(6)) for _ in range(3)]
    for batch in (1, 3, 2, 3, 3):  # three of them end an epoch
        walk(model)
        rule.step(fake_run(model, batches, batch))
        if batch == 3:
            seen.append(copy.deepcopy(model))
    assert rule.number == 3
    for name, weight in rule.model.named_parameters():
        mean = torch.stack([m.get_parameter(name) for m in seen]).mean(0)
        torch.testing.assert_close(weight, mean)
    theirs = copy.deepcopy(rule.model)
    update_bn([images for images, _ in batches], theirs)
    assert differ(rule.model, theirs) > 0.1
    rule.evaluate(fake_run(model, batches))
    assert differ(rule.model, theirs) < 1e-6
    assert rule.model[1].momentum == 0.1  # type: ignore[index]


def test_frozen_statistics_stay() -> None:
    model, rule = net(), StochasticWeightAverage()
    vars(model[1])["train"] = lambda mode=True: model[1]  # type: ignore[index]
    rule.attach(model)
    walk(model)
    rule.take()
    before = copy.deepcopy(rule.model)
    rule.evaluate(fake_run(model, [(torch.randn(6, 4), None)]))
    assert differ(rule.model, before) == 0


def test_it_is_the_model_itself_before_its_start() -> None:
    model, rule = net(), ExponentialAverage(start_epoch=1)
    rule.attach(model)
    walk(model)
    rule.step(fake_run(model, []))
    rule.evaluate(fake_run(model, []))
    assert rule.number == 0
    assert differ(rule.model, model) == 0


@pytest.mark.parametrize("words", [EMA, SWA], ids=["ema", "swa"])
def test_resumed_it_is_the_same(tmp_path: Path, words: list[str]) -> None:
    words = [*norm_net.write(tmp_path), *words, "save_every_steps=1"]
    whole = train(tmp_path, *words, folder="whole")
    cut = train(tmp_path, *words, "stop_epoch=2", folder="cut")
    done = run_trainer("resume", "cut", "stop_epoch=0", "trust=[norm_net]", cwd=tmp_path)
    assert done.returncode == 0, done.output
    ours, theirs = results.summary(cut.folder), results.summary(whole.folder)
    assert ours["weights_sha256"] == theirs["weights_sha256"] != theirs["average_sha256"]
    assert ours["average_sha256"] == theirs["average_sha256"]
    assert results.rows(cut.folder) == results.rows(whole.folder)
    plain = train(tmp_path, *norm_net.write(tmp_path), folder="plain")
    assert results.summary(plain.folder)["weights_sha256"] == theirs["weights_sha256"]
    assert results.summary(plain.folder)["average_sha256"] is None


def test_the_best_weights_are_the_averaged_ones_also_rewritten(tmp_path: Path) -> None:
    run = train(tmp_path, *norm_net.write(tmp_path), *EMA, "epochs=1").folder
    best, summary = run / "checkpoints" / "best.pth", results.summary(run)
    assert checkpoints.weights_sha256(checkpoints.read(best)["model"]) == summary["average_sha256"]
    before = best.read_bytes()
    best.write_bytes(before[:-100])
    (run / "summary.json").unlink()
    done = run_trainer("resume", str(run), "trust=[norm_net]", cwd=tmp_path)
    assert done.returncode == 0, done.output
    assert checkpoints.weights_sha256(checkpoints.read(best)["model"]) == summary["average_sha256"]


@pytest.mark.parametrize("words", [EMA, SWA], ids=["ema", "swa"])
def test_several_processes_average_the_same(tmp_path: Path, words: list[str]) -> None:
    more = ["precision=fp64", "optimizer=sgd"]
    words = [*norm_net.write(tmp_path), *words, *more]
    words[words.index("model._target_=norm_net.Net")] = "model=mlp"  # dropout differs by process
    words = [word for word in words if not word.startswith("~")]
    one = train(tmp_path, *words, folder="one").folder
    ended = several.run(tmp_path, *words, "hydra.run.dir=two", number=2)
    assert [e.code for e in ended] == [0, 0], [e.output for e in ended]
    losses = [[row["loss"] for row in results.rows(f)] for f in (one, tmp_path / "two")]
    assert losses[0] == pytest.approx(losses[1], abs=1e-12)


def test_an_average_of_nothing_is_refused(tmp_path: Path) -> None:
    done = run_trainer(*norm_net.TINY, "average=swa", "average.start_epoch=3", cwd=tmp_path)
    assert done.returncode == 2
    assert "average.start_epoch=3 with epochs=3" in done.output

"""A run takes parts and watchers that it does not know: what features are made of."""

from __future__ import annotations

import copy
import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.helpers.visualizer_runs import built, compose_words
from trainer.checkpoints import states_in, weights_sha256
from trainer.checkpoints.entries import read
from trainer.evaluation.metrics import Meter, Metrics
from trainer.system.signals import StopSignals
from trainer.training import loop, snapshot
from trainer.training.clipping import ClipNorm
from trainer.training.run import Run
from trainer.training.step import CheckedStep
from trainer.training.watcher import Watcher
from trainer.training.world import World


class Average:
    """A part: a sum of what the first weight has been."""

    def __init__(self) -> None:
        self.total = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"total": self.total}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.total = state["total"]


class Recorder(Watcher):
    """Writes down what it is told, into a list that several share."""

    def __init__(self, name: str, told: list[str], average: Average | None = None) -> None:
        self.name, self.told, self.average = name, told, average

    def start(self, run: Run) -> None:
        self.told.append(f"{self.name} start")

    def step(self, run: Run) -> None:
        self.told.append(f"{self.name} step {run.progress.step}")
        if self.average is not None:
            self.average.total += float(next(run.model.parameters()).detach().flatten()[0])

    def epoch(self, run: Run, train: Metrics, val: Metrics | None) -> None:
        assert train.num_images > 0
        self.told.append(f"{self.name} epoch {run.progress.epoch} {'val' if val else 'no val'}")

    def save(self, run: Run) -> None:
        self.told.append(f"{self.name} save {run.progress.step}")

    def best(self, run: Run) -> None:
        self.told.append(f"{self.name} best {run.best.epoch}")

    def finish(self, run: Run, test: Metrics | None) -> None:
        self.told.append(f"{self.name} finish")

    def close(self) -> None:
        self.told.append(f"{self.name} close")


@pytest.fixture
def config() -> dict[str, Any]:
    return compose_words("tensorboard=false", "limit_batches=2", "eval_every_epochs=2")


def with_recorders(run: Run, told: list[str], average: Average | None = None) -> Run:
    more = (Recorder("a", told, average), Recorder("b", told))
    parts = run.parts | ({"mean_of_steps": average} if average else {})
    return dataclasses.replace(run, watchers=(*run.watchers, *more), parts=parts)


def test_watchers_are_told_in_order(config: dict[str, Any], tmp_path: Path) -> None:
    told: list[str] = []
    run = with_recorders(built(config, tmp_path), told)
    run.start()
    loop.fit(run)
    loop.load_best(run)
    run.finish(loop.test(run))
    run.close()
    of_a = [line.removeprefix("a ") for line in told if line.startswith("a ")]
    assert of_a == [
        "start", "step 1", "step 2", "epoch 1 no val", "save 2",
        "step 3", "step 4", "epoch 2 val", "save 4", "best 2", "finish", "close",
    ]  # fmt: skip
    firsts = [line for line in told if line.endswith(("start", "step 1", "finish", "close"))]
    assert firsts == ["a start", "b start", "a step 1", "b step 1", "b finish", "a finish",
                      "b close", "a close"]  # fmt: skip


def test_watching_changes_no_bit(config: dict[str, Any], tmp_path: Path) -> None:
    sums = []
    for name in ("plain", "watched"):
        (tmp_path / name).mkdir()
        run = built(config, tmp_path / name)
        if name == "watched":
            run = with_recorders(run, [])
        loop.fit(run)
        run.close()
        sums.append(weights_sha256(run.model.state_dict()))
    assert sums[0] == sums[1]


def test_a_part_is_saved_and_goes_on(config: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    average, again = Average(), Average()
    run = with_recorders(built(config, tmp_path / "a"), [], average)
    loop.fit(run)
    run.close()
    state = read(states_in(tmp_path / "a" / "checkpoints")[-1], state=True)
    assert state["mean_of_steps"] == {"total": average.total}
    assert average.total != 0
    fresh = with_recorders(built(config, tmp_path / "b"), [], again)
    snapshot.load(fresh, state)
    assert again.total == average.total
    assert fresh.progress == run.progress
    assert fresh.best == run.best
    fresh.close()


def test_a_state_without_a_newer_part_still_loads(config: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    run = built(config, tmp_path / "a")
    loop.fit(run)
    run.close()
    state = read(states_in(tmp_path / "a" / "checkpoints")[-1], state=True)
    assert "mean_of_steps" not in state
    average = Average()
    fresh = with_recorders(built(config, tmp_path / "b"), [], average)
    snapshot.load(fresh, state)
    fresh.close()
    assert average.total == 0
    assert fresh.progress.epoch == 2
    for name, tensor in fresh.model.state_dict().items():
        assert torch.equal(tensor, state["model"][name])


def test_a_watcher_may_collect_what_an_evaluation_sees(
    config: dict[str, Any], tmp_path: Path
) -> None:
    class Counting(Meter):
        pass

    class Collector(Watcher):
        def __init__(self) -> None:
            self.mine = Counting()

        def meter(self, split: str) -> Meter | None:
            return self.mine if split == "val" else None

    run, collector = built(config, tmp_path), Collector()
    run = dataclasses.replace(run, watchers=(collector, *run.watchers))
    loop.validate(run)
    run.close()
    assert collector.mine.num_images == run.val.num_images
    assert run.meter_of("test") is not collector.mine


@pytest.mark.parametrize("clip_norm", [0.0, 1e-3])
def test_several_backward_passes_make_one_update(clip_norm: float) -> None:
    """Against torch: the sum of two losses."""
    models = [nn.Linear(4, 2, dtype=torch.float64) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    ours, theirs = (torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9) for m in models)
    guard = CheckedStep(ours, models[0].parameters(), ClipNorm(clip_norm) if clip_norm else None)
    x = torch.linspace(-1, 1, 24, dtype=torch.float64).view(2, 3, 4)
    for _ in range(3):
        guard.zero_grad()
        for half in x:
            guard.backward(models[0](half).square().mean() / 2)
        guard.check_and_clip()
        guard.step()
        theirs.zero_grad()
        (sum(models[1](half).square().mean() for half in x) / 2).backward()
        if clip_norm:
            nn.utils.clip_grad_norm_(models[1].parameters(), clip_norm)
        theirs.step()
    for mine, other in zip(*(m.parameters() for m in models), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=0)


@pytest.mark.parametrize("bad", [0, 1])
def test_one_bad_loss_among_several_is_found(bad: int) -> None:
    model = nn.Linear(4, 2)
    guard = CheckedStep(torch.optim.SGD(model.parameters(), lr=0.1, fused=True), model.parameters())
    before = [p.detach().clone() for p in model.parameters()]
    for number in range(2):
        loss = model(torch.ones(3, 4)).mean()
        guard.backward(loss + torch.inf if number == bad else loss)
    guard.check_and_clip()
    guard.step()
    assert guard.num_skipped_steps() == 1
    assert all(map(torch.equal, before, model.parameters()))


def test_the_world_of_one_process() -> None:
    world, values = World(), torch.arange(3)
    assert (world.rank, world.size, world.is_main, world.part) == (0, 1, True, None)
    world.reduce([values])
    assert torch.equal(values, torch.arange(3))
    assert world.together(lambda: 3) == world.from_main(lambda: 3) == 3
    assert world.exchange(StopSignals(), time_is_up=True)


@pytest.mark.parametrize("averaged", [True, False])
def test_an_average_is_what_is_validated_and_saved(
    config: dict[str, Any], tmp_path: Path, averaged: bool
) -> None:
    """One of zeros guesses: its loss is ln K, whatever the trained model has learned."""
    run = built(config, tmp_path)
    zeros = copy.deepcopy(run.model)
    nn.utils.vector_to_parameters(torch.zeros(run.about.cost.num_parameters), zeros.parameters())
    run = dataclasses.replace(run, average=zeros if averaged else None)
    loop.fit(run)
    val = loop.validate(run)
    run.close()
    saved = read(tmp_path / "checkpoints" / "best.pth")["model"]
    assert (val.loss == pytest.approx(math.log(4))) is averaged
    assert all(not tensor.any() for tensor in saved.values()) is averaged
    state = read(states_in(tmp_path / "checkpoints")[-1], state=True)
    assert all(torch.equal(state["model"][k], v) for k, v in run.model.state_dict().items())
    assert any(tensor.any() for tensor in state["model"].values())

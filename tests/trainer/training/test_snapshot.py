"""All that a run consists of comes back from its state, and nothing else does."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import pytest
import torch

from tests.helpers.visualizer_runs import built, compose_words
from trainer.builders.optimizers import takes_fused
from trainer.errors import UserError
from trainer.training import loop, snapshot
from trainer.training.optimizer_state import check_state, load_optimizer, trial_state
from trainer.training.run import Run


def stepped(run: Run, steps: int) -> Run:
    run.start_epoch()
    batches = run.train.epoch()
    for _ in range(steps):
        loss, logits = loop.train_step(run, *next(batches))
        run.meter.add(loss, logits, torch.zeros(len(logits), dtype=torch.int64))
        run.step_done()
    return run


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("scheduler=plateau",), "schedule"),
        (("precision=fp16",), "guard"),
        (("optimizer=sgd",), "optimizer"),
        ((), "meter"),
    ],
    ids=["schedule", "guard", "optimizer", "meter"],
)
def test_each_part_comes_back(tmp_path: Path, words: tuple[str, ...], part: str) -> None:
    config = compose_words(*words, "tensorboard=false")
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    run, fresh = (built(config, tmp_path / name) for name in ("a", "b"))
    stepped(run, 3)
    if part == "schedule":
        for loss in (1.0, 2.0, 3.0):
            run.schedule.observe(loss)
    if part == "guard":
        run.stepper.scale.fill_(512.0)  # type: ignore[attr-defined]
    state = snapshot.full(run)
    assert repr(snapshot.full(fresh)[part]) != repr(state[part])  # the twin: it has something to do
    assert snapshot.load(fresh, state) == []
    assert repr(snapshot.full(fresh)[part]) == repr(state[part])
    assert fresh.progress == run.progress
    run.close(), fresh.close()


def test_another_pillow_is_told_where_images_were_decoded(tmp_path: Path) -> None:
    config = compose_words("tensorboard=false")
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    run, fresh = (built(config, tmp_path / name) for name in ("a", "b"))
    for sums, told in ((None, 0), (("0" * 64,), 1)):
        run.about = fresh.about = dataclasses.replace(
            run.about, data=dataclasses.replace(run.about.data, sums=sums)
        )
        state = snapshot.full(run)
        assert snapshot.load(fresh, state) == []
        state["machine"]["pillow"] = "1.1.7"
        notes = snapshot.load(fresh, state)
        assert len(notes) == told
        assert all(note.startswith("pillow was 1.1.7, now ") for note in notes)
    with pytest.raises(UserError, match=r"decoded by Pillow 1\.1\.7, now by"):
        snapshot.load(fresh, {**state, "data": "0" * 64})
    run.close(), fresh.close()


def test_the_options_of_an_optimizer_are_those_of_this_run() -> None:
    """`resume --force optimizer.lr=...`: torch would take the file's rates with its momenta."""
    weights = [torch.nn.Parameter(torch.ones(3)) for _ in range(2)]
    old = torch.optim.SGD([weights[0]], lr=0.05, momentum=0.9, weight_decay=5e-4)
    old.param_groups[0] |= {"initial_lr": 0.1}  # the schedule is at a half
    weights[0].grad = torch.full((3,), 2.0)
    old.step()
    new = torch.optim.SGD([weights[1]], lr=0.5, momentum=0.1, weight_decay=0.1, fused=True)
    new.param_groups[0] |= {"initial_lr": 0.5}
    load_optimizer(new, old.state_dict())
    group = new.param_groups[0]
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.25, 0.1, 0.1)
    assert group["fused"] is True
    momentum = new.state[weights[1]]["momentum_buffer"]
    assert torch.equal(momentum, old.state[weights[0]]["momentum_buffer"])


def test_options_that_need_what_the_state_does_not_have() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    weight.grad = torch.ones(3)
    old = torch.optim.RMSprop([weight], lr=0.1)
    old.param_groups[0]["initial_lr"] = 0.1
    old.step()
    for momentum in (0.0, 0.9):
        new = torch.optim.RMSprop([weight], lr=0.1, momentum=momentum)
        new.param_groups[0]["initial_lr"] = 0.1
        if momentum:
            with pytest.raises(UserError, match="needs momentum_buffer"):
                check_state(new, old.state_dict())
        else:
            check_state(new, old.state_dict())
            load_optimizer(new, old.state_dict())
            new.step()


def test_an_optimizer_that_takes_no_trial_tells_nothing() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    assert trial_state(torch.optim.LBFGS([weight])) == {}  # its step wants a closure
    assert trial_state(torch.optim.Adam([weight])).keys() == {"step", "exp_avg", "exp_avg_sq"}


def test_a_fused_form_is_taken_where_there_is_a_kernel() -> None:
    for optimizer, on_mps, expected in (
        (torch.optim.Adagrad, True, False), (torch.optim.Adagrad, False, True),
        (torch.optim.Adam, True, True), (torch.optim.RMSprop, False, False),
    ):  # fmt: skip
        assert takes_fused(functools.partial(optimizer), on_mps) is expected

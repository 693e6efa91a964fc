"""What is not finite is never saved, never gone on from, never called finished, and never written
into a JSON file."""

from __future__ import annotations

import functools
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers import processes, results
from tests.helpers.tiny_training import TINY, refused, whole_run
from trainer import checkpoints
from trainer.checkpoints.finite import not_finite
from trainer.text.json_text import json_of
from trainer.training.soundness import overflow

NONE_OF_THEM = [math.nan, math.inf, -math.inf]
# An update of 1e39 times anything is beyond float32, which ends at 3.4e38.
BEYOND = [w for w in TINY if not w.startswith("optimizer.")] + [
    "optimizer.lr=1e39", "scheduler=constant", "scheduler.warmup_steps=0", "model.dropout=0",
    "augment=none",
]  # fmt: skip


def refuse_constant(word: str) -> float:
    raise ValueError(f"{word} is no JSON")


def strict_json(file: Path) -> list[Any]:
    """A JSON file, or one with a value in each line, by a reader that takes no NaN."""
    text = file.read_text()
    lines = text.splitlines() if file.suffix == ".jsonl" else [text]
    return [json.loads(line, parse_constant=refuse_constant) for line in lines]


def assert_sound(run: Path) -> None:
    """All states on disk are of numbers, by torch's own test; all JSON files are JSON."""
    for file in (run / "checkpoints").glob("*.pth"):
        state = torch.load(file, weights_only=True)
        kept = state.get("optimizer", {"state": {}})["state"].values()
        tensors = [*state["model"].values(), *(v for one in kept for v in one.values())]
        assert all(t.isfinite().all() for t in tensors if isinstance(t, torch.Tensor)), file
    for file in (*run.glob("*.json"), *run.glob("*.jsonl")):
        strict_json(file)


# --- finding them ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("value", NONE_OF_THEM)
def test_wherever_it_stands_it_is_found(value: float, dtype: torch.dtype) -> None:
    for size in (1, 3, 64, 1000):
        for place in {0, size // 2, size - 1}:
            spoilt = torch.randn(size, generator=torch.Generator().manual_seed(0)).to(dtype)
            assert not_finite({"a": spoilt}) == []  # the twin
            spoilt[place] = value
            nest = {"a": torch.ones(2), "b": [1, {"c": spoilt}], "d": torch.zeros(0), "e": "inf"}
            assert not_finite(nest) == ["b.1.c"]


def test_the_largest_numbers_are_numbers() -> None:
    largest = [torch.full((99,), torch.finfo(t).max, dtype=t) for t in (torch.float32, torch.half)]
    assert not_finite([*largest, torch.ones(3, dtype=torch.int64), 3, None, True]) == []
    assert not_finite([torch.tensor([1, 1j]), torch.tensor([complex(0, math.inf)])]) == ["1"]
    assert not_finite({}) == []


def test_the_message_says_when() -> None:
    assert "at step 7 (" in overflow(["model.w"], 6, 7, "here")
    assert "at one of the steps 3 to 7 (" in overflow(["model.w"], 2, 7, "here")
    assert "at the start" in overflow(["model.w"], 0, 0, "here")
    assert ": a, b, c, d and 2 more." in overflow([*"abcdef"], 0, 1, "here")


def test_json_has_null_for_what_is_no_number() -> None:
    value = {"a": [1.5, math.nan], "b": {"c": -math.inf}, "d": (True, None, "NaN", 10**400)}
    told = json.loads(json_of(value), parse_constant=refuse_constant)
    assert told == {"a": [1.5, None], "b": {"c": None}, "d": [True, None, "NaN", 10**400]}


# --- an update that overflows ---------------------------------------------------------------------

WAYS = [
    ("optimizer=rmsprop",), ("optimizer=sgd", "layers=numpy"), ("optimizer=adam", "precision=fp16"),
]  # fmt: skip
MORE_WAYS = [
    ("optimizer=sgd",), ("optimizer=adam",),
    ("optimizer=adamw",), ("optimizer=adagrad",), ("optimizer=adadelta",),
    ("optimizer=sgd", "optimizer.lr=1e308", "precision=fp64", "loss=mse", "loss.on=logits"),
    ("optimizer=sgd", "precision=bf16"),
    ("optimizer=sgd", "precision=fp16"), ("optimizer=sgd", "compile=step"),
    ("optimizer=adam", "layers=numpy"), ("optimizer=sgd", "save_every_steps=1"),
    ("optimizer=sgd", "log_interval=1"), ("optimizer=sgd", "clip_grad_norm=1"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("limit", [0, 1])
@pytest.mark.parametrize(
    "way", [*WAYS, *(pytest.param(w, marks=pytest.mark.slow) for w in MORE_WAYS)], ids=" ".join
)
def test_an_update_beyond_the_range_is_not_saved(
    tmp_path: Path, way: tuple[str, ...], limit: int
) -> None:
    """With one step an epoch no later loss tells of it; with more, the next one does."""
    words = (*BEYOND, f"limit_batches={limit}", *way, "hydra.run.dir=run")
    ended = processes.run(tmp_path, *words)
    refused(ended, "NaN or infinite", "Try a smaller optimizer.lr", code=1)
    assert "RuntimeWarning" not in ended.output
    assert "resume" not in ended.output or results.sound_steps(tmp_path / "run")
    run = tmp_path / "run"
    assert_sound(run)
    assert results.summary(run)["status"] == "failed"


def test_the_first_update_beyond_the_range_is_called_so(tmp_path: Path) -> None:
    ended = processes.run(tmp_path, *BEYOND, "optimizer=sgd", "hydra.run.dir=run")
    refused(ended, "at step 1 (epoch 1", "loss and gradients were finite", "hidden", code=1)
    assert "It has reached no weight" not in ended.output
    assert not list((tmp_path / "run").glob("checkpoints/*"))


def spoil(what: str, at: int) -> None:
    """After the `at`-th step, counted from 1, put an infinity where no loss of training sees it."""
    from trainer.training import loop

    update, count = loop.update, iter(range(at))

    def updating(model: Any, loss: Any, guard: Any, *rest: Any) -> Any:
        done = update(model, loss, guard, *rest)
        next(count, None)
        if count.__length_hint__() == 0:
            tensors = {
                "weight": model.state_dict()["hidden.0.bias"],
                "optimizer": next(iter(guard.optimizer.state.values()))["exp_avg_sq"],
            }
            tensors[what].view(-1)[0] = -math.inf if what == "weight" else math.inf
        return done

    loop.update = updating


@pytest.mark.slow
@pytest.mark.parametrize("what", ["weight", "optimizer"])
@pytest.mark.parametrize("at", [6, pytest.param(8, marks=pytest.mark.slow)])
def test_what_no_loss_tells_is_found_before_it_is_saved(tmp_path: Path, what: str, at: int) -> None:
    """A unit at minus infinity is a dead one, a second moment at infinity a weight that stands."""
    prepare = functools.partial(spoil, what, at)
    ended = processes.run(tmp_path, *TINY, "hydra.run.dir=run", prepare=prepare)
    refused(ended, "at one of the steps 5 to 8 (epoch 2", code=1)
    assert ("hidden.0.bias" if what == "weight" else "optimizer.state.0.exp_avg_sq") in ended.output
    run = tmp_path / "run"
    assert_sound(run)
    assert results.sound_steps(run) == [4]
    assert [row["split"] for row in results.rows(run)] == ["train", "val"]
    resumed = processes.run(tmp_path, "resume", "run")  # without the fault
    assert resumed.code == 0, resumed.output
    results.assert_same(run, whole_run())


# --- states of earlier versions -------------------------------------------------------------------


@pytest.mark.parametrize("what", ["model", "optimizer"])
def test_a_state_that_holds_infinity_is_set_aside(tmp_path: Path, what: str) -> None:
    run = Path(shutil.copytree(whole_run(), tmp_path / "run"))
    (run / "summary.json").unlink()
    newest = checkpoints.states_in(run / "checkpoints")[-1]
    entries = checkpoints.read(newest)
    tensors = entries["model"] if what == "model" else entries["optimizer"]["state"][0]
    next(iter(tensors.values())).view(-1)[0] = math.inf
    checkpoints.write(newest, entries)
    ended = processes.run(tmp_path, "resume", "run")
    assert ended.code == 0, ended.output
    assert f"{newest.name}: holds NaN or infinity in {what}." in ended.output
    assert results.started_at(ended.output) == 4
    assert newest.with_name(f"{newest.name}.damaged").is_file()
    results.assert_same(run, whole_run())


# --- validation and test --------------------------------------------------------------------------


def evaluation_is_nan(at: tuple[int, ...]) -> None:
    """The loss of these evaluations, counted from 0: two validations, then the test."""
    from trainer.training import loop

    evaluate, count = loop.evaluate, iter(range(1000))

    def evaluating(model: Any, loss: Any, *rest: Any) -> Any:
        if next(count) not in at:
            return evaluate(model, loss, *rest)
        return evaluate(model, lambda *_: torch.tensor(math.nan), *rest)

    loop.evaluate = evaluating


def test_a_run_whose_last_validation_is_no_number_is_not_finished(tmp_path: Path) -> None:
    words = (*TINY, "hydra.run.dir=run")
    prepare = functools.partial(evaluation_is_nan, (1,))
    ended = processes.run(tmp_path, *words, prepare=prepare)
    refused(ended, "validation loss after epoch 2 is NaN", "test split was not evaluated", code=1)
    assert "of epoch 1, are in" in ended.output
    run = tmp_path / "run"
    assert_sound(run)
    assert results.summary(run)["status"] == "failed"
    row = strict_json(run / "metrics.jsonl")[-1]
    assert (row["split"], row["loss"], row["reason"]) == (
        "val",
        None,
        "the loss is NaN or infinite",
    )
    again = processes.run(tmp_path, "resume", "run")  # nothing is left to train: still so
    refused(again, "validation loss after epoch 2 is NaN", code=1)
    longer = processes.run(tmp_path, "resume", "run", "epochs=3")
    assert longer.code == 0, longer.output


def test_one_in_the_middle_is_said_and_gone_on_from(tmp_path: Path) -> None:
    prepare = functools.partial(evaluation_is_nan, (0,))
    ended = processes.run(tmp_path, *TINY, "hydra.run.dir=run", prepare=prepare)
    assert ended.code == 0, ended.output
    assert "epoch 1: the validation loss is NaN or infinite" in ended.output
    assert_sound(tmp_path / "run")
    assert results.summary(tmp_path / "run")["best_epoch"] == 2


def test_a_test_that_is_no_number_is_no_result(tmp_path: Path) -> None:
    prepare = functools.partial(evaluation_is_nan, (2,))
    ended = processes.run(tmp_path, *TINY, "hydra.run.dir=run", prepare=prepare)
    refused(ended, "The test loss is NaN", code=1)
    assert_sound(tmp_path / "run")
    summary = results.summary(tmp_path / "run")
    assert (summary["status"], summary["test_loss"]) == ("failed", None)
    assert "test loss" in summary["reason"]


@pytest.mark.slow
def test_batch_norm_hides_nothing(tmp_path: Path) -> None:
    """One step of a rate that people try: loss and gradients finite, evaluation is not."""
    ended = processes.run(
        tmp_path, "data=synthetic", "data.num_train=200", "data.num_test=16", "data.shape=[3,8,8]",
        "model=googlenet", "batch_size=64", "tensorboard=false", "optimizer=rmsprop",
        "optimizer.lr=0.999999", "scheduler=constant", "limit_batches=1", "epochs=1",
        "hydra.run.dir=run",
    )  # fmt: skip
    refused(ended, "NaN or infinite", "Try a smaller optimizer.lr", code=1)
    assert_sound(tmp_path / "run")

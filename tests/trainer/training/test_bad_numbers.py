"""Memory, numbers and batches that a training cannot use: one message, the last good state kept,
and a way on."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers import processes, results
from tests.helpers.tiny_training import TINY, refused, train, whole_run
from trainer import checkpoints


@pytest.fixture
def whole() -> Path:
    return whole_run()


# --- memory ---------------------------------------------------------------------------------------


def no_memory(at: int, kind: str) -> None:
    """The `at`-th batch does not fit."""
    from trainer.training import loop

    step, count = loop.train_step, iter(range(at))

    def stepping(*args: Any) -> Any:
        if next(count, None) is None:
            if kind == "gpu":
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
            torch.empty(2**58)  # torch's own words for a CPU
        return step(*args)

    loop.train_step = stepping


@pytest.mark.parametrize("kind", ["cpu", pytest.param("gpu", marks=pytest.mark.slow)])
def test_out_of_memory(tmp_path: Path, kind: str) -> None:
    prepare = functools.partial(no_memory, 5, kind)
    ended = processes.run(tmp_path, *TINY, "hydra.run.dir=run", prepare=prepare)
    refused(ended, "Out of memory on cpu at step 6", "batch_size=8", "smaller batch_size",
            "The state of step 4 is intact", code=1)  # fmt: skip
    assert results.summary(tmp_path / "run")["status"] == "failed"
    assert "Out of memory" in results.summary(tmp_path / "run")["reason"]


# --- numbers that are none ------------------------------------------------------------------------


def poison(where: str, at: int, value: float) -> None:
    """Put a NaN or inf into the `at`-th training step, counted from 0."""
    from trainer.training import loop, step

    update, backward, count = loop.update, step.CheckedStep.backward, iter(range(at))
    now = [False]

    def updating(model: Any, loss: Any, stepper: Any, autocast: Any, images: Any, targets: Any):
        now[0] = next(count, None) is None and not now[0]
        if now[0] and where == "image":
            images = images.clone()
            images[0, 0, 0, 0] = value
        if now[0] and where == "weight":
            next(model.parameters()).data.view(-1)[0] = value
        return update(model, loss, stepper, autocast, images, targets)

    def poisoned(self: Any, loss: torch.Tensor) -> None:
        if now[0] and where == "loss":
            loss = loss * value
        if now[0] and where == "gradient":
            self.parameters[0].register_hook(lambda g: torch.full_like(g, value))
        backward(self, loss)

    loop.update = updating
    step.CheckedStep.backward = poisoned


POISONS = [
    ("loss", math.nan, "adam"), ("gradient", math.inf, "sgd"), ("image", math.nan, "rmsprop"),
    ("loss", math.inf, "adadelta"), ("gradient", math.nan, "adagrad"),
    ("image", math.inf, "adamw"), ("gradient", -math.inf, "rmsprop"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("where", "value", "optimizer"),
    [POISONS[1], *(pytest.param(*p, marks=pytest.mark.slow) for p in POISONS[:1] + POISONS[2:])],
)
def test_what_is_not_finite_ends_the_run_and_reaches_no_weight(
    whole: Path, tmp_path: Path, where: str, value: float, optimizer: str
) -> None:
    """At step 6, which no log interval looks at; the end of the epoch does."""
    words = [w for w in TINY if not w.startswith("optimizer.")]
    ended = processes.run(
        tmp_path, *words, f"optimizer={optimizer}", "augment=none", "hydra.run.dir=run",
        prepare=functools.partial(poison, where, 5, value),
    )  # fmt: skip
    refused(ended, "NaN or infinite at step 6", "epoch 2", "learning rate", "optimizer.lr", code=1)
    run = tmp_path / "run"
    assert results.summary(run)["status"] == "failed"
    assert results.sound_steps(run) == [4]
    for name in ("step_4.pth", "best.pth"):
        entries = checkpoints.read(run / "checkpoints" / name)
        assert entries["step"] == 4
        assert all(tensor.isfinite().all() for tensor in entries["model"].values())
    assert [row["split"] for row in results.rows(run)] == ["train", "val"]
    resumed = processes.run(tmp_path, "resume", "run")
    assert resumed.code == 0, resumed.output  # without the poison


@pytest.mark.slow
def test_a_learning_rate_out_of_all_bounds(tmp_path: Path) -> None:
    """No poison but the user's own."""
    words = [w for w in TINY if not w.startswith("optimizer.")]
    ended = processes.run(
        tmp_path, *words, "optimizer=sgd", "optimizer.lr=1e30", "hydra.run.dir=run"
    )
    refused(ended, "NaN or infinite at step", "learning rate", code=1)
    assert "Try a smaller optimizer.lr" in ended.output


# --- batches --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "steps"),
    [
        (("batch_size=500",), 2),  # larger than the set: one batch an epoch
        pytest.param(("batch_size=31",), 2, marks=pytest.mark.slow),  # a last one of one: left out
        pytest.param(("batch_size=32", "num_workers=8"), 2, marks=pytest.mark.slow),
    ],
)
def test_batches_of_odd_sizes(tmp_path: Path, words: tuple[str, ...], steps: int) -> None:
    """Never no steps and a good end."""
    run = train(tmp_path, *words)
    assert results.summary(run)["steps"] == steps
    assert results.summary(run)["status"] == "finished"

"""One training in several processes: the numbers of one, whatever happens to any of them."""

from __future__ import annotations

import functools
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers import processes, results, several
from tests.helpers.commands import Finished, run_trainer, train
from tests.helpers.processes import Command, Ended
from tests.helpers.tiny_training import refused, signal_at
from trainer import checkpoints

# Four epochs of five steps; the last batch, of 5 images, is divided as 2 and 3 of them.
TINY = ["data=synthetic", "data.num_train=56", "data.val_size=0.25", "data.num_test=700",
        "data.shape=[3,8,8]", "data.num_classes=4", "batch_size=9", "epochs=4", "precision=fp64",
        "tensorboard=false", "num_threads=1"]  # fmt: skip
# 43 images: the last batch, of 3, is too small for two processes.
SMALL_LAST = ["data.num_train=57", "batch_size=10", "data.val_size=0.2456"]
BATCH_NORM = ["model._target_=norm_net.Net", "~model.hidden", "~model.activation",
              "~model.dropout", "~model.init"]  # fmt: skip
STRONG = ["augment=strong", "data.hflip=true"]
NORM_NET = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self, shape, num_classes):
        super().__init__(
            nn.Conv2d(shape[0], 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(),
            nn.Linear(54, 8), nn.BatchNorm1d(8, momentum=None), nn.ReLU(),
            nn.Linear(8, num_classes),
        )
"""


def weights(run: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = checkpoints.read(run / "checkpoints" / "last.pth")["model"]
    return found


def distance(run: Path, other: Path) -> float:
    """Largest difference of two runs' losses and weights."""
    losses = [[row["loss"] for row in results.rows(folder)] for folder in (run, other)]
    of_losses = max(abs(a - b) for a, b in zip(*losses, strict=True))
    ours, theirs = weights(run), weights(other)
    return max(of_losses, *(float((ours[k] - theirs[k]).abs().max()) for k in ours | theirs))


def predicted(run: Path) -> list[list[str]]:
    """Predictions without their last digits."""
    lines = (run / "predictions.csv").read_text().splitlines()
    return [line.split(",")[:5] for line in lines]


def ended_well(ended: list[Ended]) -> None:
    assert [one.code for one in ended] == [0] * len(ended), [one.output for one in ended]
    assert "epoch 4/4" in ended[0].stdout
    assert [one.output for one in ended[1:]] == [""] * (len(ended) - 1)


@pytest.mark.parametrize(
    ("words", "number", "apart"),
    [([], 2, 1e-12), ([*BATCH_NORM, *SMALL_LAST, "optimizer=sgd"], 2, 1e-12), (STRONG, 3, 1e-12),
     ([*BATCH_NORM, *SMALL_LAST, "optimizer=sgd", "precision=fp32"], 2, 1e-4)],
    ids=["uneven", "batch norm", "augmented", "float32"],
)  # fmt: skip
def test_the_numbers_are_those_of_one(
    tmp_path: Path, words: list[str], number: int, apart: float
) -> None:
    (tmp_path / "norm_net.py").write_text(NORM_NET)
    one = train(tmp_path, *TINY, *words, folder="one").folder
    ended_well(several.run(tmp_path, *TINY, *words, "hydra.run.dir=more", number=number))
    more = tmp_path / "more"
    assert distance(more, one) < apart
    have, want = results.rows(more), results.rows(one)
    assert [row["accuracy"] for row in have] == [row["accuracy"] for row in want]
    assert len(predicted(one)) == 1 + 14 + 700
    assert predicted(more) == predicted(one)
    assert results.summary(more)["processes"] == number


def test_local_statistics_are_others(tmp_path: Path) -> None:
    """The twin: the tolerance is not so wide that what is left out would not be seen."""
    (tmp_path / "norm_net.py").write_text(NORM_NET)
    words = [*TINY, *BATCH_NORM, "optimizer=sgd"]
    one = train(tmp_path, *words, folder="one").folder
    ended_well(several.run(tmp_path, *words, "hydra.run.dir=more", "sync_batch_norm=false"))
    assert distance(tmp_path / "more", one) > 1e-6


def test_a_signal_to_one_stops_all_at_the_same_step(tmp_path: Path) -> None:
    words = [*TINY, "epochs=1000", "hydra.run.dir=run"]
    prepare = {1: functools.partial(signal_at, signal.SIGTERM, 7, False, times=2)}
    ended = several.run(tmp_path, *words, prepare=prepare)
    assert [one.code for one in ended] == [143, 143], [one.output for one in ended]
    assert "Stopped. Continue with" in ended[0].output
    summary = results.summary(tmp_path / "run")
    assert summary["status"] == "interrupted"
    assert results.newest_step(tmp_path / "run") == summary["steps"] in (8, 9, 10)


def kill_at(step: int) -> None:
    signal_at(signal.SIGKILL, step, False)


def test_one_that_is_killed_ends_all(tmp_path: Path) -> None:
    words = [*TINY, "epochs=1000", "save_every_steps=2", "hydra.run.dir=run"]
    ended = several.run(tmp_path, *words, prepare={1: functools.partial(kill_at, 7)})
    assert [one.code for one in ended] == [1, -9], [one.output for one in ended]
    assert "Another of the 2 processes of this training has ended" in ended[0].stderr
    assert "Traceback" not in ended[0].output
    assert results.summary(tmp_path / "run")["status"] == "failed"
    again = several.run(tmp_path, *TINY, "epochs=1000", "hydra.run.dir=run", restarts=0)
    assert [one.code for one in again] == [2, 2]  # but torchrun's restart goes on:
    ended = several.run(tmp_path, *words, restarts=1, prepare={0: functools.partial(kill_at, 3)})
    assert ended[0].code == -9
    assert results.started_at(ended[0].output) == 6
    assert results.newest_step(tmp_path / "run") == 8


def infinite_loss() -> None:
    """One loss is infinite, and its gradients are not."""
    from trainer.losses import CrossEntropy

    forward, count = CrossEntropy.forward, iter(range(6))

    def spoiled(self: CrossEntropy, *args: Any) -> torch.Tensor:
        loss = forward(self, *args)
        is_late = not torch.is_inference_mode_enabled() and next(count, None) is None
        return loss + math.inf if is_late else loss

    CrossEntropy.forward = spoiled  # type: ignore[method-assign]


def test_a_bad_loss_of_one_stops_all_before_the_step(tmp_path: Path) -> None:
    words = [*TINY, "log_interval=2", "hydra.run.dir=run"]
    ended = several.run(tmp_path, *words, prepare={1: infinite_loss})
    assert [one.code for one in ended] == [1, 1], [one.output for one in ended]
    assert "became NaN or infinite at step 7 (epoch 2" in ended[0].stderr
    assert ended[1].output == ""


@pytest.mark.parametrize(("first", "then"), [(2, 1), (1, 2)])
def test_another_number_of_processes_goes_on(tmp_path: Path, first: int, then: int) -> None:
    """In the middle of an epoch."""
    whole = train(tmp_path, *TINY, folder="whole").folder
    stop = {first - 1: functools.partial(signal_at, signal.SIGTERM, 6, False)}
    for number, words in ((first, [*TINY, "hydra.run.dir=run"]), (then, ["resume", "run"])):
        prepare = stop if number == first else {}
        if number == 1:
            words = [*words, "processes=1"]
            ended = several.run(tmp_path, *words, number=1, prepare=prepare)
        else:
            ended = several.run(tmp_path, *words, number=number, prepare=prepare)
        assert {one.code for one in ended} == {143 if number == first else 0}, ended
    assert results.started_at(ended[0].output) % 5
    told = f"processes was {first}, now {then}: the last bits of the result may differ."
    assert told in ended[0].output
    assert distance(tmp_path / "run", whole) < 1e-12


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["compile=step"], "compile=step with processes=2"),
        (["compile=model"], "compile=model with processes=2"),
        (["layers=numpy"], "layers=numpy with processes=2"),
        (["device=cuda:1"], "device=cuda:1 with processes=2"),
        (["batch_size=3"], "batch_size=3 with processes=2"),
        (["processes=0"], "processes=0: must be a whole number at least 1"),
        (
            ["--multirun", "seed=0,1", "hydra.launcher._target_=a.Own"],
            "processes=2: goes with this program's own sweeps",
        ),
        (["processes=1", "sync_batch_norm=false"], "sync_batch_norm=false: has no effect"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(
    dispatch: Callable[..., Finished], tmp_path: Path, words: list[str], told: str
) -> None:
    done = dispatch("processes=2", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert not list(tmp_path.iterdir())


def test_wrong_input_is_told_once(tmp_path: Path) -> None:
    for words in (["epochs=0"], ["model.hidden=[0]"], ["processes=3"], ["--multirun", "seed=0,1"]):
        ended = several.run(tmp_path, *TINY, *words)
        assert [one.code for one in ended] == [2, 2], [one.output for one in ended]
        assert words[0].partition("=")[0].lstrip("-") in ended[0].stderr
        assert len(ended[0].stderr.splitlines()) < 4
        assert ended[1].output == ""
    assert not list(tmp_path.iterdir())


def spoil_data() -> None:
    from trainer.builders import training_run
    from trainer.errors import UserError

    def check_data(config: Any, asks_cuda: bool = True) -> str:
        raise UserError("data.root: not on this machine")

    training_run.check_data = check_data


def test_what_is_wrong_for_one_is_told_by_the_first(tmp_path: Path) -> None:
    ended = several.run(tmp_path, *TINY, prepare={1: spoil_data})
    assert [one.code for one in ended] == [2, 2]
    assert "data.root: not on this machine" in ended[0].stderr
    assert ended[1].output == ""


def test_processes_that_cannot_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables of a cluster without an address."""
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    ended = processes.run(tmp_path, *TINY)
    refused(ended, "Process 0 of 2 cannot reach the others", "MASTER_ADDR", code=1)


@pytest.mark.slow
def test_the_launcher_and_its_exit_codes(tmp_path: Path) -> None:
    """`processes=2`, without torchrun: the numbers and endings of one command."""
    one = train(tmp_path, *TINY, folder="one").folder
    more = train(tmp_path, *TINY, "processes=2", folder="more")
    assert distance(more.folder, one) < 1e-12
    assert more.command.stdout.count("epoch 4/4") == 1
    assert more.command.stderr == ""
    assert run_trainer(*TINY, "processes=2", "model.hidden=[0]", cwd=tmp_path).returncode == 2
    again = run_trainer("resume", "more", "epochs=5", cwd=tmp_path)  # in two processes, too
    assert again.returncode == 0, again.output
    assert "2 processes" in again.stdout
    assert run_trainer("resume", "more", cwd=tmp_path).returncode == 2


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_launcher(tmp_path: Path, number: int) -> None:
    command = Command(tmp_path, [*TINY, "epochs=100000", "processes=2", "hydra.run.dir=run"])
    assert command.wait_for(lambda: results.newest_step(tmp_path / "run") > 5)
    command.send(number)
    ended = command.wait()
    assert ended.code == 128 + number, ended.output
    assert "Traceback" not in ended.output
    assert results.summary(tmp_path / "run")["status"] == "interrupted"
    assert results.leftovers(tmp_path / "run") == []


@pytest.mark.slow
def test_the_launcher_killed_leaves_no_orphan(tmp_path: Path) -> None:
    command = Command(tmp_path, [*TINY, "epochs=100000", "processes=2", "hydra.run.dir=run"])
    assert command.wait_for(lambda: results.newest_step(tmp_path / "run") > 5)
    os.kill(command.pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while not (tmp_path / "run" / "summary.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert results.summary(tmp_path / "run")["status"] == "interrupted"


@pytest.mark.slow
def test_torchrun_and_its_restart(tmp_path: Path) -> None:
    """The first process is killed; the restart goes on in the folder and ends as the whole does."""
    words = [*TINY, "epochs=30", "scheduler=constant"]
    whole = train(tmp_path, *words, folder="whole").folder
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
               "--max-restarts", "1", "-m", "trainer", *words, "hydra.run.dir=run"]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    deadline = time.monotonic() + 120
    while results.newest_step(tmp_path / "run") < 10 and time.monotonic() < deadline:
        time.sleep(0.01)
    holder = (tmp_path / "run" / ".lock").read_text().split()[1]
    os.kill(int(holder), signal.SIGKILL)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert results.started_at(output) >= 10
    assert distance(tmp_path / "run", whole) < 1e-10

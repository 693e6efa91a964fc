"""`resume` with another configuration than the state's: other parameters, another machine."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import yaml

from tests.helpers import processes, results
from tests.helpers.commands import run_trainer
from tests.helpers.tiny_training import refused, train, whole_run
from trainer import checkpoints
from trainer.errors import UserError
from trainer.training.optimizer_state import check_names, trained_names

# The second and the third layer have the same shape, and one of them is frozen.
SQUARE = ("model.hidden=[8,8,8]", "optimizer.lr=0.01", "freeze=['hidden.3.*']")


def cut_off(run: Path) -> Path:
    """As if it had been killed between its two epochs."""
    states = checkpoints.states_in(run / "checkpoints")
    states[-1].unlink()
    (run / "summary.json").unlink()
    return states[0]


# --- other parameters -----------------------------------------------------------------------------


def test_what_is_frozen_cannot_change_places(tmp_path: Path) -> None:
    run = train(tmp_path, *SQUARE)
    whole = Path(shutil.copytree(run, tmp_path / "whole"))
    file = cut_off(run)
    shapes = {name: tensor.shape for name, tensor in checkpoints.read(file)["model"].items()}
    assert shapes["hidden.3.weight"] == shapes["hidden.6.weight"]
    before = file.read_bytes()
    other = ("resume", "run", "--force", "freeze=['hidden.6.*']")
    refused(
        processes.run(tmp_path, *other),
        "no longer trained: hidden.6.weight, hidden.6.bias",
        "not trained before: hidden.3.weight, hidden.3.bias",
        "weights=FILE",
    )
    assert file.read_bytes() == before
    ended = processes.run(tmp_path, "resume", "run")  # the twin: as it was
    assert ended.code == 0, ended.output
    results.assert_same(run, whole)


def test_a_state_without_names_goes_on_as_before_them(tmp_path: Path) -> None:
    run = train(tmp_path, *SQUARE)
    whole = Path(shutil.copytree(run, tmp_path / "whole"))
    file = cut_off(run)
    older = checkpoints.read(file)
    assert older.pop("trained")[:2] == ["hidden.0.weight", "hidden.0.bias"]
    checkpoints.write(file, older)
    ended = processes.run(tmp_path, "resume", "run")
    assert ended.code == 0, ended.output
    results.assert_same(run, whole)
    assert "trained" in checkpoints.read(checkpoints.states_in(run / "checkpoints")[-1])


@pytest.mark.slow
@pytest.mark.parametrize("words", [("layers=numpy",), ("--force", "compile=model")])
def test_the_names_stay_the_same_however_it_computes(tmp_path: Path, words: tuple[str]) -> None:
    run = train(tmp_path, *SQUARE)
    file = cut_off(run)
    before = checkpoints.read(file)["trained"]
    ended = processes.run(tmp_path, "resume", "run", *words)
    assert ended.code == 0, ended.output
    assert checkpoints.read(checkpoints.states_in(run / "checkpoints")[-1])["trained"] == before


def test_names_are_in_the_order_of_the_optimizer() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    stray = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD(
        [{"params": [net[1].weight]}, {"params": [net[0].bias, stray]}], lr=0.1
    )
    own = trained_names(optimizer, net)
    assert own == ["1.weight", "0.bias", "no parameter of the model"]
    check_names(own, own)
    check_names(None, own)
    with pytest.raises(UserError, match="their order changed"):
        check_names(own[::-1], own)
    many = [f"layer{number}.weight" for number in range(60)]
    with pytest.raises(UserError, match=r"layer3\.weight and 56 more; not trained") as error:
        check_names(many, own)
    assert len(str(error.value)) < 600


# --- another machine ------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_training_of_a_gpu_goes_on_once_the_cpu_is_named(tmp_path: Path) -> None:
    """As on a machine without one."""
    run = Path(shutil.copytree(whole_run(), tmp_path / "run"))
    file = cut_off(run)
    entries = checkpoints.read(file)
    config = yaml.safe_load(entries["config"]) | {"device": "cuda"}
    checkpoints.write(file, entries | {"config": yaml.safe_dump(config, width=10**6)})
    before = {path: path.read_bytes() for path in run.rglob("*.pth")}
    done = run_trainer("resume", "run", cwd=tmp_path, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 2, done.output
    assert "device=cuda: the run started on it" in done.stderr
    assert "device=cpu" in done.stderr
    assert "Traceback" not in done.output
    assert {path: path.read_bytes() for path in run.rglob("*.pth")} == before
    done = run_trainer("resume", "run", "device=cpu", cwd=tmp_path, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.output
    assert results.summary(run)["status"] == "finished"
    results.assert_same(run, whole_run())  # which a CPU has computed, too

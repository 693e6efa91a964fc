"""Every key of a training and of one that goes on: it changes something that is looked at here, or
it is refused by name with exit code 2."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.every_key import (
    ROWS,
    TINY,
    Dispatch,
    Outcome,
    Words,
    changes,
    joined,
    known,
    placed,
    traits,
)
from trainer import checkpoints, job
from trainer.config import start
from trainer.config.compose import Composer, own_part, plain
from trainer.errors import UserError
from trainer.monitoring.run_logger import RunLogger
from trainer.monitoring.visualizer import Visualizer
from trainer.training import loop

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unchanged", "no_network")]


def traits_of_run(run: Any) -> dict[str, Any]:
    """What a training is made of; not its folder, and not the text of its configuration, which
    tells every key."""
    of_run = {field.name: getattr(run, field.name) for field in dataclasses.fields(run)}
    for name in ("signals", "checkpoints", "seed_step", "update", "autocast", "watchers", "about",
                 "parts", "started_at"):  # fmt: skip
        of_run.pop(name, None)
    run.seed_step(3)
    update = run.update
    stepped = getattr(update, "args", None) or getattr(update, "parts", (None, None))
    log, gallery, *others = run.watchers
    assert (type(log), type(gallery)) == (RunLogger, Visualizer)
    about = run.about
    return traits(of_run) | {
        "drawn": torch.rand(2).tolist(),
        "update": getattr(update, "func", type(update)).__name__,
        "parts": traits(getattr(update, "keywords", None)),
        "training": [module.training for module in run.model.modules()],
        "loss": traits(stepped[1]),
        "compiled": getattr(run.model, "_compiled_call_impl", None) is not None,
        "autocast": getattr(run.autocast, "fast_dtype", None),
        "tensorboard": type(log.writer).__name__,
        "gallery": traits({**vars(gallery), "folder": None, "writer": None}, 2),
        **{name: traits(getattr(about, name)) for name in ("data", "cost", "device")},
        **{name: getattr(about.description, name) for name in ("fit", "resize", "probabilities")},
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "profiled": [type(watcher).__name__ for watcher in others],
    }


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The runs that would have been trained, as `traits_of_run` sees them."""
    found: list[dict[str, Any]] = []

    def fit(run: Any) -> None:
        found.append(traits_of_run(run))
        raise UserError("seen")

    def run(composer: Composer, master: Any, folder: Path, task: Any) -> None:
        """What Hydra's own start comes to."""
        job.run(plain(own_part(master)), folder, dict(master.hydra.runtime.choices))

    monkeypatch.setattr(start, "run", run)
    monkeypatch.setattr(loop, "fit", fit)
    return found


def training(dispatch: Dispatch, seen: list[Any], words: Words) -> Outcome:
    """The run that would be trained, or what was said instead."""
    seen.clear()
    done = dispatch(*words, "hydra.run.dir=run")
    shutil.rmtree("run", ignore_errors=True)
    packs = os.path.isdir("packs")
    shutil.rmtree("packs", ignore_errors=True)
    return (0, (seen[0], packs)) if seen else (done.returncode, done.output)


@pytest.mark.parametrize("key", ROWS)
def test_of_a_training(
    dispatch: Dispatch, seen: list[Any], places: dict[str, Path], key: str
) -> None:
    more, changed = ROWS[key]
    words = placed(joined(TINY, *more), places)
    before = known(lambda *words: training(dispatch, seen, list(words)), *words, of="training")
    changes(key, before, training(dispatch, seen, joined(words, *placed([changed], places))))


def test_the_same_training_is_the_same_outcome(dispatch: Dispatch, seen: list[Any]) -> None:
    first = training(dispatch, seen, TINY)
    assert first[0] == 0
    assert training(dispatch, seen, TINY) == first


@pytest.fixture
def resumed(dispatch: Dispatch, seen: list[Any], places: dict[str, Path]) -> Callable[..., Outcome]:
    def outcome(*words: str, of_a_foreign_model: bool = False) -> Outcome:
        shutil.rmtree("run", ignore_errors=True)
        shutil.copytree(places["run"], "run")
        os.remove("run/summary.json")
        if of_a_foreign_model:
            for file in Path("run/checkpoints").glob("step_*.pth"):
                entries = checkpoints.read(file)
                entries["config"] = entries["config"].replace("models.mlp.MLP", "my_nets.Net")
                checkpoints.write(file, entries)
        seen.clear()
        done = dispatch("resume", "run", *placed(list(words), places))
        return (0, seen[0]) if seen else (done.returncode, done.output)

    return outcome


def test_the_same_resumption_is_the_same_outcome(resumed: Callable[..., Outcome]) -> None:
    first = resumed()
    assert first[0] == 0
    assert resumed() == first


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("key", ROWS)
def test_of_resume(resumed: Callable[..., Outcome], key: str, force: bool) -> None:
    if (key, force) == ("data.on_leak", True):
        pytest.skip("the images of the run have no copies; tests/data/duplicates has some")
    words = ["--force"] * force
    how = {"of_a_foreign_model": key == "trust"}
    before = known(resumed, *words, of="resume", **how)
    changed = {"data.fit": "data.fit=crop"}.get(key, ROWS[key][1])  # synthetic's is squash
    changes(key, before, resumed(*words, changed, **how))

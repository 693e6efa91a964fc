"""No command leaves a checkpoint that none can read, replaces a file unasked, gives figures of what
is not finite, or takes an empty path for the current folder. Each has a twin that is accepted."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from models.mlp import MLP
from tests.helpers.commands import Finished, run_trainer, train
from tests.helpers.tiny_training import TINY, whole_run
from trainer import checkpoints
from trainer.builders import training_run
from trainer.checkpoints import describable
from trainer.checkpoints.description import Description
from trainer.checkpoints.entries import read
from trainer.config import knobs
from trainer.config.compose import Composer, parse, plain
from trainer.errors import UserError

Dispatch = Callable[..., Finished]
SYNTHETIC = ("data=synthetic", "data.num_train=40", "data.num_test=20", "model.hidden=[4]")
IMPORT = ("import-weights", "sd.pth", "--model=mlp", "model.hidden=[4]", "data.num_classes=3")
DIGITS = "data.shape=[1,8,8]"


def refused(done: Finished, *parts: str, code: int = 2) -> None:
    assert done.returncode == code, done.output
    assert "Traceback" not in done.output
    for part in parts:
        assert part in done.stderr, done.stderr


# --- a training -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["data.shape=[1,1,20000]"], ["data.shape=[1,1,20000]", "from 1 to 16,384"]),
        (["data.shape=[3,16384,16384]"], ["data.shape=[3,16384,16384]", "67,108,864"]),
        (["precision=fp64", "data.std=[1e-32]"], ["data.std=[1e-32]", "from 1e-30 to 3e38"]),
        (["data.mean=[3.2e38]", "data.std=[3e37]"], ["data.mean=[3.2e+38]", "from -3e38 to 3e38"]),
        (["data.std=[3.2e38]"], ["data.std=[3.2e+38]", "from 1e-30 to 3e38"]),
        (["data.num_classes=200000"], ["data.num_classes=200000", "131,072"]),
    ],
)
def test_a_training_whose_checkpoints_none_could_read_does_not_begin(
    dispatch: Dispatch, words: list[str], parts: list[str]
) -> None:
    refused(dispatch(*SYNTHETIC, *words), *parts)
    assert os.listdir() == []


@pytest.mark.parametrize(
    "words",
    [
        ["data.shape=[1,1,16384]"],
        ["precision=fp64", "data.std=[2e-30]"],
        ["data.mean=[2.9e38]", "data.std=[2.9e38]"],
        ["data.num_classes=131072", "model.hidden=[]", "data.shape=[1,1,1]"],
    ],
)
def test_up_to_the_table_all_is_taken(words: list[str]) -> None:
    composer = Composer(parse([*SYNTHETIC, *words]))
    config = plain(composer.jobs(composer.master())[0])
    knobs.check(config)
    training_run.check(config)


def test_what_was_trained_at_the_edge_is_read_again(tmp_path: Path) -> None:
    run = train(tmp_path, *SYNTHETIC, "epochs=1", "limit_batches=1", "data.shape=[1,1,16384]",
                "data.val_size=0.3",
                "tensorboard=false")  # fmt: skip
    assert read(run.best)["shape"] == [1, 1, 16384]


def description(**changed: Any) -> Description:
    plain = {"config": "a: 1", "classes": ["a", "b"], "shape": [3, 4, 4], "mean": [0.5] * 3,
             "std": [0.5] * 3, "resize": 4}  # fmt: skip
    return Description(**{**plain, **changed})


@pytest.mark.parametrize(
    ("changed", "parts"),
    [
        ({"classes": ["a", "b" * 1001]}, ["class 1", "1,001 characters", "1,000"]),
        ({"classes": ["a"] * (2**17 + 1)}, ["data.num_classes=131073"]),
        ({"classes": [3]}, ["classes: [3]", "names"]),
        ({"config": "x" * (2**16 + 1)}, ["65,537 characters", "at most 65,536"]),
        ({"mean": [0.5]}, ["data.mean=[0.5]", "images have 3"]),
        ({"mean": [math.nan] * 3}, ["data.mean=[nan,nan,nan]"]),
        ({"pixel_range": [5.0, 1.0]}, ["data.pixel_range=[5.0,1.0]"]),
        ({"probabilities": "none"}, ["probabilities: 'none'", "softmax"]),
    ],
)
def test_what_a_data_set_of_ones_own_may_say(changed: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(UserError) as error:
        describable.check(dataclasses.asdict(description(**changed)))
    assert all(part in str(error.value) for part in parts), error.value
    describable.check(dataclasses.asdict(description()))  # the twin
    sound = description(classes=["b" * 1000], pixel_range=[1.0, 5.0])
    describable.check(dataclasses.asdict(sound))


# --- import-weights -------------------------------------------------------------------------------


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    torch.save(MLP((1, 8, 8), 3, hidden=[4]).state_dict(), tmp_path / "sd.pth")
    return tmp_path / "sd.pth"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["data.mean=[1e38]", "data.std=[1e-38]", DIGITS], ["data.std=[1e-38]", "from 1e-30"]),
        (
            ["data.mean=[3.2e38]", "data.std=[1]", DIGITS],
            ["data.mean=[3.2e+38]", "from -3e38 to 3e38"],
        ),
        (["data.shape=[1,1,20000]"], ["data.shape=[1,1,20000]", "16,384"]),
    ],
)
def test_import_weights_writes_nothing_that_none_can_read(
    dispatch: Dispatch, bare: Path, words: list[str], parts: list[str]
) -> None:
    refused(dispatch(*IMPORT, "-o", "b.pth", *words), *parts)
    assert os.listdir() == ["sd.pth"]


@pytest.mark.slow
def test_import_weights_replaces_a_file_only_when_told(dispatch: Dispatch, bare: Path) -> None:
    words = (*IMPORT, DIGITS, "-o")
    done = dispatch(*words, "b.pth", "data.mean=[1e38]", "data.std=[1e38]")  # a twin of the above
    assert done.returncode == 0, done.output
    before = Path("b.pth").read_bytes()
    refused(dispatch(*words, "b.pth"), "b.pth: exists", "--force replaces it")
    assert Path("b.pth").read_bytes() == before
    done = dispatch(*words, "b.pth", "--force")
    assert done.returncode == 0, done.output
    assert read(Path("b.pth"))["mean"] == [0.0]


def test_import_weights_never_replaces_what_it_reads(dispatch: Dispatch, bare: Path) -> None:
    before = bare.read_bytes()
    for word in ("sd.pth", "./sd.pth"):
        refused(dispatch(*IMPORT, DIGITS, "-o", word, "--force"), "is the checkpoint itself")
    assert bare.read_bytes() == before


# --- what is not finite ---------------------------------------------------------------------------


def spoilt(path: Path, value: float) -> str:
    """A checkpoint with this number in one of its weights, whose name is returned."""
    entries = checkpoints.read(whole_run() / "checkpoints" / "best.pth")
    name = list(entries["model"])[-1]
    entries["model"][name][0] = value
    checkpoints.write(path, entries)
    return name


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_there_are_no_figures_of_outputs_that_are_not_finite(
    dispatch: Dispatch, value: float
) -> None:
    name = spoilt(Path("bad.pth"), value)
    done = dispatch("evaluate", "bad.pth", "device=cpu")
    refused(done, "20 of the images is not finite", "Nothing was written", name, code=1)
    assert "accuracy" not in done.output
    assert os.listdir() == ["bad.pth"]
    spoilt(Path("bad.pth"), 1.0)  # the twin
    done = dispatch("evaluate", "bad.pth", "device=cpu")
    assert done.returncode == 0, done.output
    assert "accuracy" in done.stdout


def test_nothing_starts_from_weights_that_are_not_finite(
    dispatch: Dispatch, tmp_path: Path
) -> None:
    name = spoilt(Path("bad.pth"), math.nan)
    words = (*TINY, "weights=bad.pth", "hydra.run.dir=run")
    done = dispatch(*words)
    refused(done, "bad.pth: NaN or infinite in 1 tensors", name, "earlier checkpoint")
    assert "optimizer.lr" not in done.stderr
    assert os.listdir() == ["bad.pth"]
    spoilt(Path("bad.pth"), 1.0)  # the twin
    done = run_trainer(*words, cwd=tmp_path)
    assert done.returncode == 0, done.output


# --- empty paths ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["predict", "RUN", "x.png", "-o", ""], ["predict", "RUN", "x.png", "--output="],
        ["predict", "RUN", "", "x.png"], ["predict", "", "x.png"],
        ["evaluate", "RUN", "-o", ""], ["evaluate", ""], ["evaluate", "RUN", ""],
        ["export", "RUN", "--format=state_dict", "-o", ""], ["export", "", "--format=onnx"],
        [*IMPORT, DIGITS, "-o", ""], [*IMPORT, DIGITS, "-o", "b.pth", "--classes", ""],
        ["import-weights", "", *IMPORT[2:], "-o", "b.pth"],
        ["resume", ""], ["resume", "", "--force"], ["report", ""],
    ],
)  # fmt: skip
def test_an_empty_path_is_no_folder(dispatch: Dispatch, bare: Path, words: list[str]) -> None:
    run = str(whole_run())
    refused(dispatch(*(run if word == "RUN" else word for word in words)), "'' is empty")
    assert os.listdir() == ["sd.pth"]


def test_a_point_is_the_current_folder(dispatch: Dispatch) -> None:
    done = dispatch("evaluate", str(whole_run()), "-o", ".", "device=cpu")
    assert done.returncode == 0, done.output
    assert Path("evaluation.json").is_file()

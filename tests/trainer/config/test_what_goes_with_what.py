"""The table of docs/training.md: every pair is taken or refused as it says, and what is taken
computes what the plain engine computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.helpers.commands import ROOT, train
from tests.helpers.results import rows
from tests.helpers.visualizer_runs import compose_words
from trainer.builders import training_run
from trainer.config import knobs
from trainer.errors import UserError

TEXT = (ROOT / "docs" / "training.md").read_text("utf-8").partition("## What goes with what")[2]
TABLE = [[cell.strip().strip("`") for cell in line.strip("|").split("|")]
         for line in TEXT.splitlines() if line.startswith("|")]  # fmt: skip
ENGINES = TABLE[0][1:]
CELLS = [(row[0], engine, said) for row in TABLE[2:]
         for engine, said in zip(ENGINES, row[1:], strict=True)]  # fmt: skip


def test_the_table_says_yes_or_refused() -> None:
    assert len(TABLE) > 25
    assert {said for _, _, said in CELLS} == {"yes", "refused"}
    assert ENGINES == ["processes=2", "compile=step", "layers=numpy", "precision=bf16",
                       "precision=fp16"]  # fmt: skip


@pytest.mark.parametrize(("feature", "engine", "said"), CELLS)
def test_a_pair_is_taken_or_refused_before_anything_is_loaded(
    feature: str, engine: str, said: str, teacher: Path
) -> None:
    words = [word.replace("best.pth", str(teacher)) for word in feature.split()]
    config = compose_words("data=synthetic", "epochs=4", *words, engine)
    if said == "yes":
        check(config)
        return
    with pytest.raises(UserError) as error:
        check(config)
    key = feature.split()[-1].partition("=")[0].rpartition(".")[2].replace("_", "")
    told = str(error.value).lower().replace("_", "")
    assert key in told
    assert engine in str(error.value)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint trained on the data of the trainings below."""
    run = train(tmp_path_factory.mktemp("teacher"), *TINY, "model.hidden=[40]", "seed=5")
    return run.folder / "checkpoints" / "best.pth"


def check(config: dict[str, Any]) -> None:
    knobs.check(config)
    training_run.check(config)


# All of them, in as few trainings as their being alone of their kind allows.
TINY = ["data=synthetic", "data.num_train=100", "data.num_test=20", "data.num_classes=4",
        "data.shape=[3,8,8]", "model=mlp", "epochs=3", "batch_size=16", "tensorboard=false",
        "num_threads=1", "log_interval=2", "data.hflip=true"]  # fmt: skip
TOGETHER = {
    "many": ["average=ema", "clip_grad_norm=1", "patience=9", "max_minutes=99", "loss=focal",
             "l1=1e-5", "l2=1e-4", "sampling=balanced", "best_by=macro_f1",
             "lr_factors=[[*bias,0.5]]", "layer_decay=0.8", "optimizer=muon", "scheduler=wsd",
             "augment=trivial"],
    "more": ["average=swa", "average.start_epoch=1", "clip_grad_value=0.1", "overfit_batches=2",
             "loss.class_weights=balanced", "optimizer=adamw", "optimizer.amsgrad=true",
             "decay_norms_and_biases=false", "scheduler=polynomial",
             "augment.random_resized_crop=0.3"],
    "rest": ["micro_batch_size=5", "clip_grad_adaptive=0.01", "freeze=[*bias]", "unfreeze_epoch=2",
             "data.fraction=0.5", "teacher=best.pth"],
}  # fmt: skip
LEFT_OUT = {
    ("more", "processes=2"): ["loss.class_weights=balanced"],
    ("rest", "compile=step"): [
        "micro_batch_size=5",
        "unfreeze_epoch=2",
        "clip_grad_adaptive=0.01",
        "teacher=best.pth",
    ],
    ("rest", "layers=numpy"): ["teacher=best.pth"],
}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", TOGETHER)
def test_what_is_taken_computes_what_the_plain_engine_computes(
    tmp_path: Path, name: str, engine: str, teacher: Path
) -> None:
    left_out = LEFT_OUT.get((name, engine), [])
    words = [*TINY, *(word for word in TOGETHER[name] if word not in left_out)]
    words = [word.replace("best.pth", str(teacher)) for word in words]
    is_exact = not engine.startswith("precision")
    full = ["precision=fp64"] if is_exact else []
    plain = train(tmp_path, *words, *full, folder="plain").folder
    other = train(tmp_path, *words, *full, engine, folder="other").folder
    have, want = rows(other), rows(plain)
    assert len(have) == len(want) > 0
    for ours, theirs in zip(have, want, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-8 if is_exact else 0.05)
        assert ours["lr"] == theirs["lr"]

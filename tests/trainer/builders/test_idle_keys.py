"""Keys that change nothing beside others are refused by name where they are typed."""

from __future__ import annotations

from typing import Any

import pytest

from tests.helpers.every_key import ALL_KEYS, ROWS, Dispatch
from trainer.builders import idle_keys
from trainer.config.compose import Composer, parse, plain
from trainer.errors import UserError


def test_every_key_has_its_row() -> None:
    """In the tests that go through them, command by command."""
    assert set(ROWS) == ALL_KEYS


def refuse(*words: str) -> None:
    args = parse(list(words))
    composer = Composer(args)
    jobs = [plain(job) for job in composer.jobs(composer.master())]
    idle_keys.refuse_in_training(idle_keys.keys_in(args.overrides), jobs)


SMALL_VGG = ["model=vgg11", "data=cifar10"]
IDLE: list[tuple[str, list[str], str]] = [  # the key, what makes it idle, what gives it a part
    ("augment.flip=0.5", [], "data.hflip=true"),
    ("augment.mix_probability=0.5", [], "augment.cutmix=1"),
    ("histograms=true", ["tensorboard=false"], "tensorboard=true"),
    ("model.dropout=0.3", SMALL_VGG, "model.head=imagenet"),
    ("model.dropout=0.3", SMALL_VGG, "data.shape=[3,128,128]"),
]


@pytest.mark.parametrize(("key", "beside", "mended"), IDLE)
def test_a_key_that_another_makes_idle(
    dispatch: Dispatch, key: str, beside: list[str], mended: str
) -> None:
    done = dispatch(*beside, key)
    assert done.returncode == 2, done.output
    assert f"{key}: " in done.stderr
    refuse(*beside, key, mended)
    refuse(*beside, "optimizer.lr=0.01")


def test_in_a_sweep_it_is_idle_if_no_job_gives_it_a_part() -> None:
    refuse("--multirun", "augment.mix_probability=0.5", "augment.mixup=0,1")
    with pytest.raises(UserError, match=r"^augment\.mix_probability=0\.5: "):
        refuse("--multirun", "augment.mix_probability=0.5", "seed=0,1")


def test_only_what_is_typed_is_refused() -> None:
    """`augment=basic` mirrors no digits, and lists `flip` all the same."""
    refuse("augment=basic")
    refuse("model=vgg11", "data=cifar10")
    with pytest.raises(UserError, match=r"data\.hflip=false"):
        refuse("augment=basic", "augment.flip=0.5")


@pytest.mark.parametrize("key", ["data.mean=[0.5]", "data.std=[0.5]"])
def test_normalisation_beside_weights_that_bring_theirs(
    dispatch: Dispatch, default_run: Any, key: str
) -> None:
    weights = f"weights={default_run.best}"
    done = dispatch(weights, key)
    assert done.returncode == 2, done.output
    assert f"{key}: " in done.stderr
    assert "has its own" in done.stderr
    refuse(weights)
    refuse(key)


def test_trust_in_a_training(dispatch: Dispatch) -> None:
    done = dispatch("trust=[my_nets]")
    assert done.returncode == 2
    assert "trust=[my_nets]: plays no part in a training" in done.stderr

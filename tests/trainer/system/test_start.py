"""The start of a command: garbage is searched for again as soon as torch is there."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.commands import ROOT, train
from trainer.system import start


@pytest.fixture
def usual() -> Iterator[tuple[int, ...]]:
    thresholds = gc.get_threshold()
    yield thresholds
    gc.set_threshold(*thresholds)
    gc.unfreeze()


def test_rare_until_torch_is_there(usual: tuple[int, ...]) -> None:
    start.begin()
    assert gc.isenabled()
    assert gc.get_threshold()[0] > 100_000
    frozen = gc.get_freeze_count()
    start.torch_is_imported()
    assert gc.get_threshold() == usual
    assert gc.get_freeze_count() > frozen


def test_where_nothing_was_put_off_nothing_is_frozen(usual: tuple[int, ...]) -> None:
    frozen = gc.get_freeze_count()
    start.torch_is_imported()
    assert (gc.get_threshold(), gc.get_freeze_count()) == (usual, frozen)


# What is asked at the first batch that a command computes.
ASKED = """
import gc, sys
import trainer.__main__ as entry
from data.loading.preprocess import Preprocess
usual = gc.get_threshold()
def asked(*_):
    print("as usual", gc.get_threshold() == usual)
    raise SystemExit(0)
Preprocess.__call__ = asked
sys.argv = ["trainer", *{words}]
entry.main()
"""


@pytest.mark.parametrize("command", ["train", "evaluate", "predict"])
def test_commands_compute_with_the_usual_search(command: str, tmp_path: Path) -> None:
    words = ["data=synthetic", "data.num_train=200", "data.num_test=10", "epochs=1"]
    if command != "train":
        best = train(tmp_path, *words).folder / "checkpoints" / "best.pth"
        words = [command, str(best)]
    if command == "predict":
        from PIL import Image

        Image.new("L", (28, 28)).save(tmp_path / "image.png")
        words.append(str(tmp_path / "image.png"))
    done = subprocess.run(
        [sys.executable, "-c", ASKED.format(words=words)],
        cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert "as usual True" in done.stdout, done.stdout + done.stderr

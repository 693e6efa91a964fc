"""The losses of short trainings, as they were: a change of the code that means to change none of
them is held to that. In float64, on one thread, twenty steps each, through the command line.

Rounding depends on the machine's instructions, so another machine than the one that wrote them may
differ in the last digits. On purpose changed, they are written again with
`python tests/test_stored_losses.py`, and the commit says why.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.commands import TrainedRun, train

STORED = Path(__file__).with_suffix(".json")
# Twenty steps of float64 between two correct orders of summation.
REL_TOLERANCE = 1e-9

COLOURS = ["data=synthetic", "data.num_train=50", "data.num_test=10", "data.num_classes=5",
           "data.val_size=0.2", "batch_size=8"]  # fmt: skip
RUNS = {
    "mlp, adam": ["model=mlp", "optimizer=adam"],
    "lenet5, sgd, augment": ["model=lenet5", "optimizer=sgd", "augment=strong"],
    "resnet18, batch norm": ["model=resnet18", *COLOURS, "data.shape=[3,16,16]"],
    "googlenet, auxiliary heads": ["model=googlenet", *COLOURS],
    "lenet5, layers by hand": ["model=lenet5", "layers=numpy"],
    "mlp, compiled step": ["model=mlp", "optimizer=adam", "compile=step"],
}
ALWAYS = ["precision=fp64", "num_threads=1", "seed=0", "epochs=4", "limit_batches=5",
          "tensorboard=false"]  # fmt: skip
NUMBERS = ("epoch", "loss", "accuracy", "lr")


def figures(run: TrainedRun) -> list[dict[str, Any]]:
    return [{name: row[name] for name in ("split", *NUMBERS)} for row in run.rows]


def near(rows: list[dict[str, Any]], stored: list[dict[str, Any]]) -> bool:
    pairs = list(zip(rows, stored, strict=True))
    return all(row["split"] == before["split"] for row, before in pairs) and all(
        math.isclose(row[name], before[name], rel_tol=REL_TOLERANCE)
        for row, before in pairs
        for name in NUMBERS
    )


def marked(name: str) -> object:
    is_slow = any(word in name for word in ("compiled", "googlenet", "resnet"))
    return pytest.param(name, marks=pytest.mark.slow) if is_slow else name


@pytest.mark.parametrize("name", [marked(name) for name in RUNS])
def test_losses_are_those_that_are_stored(tmp_path: Path, name: str) -> None:
    if "compiled" in name and shutil.which("g++") is None:
        pytest.skip("needs g++")
    stored = json.loads(STORED.read_text())[name]
    rows = figures(train(tmp_path, *RUNS[name], *ALWAYS))
    assert len(rows) == len(stored) == 9  # four epochs of training and validation, one test
    assert near(rows, stored)


def test_another_loss_is_seen(tmp_path: Path) -> None:
    """The twin: the tolerance is not so wide that another seed would pass."""
    stored = json.loads(STORED.read_text())["mlp, adam"]
    rows = figures(train(tmp_path, *RUNS["mlp, adam"], *ALWAYS, "optimizer.eps=1.1e-8"))
    assert not near(rows, stored)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        every = {
            name: figures(train(Path(folder), *words, *ALWAYS, folder=str(number)))
            for number, (name, words) in enumerate(RUNS.items())
        }
    STORED.write_text(json.dumps(every, indent=1) + "\n")
    sys.stdout.write(f"{STORED}\n")

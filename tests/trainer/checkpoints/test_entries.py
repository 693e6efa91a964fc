"""A checkpoint with a right digest and wrong content: one message that names the entry."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.commands import Finished
from tests.helpers.tiny_training import whole_run
from trainer import checkpoints
from trainer.checkpoints import entries
from trainer.checkpoints.kinds import is_tensor
from trainer.errors import UserError

Dispatch = Callable[..., Finished]
Edit = Callable[[dict[str, Any]], Any]


@pytest.fixture
def state() -> dict[str, Any]:
    return checkpoints.read(checkpoints.states_in(whole_run() / "checkpoints")[-1])


def test_what_a_training_writes_fits_the_table(state: dict[str, Any]) -> None:
    entries.check(state, state=True)
    entries.check(checkpoints.read(whole_run() / "checkpoints" / "best.pth"))
    own = entries.TABLE.keys() - entries.OF_RULES
    assert state.keys() == own, "an entry without a row, or a row of nothing"


WEIGHT = "hidden.0.weight"
repeating = torch.ones(1, 1).expand(8, 16)
overlapping = torch.ones(200).as_strided((8, 16), (1, 1))
ODD: dict[str, list[Any]] = {
    "model": [
        None, [1], {}, {1: torch.ones(2)}, {WEIGHT: 1.0}, {WEIGHT: {}}, {WEIGHT: repeating},
        {WEIGHT: overlapping}, {WEIGHT: torch.ones(2, dtype=torch.complex64)},
        {WEIGHT: torch.ones(2).to_sparse()}, {WEIGHT: torch.ones(2, device="meta")},
        {WEIGHT: torch.ones(2, dtype=torch.complex64).conj()},
        {WEIGHT: torch.ones(2).to(torch.float8_e4m3fn)},
    ],
    "config": [None, 3, ["a"], {}, "x" * (2**16 + 1)],
    "classes": [None, [], "cat", [1], ["a", None], ["a" * 1001], [["a"]], {"a": 1}],
    "shape": [None, [], [1, 4], [1, 4, 4, 4], [1.0, 4, 4], [True, 4, 4], [0, 4, 4], [1, -4, 4],
              [1, 2**14 + 1, 1], [64, 2**14, 2**14], "144"],
    "mean": [None, [], [None], ["0.5"], [math.nan], [math.inf], [10**400], 0.5, [0.1, 0.2, 0.3]],
    "std": [None, [], [0.0], [-1.0], [math.nan], [1e-40], [0.1, 0.2, 0.3], [[0.1]]],
    "resize": [None, 0, -1, 1.5, True, 2**14 + 1, [4]],
    "versions": [None, [], {"torch": 2}, {1: "2"}],
    "step": [None, -1, 1.0, True, 2**63, "8"],
    "epoch": [None, -1, 1.0, True, 2**63, "8"],
    "pixel_range": [3, [], [1], ["0", "1"], [5, 1], [0, math.inf], [0, None], [0, 1, 2]],
    "data": [None, 3, ["a"]],
    "fit": [None, 1, "CROP", ["crop"]],
    "probabilities": [None, 1, "none", ["softmax"]],
    "trained": [None, [], "hidden.0.weight", [None], [0, 1], ["a" * 1001], {"a": 1}],
    "optimizer": [
        None, [], {}, {"state": {}}, {"state": [], "param_groups": []},
        {"state": {}, "param_groups": []}, {"state": {}, "param_groups": [{}]},
        {"state": {}, "param_groups": [{"params": [0.5]}]},
        {"state": {"0": {}}, "param_groups": [{"params": [0]}]},
        {"state": {0: []}, "param_groups": [{"params": [0]}]},
    ],
    "optimizer_class": [None, 1, ["Adam"]],
    "guard": [None, [], {"scale": 1.0}, {"scale": "1", "_growth_tracker": 0},
              {"scale": -1.0, "_growth_tracker": 0}, {"scale": math.nan, "_growth_tracker": 0},
              {"scale": 1.0, "_growth_tracker": 2**40}],
    "schedule": [None, [], {"lowest": None}, {1: 2.0}, {"lowest": [1.0]}],
    "progress": [None, {}, {"epoch": 1}],
    "best": [None, {}, {"epoch": 1, "accuracy": None, "loss": 0.1},
             {"epoch": 1, "accuracy": 0.5, "loss": None}],
    "meter": [None, {}, {"num_images": 1, "num_correct": 1},
              {"num_images": 1, "num_correct": 1, "losses": [None]},
              {"num_images": 1, "num_correct": 1, "is_finite": True, "loss_sum": "0xg"},
              {"num_images": -1, "num_correct": 1, "is_finite": True, "loss_sum": "0x1"},
              {"num_images": 1, "num_correct": 1, "is_finite": True, "loss_sum": "0x" + 525 * "1"},
              {"num_images": 1, "num_correct": 1, "loss_sum": 1},
              {"num_images": 1, "num_correct": 1, "loss_sum": "0x1"}],
    "machine": [None, [], {"torch": None}],
    "early_stopping": [None, {}, {"best": 1, "num_worse": 0}, {"best": 0.5, "num_worse": -1},
                       {"best": math.inf, "num_worse": 0}, {"best": math.nan, "num_worse": 0}],
    "time_budget": [None, {}, {"spent": 1.0},
                    {"spent": -1.0, "reached": 0.0, "longest": 0.0, "epoch_s": 0.0}],
    "teacher": [None, {}, "0", {"weights_sha256": 1}, {"weights_sha256": "0", "more": "1"}],
    "average": [None, {}, {"number": 1}, {"number": -1, "model": {WEIGHT: torch.ones(2)}},
                {"number": 1, "model": {}}, {"number": 1, "model": {WEIGHT: repeating}}],
}  # fmt: skip


def test_no_row_is_left_out() -> None:
    assert ODD.keys() == entries.TABLE.keys()


@pytest.mark.parametrize("name", ODD)
def test_odd_values_are_named(state: dict[str, Any], name: str) -> None:
    for value in ODD[name]:
        with pytest.raises(UserError, match=f"'{name}'") as error:
            entries.check(state | {name: value}, state=True)
        assert len(str(error.value)) < 400


@pytest.mark.parametrize("name", ODD)
def test_missing_entries_are_named(state: dict[str, Any], name: str) -> None:
    state.pop(name, None)
    row = entries.TABLE[name]
    if row.optional:
        entries.check(state, state=True)
        assert entries.value_of(state, name) == row.default
        return
    said = "weights only" if name == "optimizer" else f"'{name}' is missing"
    with pytest.raises(UserError, match=said):
        entries.check(state, state=True)
    if row.of_state:
        entries.check(state)


def test_progress_is_that_of_the_weights(state: dict[str, Any]) -> None:
    state["progress"]["step"] += 1
    with pytest.raises(UserError, match="contradicts"):
        entries.check(state, state=True)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last), torch.ones(3, 4).t(),
        torch.ones(1).expand(1, 1), torch.ones(0, 3), torch.tensor(3), torch.ones(9)[::2],
        torch.ones(4, 6)[:, ::2], torch.ones(2, dtype=torch.bfloat16),
    ],
)  # fmt: skip
def test_plain_tensors_in_any_order_of_memory_are_taken(tensor: torch.Tensor) -> None:
    assert is_tensor(tensor)


@pytest.mark.parametrize(
    "edit",
    [
        lambda e: e.pop("config"), lambda e: e.update(model=[1]), lambda e: e.update(classes=None),
        lambda e: e.update(mean=None), lambda e: e.update(std=[0.1, 0.2, 0.3]),
        lambda e: e.update(shape=[1, 4]), lambda e: e.pop("epoch"), lambda e: e.update(resize="4"),
    ],
)  # fmt: skip
def test_commands_end_with_one_message(dispatch: Dispatch, edit: Edit) -> None:
    best = checkpoints.read(whole_run() / "checkpoints" / "best.pth")
    edit(best)
    checkpoints.write(Path("odd.pth"), best)
    for words in (["predict", "odd.pth", "odd.pth"], ["evaluate", "odd.pth"],
                  ["export", "odd.pth", "--format", "state_dict"],
                  ["weights=odd.pth"]):  # fmt: skip
        done = dispatch(*words)
        assert done.returncode == 2, done.output
        assert "odd.pth: it" in done.stderr
        assert "Traceback" not in done.output
    assert [path.name for path in Path().iterdir()] == ["odd.pth"]


@pytest.mark.parametrize(
    "edit",
    [
        lambda e: e["optimizer"].update(param_groups=[]), lambda e: e.pop("guard"),
        lambda e: e.update(progress=None), lambda e: e.update(meter={}), lambda e: e.pop("mean"),
    ],
)  # fmt: skip
def test_resume_goes_on_from_the_state_before(
    dispatch: Dispatch, tmp_path: Path, edit: Edit
) -> None:
    """Or, if all are odd, ends with one message."""
    run = Path(shutil.copytree(whole_run(), tmp_path / "run"))
    first, last = checkpoints.states_in(run / "checkpoints")
    for path in (last, first):
        odd = checkpoints.read(path)
        edit(odd)
        checkpoints.write(path, odd)
        if path == last:
            (run / "summary.json").unlink()
            done = dispatch("resume", "run", "epochs=1")  # too few: refused once a state is found
            assert done.returncode == 2, done.output
            assert "resuming from step 4" in done.output
    done = dispatch("resume", "run")
    assert done.returncode == 2, done.output
    assert "no intact state" in done.stderr

"""Ledger of test readings: counted by split and run, whole whatever happens to the file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.commands import ROOT
from trainer.runs import readings


def reading(number: int, dataset: str = "d", digest: str = "") -> dict[str, object]:
    return {
        "command": "train", "run": f"outputs/{number}", "checkpoint": "best.pth",
        "digest": digest or f"{number}", "dataset": dataset, "split": "test", "num_images": 1000,
    }  # fmt: skip


def test_readings_are_counted_by_split_run_and_weights(tmp_path: Path) -> None:
    file = tmp_path / "outputs" / readings.NAME
    readings.note(file, **reading(1))
    readings.note(file, **reading(1))
    readings.note(file, **reading(1, digest="other"))
    readings.note(file, **reading(2, dataset="e"))
    found = readings.note(file, **reading(3))
    assert found == readings.Readings(file, count=4, runs=2, models=3)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["dataset"] for row in rows] == ["d", "d", "d", "e", "d"]
    assert all(row["time"] and row["command"] == "train" for row in rows)


def test_a_copy_of_a_checkpoint_is_the_same_run(tmp_path: Path) -> None:
    file = tmp_path / readings.NAME
    readings.note(file, **reading(1, digest="best"))
    readings.note(file, **reading(2, digest="best"))  # elsewhere
    found = readings.note(file, **reading(1, digest="last"))
    assert found == readings.Readings(file, count=3, runs=1, models=2)
    other = readings.note(file, **reading(3, digest="of another run"))
    assert other == readings.Readings(file, count=4, runs=2, models=3)


def test_other_pixels_under_the_same_names_are_another_test_split(tmp_path: Path) -> None:
    """An image brought to another shape is still that image; what earlier versions noted, too."""
    file = tmp_path / readings.NAME
    readings.note(file, **reading(1))  # of an earlier version
    readings.note(file, **reading(2), pixels="1x28x28 crop:aa")
    readings.note(file, **reading(3), pixels="1x28x28 crop:bb")
    found = readings.note(file, **reading(4), pixels="1x32x32 crop:cc")
    assert found is not None
    assert found.count == 4
    assert readings.readings_of(file, "d", "1x28x28 crop:aa").count == 3
    assert readings.readings_of(file, "d").count == 4


def test_what_is_damaged_is_passed_over(tmp_path: Path) -> None:
    file = tmp_path / readings.NAME
    readings.note(file, **reading(1))
    with open(file, "ab") as opened:
        opened.write(b'[]\n{"dataset": "d"}\n\xff\n{"dataset": "d", "run": "cut o')
    found = readings.note(file, **reading(2))
    assert found is not None
    assert (found.count, found.runs) == (2, 2)


def test_a_ledger_that_cannot_be_written_costs_no_result(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / readings.NAME).mkdir()
    assert readings.note(tmp_path / readings.NAME, **reading(1)) is None
    assert "could not be noted: Is a directory" in caplog.text
    assert readings.readings_of(tmp_path / readings.NAME, "d").count == 0


def test_processes_that_end_together_lose_no_line(tmp_path: Path) -> None:
    file = tmp_path / readings.NAME
    code = (
        "import sys; from pathlib import Path; from trainer.runs import readings\n"
        "for i in range(200):\n"
        "    readings.append(Path(sys.argv[1]), b'x' * 300 + b'\\n')"
    )
    workers = [subprocess.Popen([sys.executable, "-c", code, file], cwd=ROOT) for _ in range(3)]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0, 0]
    assert file.read_bytes() == (b"x" * 300 + b"\n") * 600


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        ("outputs/2026-11-30/10-00-00", "outputs"), ("outputs/sweeps/a/3", "outputs"),
        ("runs/a", "runs"), ("mine/sweep/0", "mine"), ("a", "."),
    ],
)  # fmt: skip
def test_the_ledger_lies_beside_the_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: str, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(run).mkdir(parents=True)
    if "sweep" in run:
        (Path(run).parent / "multirun.yaml").touch()
    found = readings.ledger_of(Path(run))
    assert os.path.relpath(found.parent) == expected
    assert readings.ledger_of(Path("x.pth"), in_run=False) == Path("outputs") / readings.NAME


def test_past_a_handful_the_price_of_choosing_is_told(tmp_path: Path) -> None:
    file = tmp_path / readings.NAME
    for number in range(readings.HANDFUL):
        found = readings.note(file, **reading(number))
    assert found is not None
    assert "by luck" not in found.told(0.94, 1000)
    for number in range(16):
        found = readings.note(file, **reading(number))
    assert found is not None
    assert "split: 21, by 16 runs" in found.told(0.94, 1000)
    rng = np.random.default_rng(0)
    best = rng.binomial(1000, 0.94, (20_000, 16)).max(axis=1).mean() / 1000 - 0.94
    assert f"16 equally good models is {100 * best:.1f} points above" in found.told(0.94, 1000)
    of_seeds = rng.normal(0.94, 0.004, (20_000, 16)).max(axis=1).mean() - 0.94
    assert f" {100 * of_seeds:.1f} points above" in found.told(0.94, 1000, std=0.004)

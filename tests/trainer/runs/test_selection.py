"""Selection among runs: by validation, whatever the test split says."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from scipy import stats

from tests.helpers.commands import Finished, run_trainer
from trainer.runs import readings
from trainer.runs.read import read_runs
from trainer.runs.selection import configurations, ordered, selected

Dispatch = Callable[..., Finished]


def write_run(folder: Path, overrides: list[str], val: float, **others: Any) -> Path:
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(overrides))
    summary = {
        "status": "finished", "val_accuracy": val, "val_loss": 0.3, "num_val_images": 400,
        "test_accuracy": None, "num_test_images": 1000, "dataset": "d1", "epochs": 3,
        "best_epoch": 2, "train_s": 1.0, "images_per_s": 10.0,
    }  # fmt: skip
    (folder / "summary.json").write_text(json.dumps({**summary, **others}))
    return folder


def names(rows: list[Any]) -> list[str]:
    return [row.folder.name for row in rows]


def test_order_is_by_accuracy_then_loss_then_place(tmp_path: Path) -> None:
    write_run(tmp_path / "0", ["seed=0"], 0.90, val_loss=0.4, test_accuracy=0.99)
    write_run(tmp_path / "1", ["seed=1"], 0.90, val_loss=0.2, test_accuracy=0.80)
    write_run(tmp_path / "2", ["seed=2"], 0.90, val_loss=0.2, test_accuracy=0.90)
    write_run(tmp_path / "3", ["seed=3"], 0.95, val_loss=0.9, test_accuracy=0.10)
    (tmp_path / "4").mkdir()
    (tmp_path / "4" / "summary.json").write_text('{"status": "failed"}')
    assert names(ordered(read_runs(tmp_path))) == ["3", "1", "2", "0", "4"]


def test_the_test_split_changes_nothing(tmp_path: Path) -> None:
    """The same choice whatever stands in the summaries about the test."""
    chosen = set()
    for trial in range(5):
        draw = random.Random(trial)
        folder = tmp_path / str(trial)
        for i, val in enumerate((0.91, 0.94, 0.92, 0.90)):
            words = [f"model={'ab'[i % 2]}", f"seed={i // 2}"]
            write_run(folder / str(i), words, val, test_accuracy=draw.random())
        best = selected(read_runs(folder))
        chosen.add((len(best), best[0].overrides, tuple(names(list(best[0].rows)))))
    assert chosen == {(1, ("model=b",), ("1", "3"))}


def test_a_configuration_is_the_runs_that_differ_in_the_seed(tmp_path: Path) -> None:
    values = [0.91, 0.93, 0.92]
    for seed, value in enumerate(values):
        write_run(tmp_path / f"a{seed}", ["model=a", f"seed={seed}"], value, test_accuracy=value)
    write_run(tmp_path / "b", ["model=b", "data.split_seed=4"], 0.99)
    best, other = configurations(read_runs(tmp_path))
    assert (best.overrides, other.overrides) == (("model=b",), ("model=a",))
    assert other.test is not None
    assert best.test is None
    expected = stats.t.interval(0.95, 2, stats.tmean(values), stats.sem(values))
    assert other.val.interval == pytest.approx(expected)
    assert other.val.std == pytest.approx(stats.tstd(values))
    assert names(list(other.rows)) == ["a1", "a2", "a0"]


def test_datasets_are_selected_apart(tmp_path: Path) -> None:
    write_run(tmp_path / "0", ["data=x"], 0.99, dataset="x")
    write_run(tmp_path / "1", ["data=y"], 0.60, dataset="y")
    write_run(tmp_path / "2", ["data=y", "model=b"], 0.70, dataset="y")
    assert [one.rows[0].folder.name for one in selected(read_runs(tmp_path))] == ["0", "2"]


def test_unfinished_runs_are_not_selected(tmp_path: Path) -> None:
    write_run(tmp_path / "0", ["model=a"], 0.99, status="interrupted")
    write_run(tmp_path / "1", ["model=b"], 0.60)
    assert names(list(selected(read_runs(tmp_path))[0].rows)) == ["1"]


@pytest.fixture
def sixteen(tmp_path: Path) -> list[float]:
    """Sixteen seeds of one configuration, the best by test among the worst by validation."""
    draw = random.Random(0)
    tests = [0.938 + draw.gauss(0, 0.004) for _ in range(15)] + [0.9507]
    for seed, test in enumerate(tests):
        val = 0.930 + 0.0005 * (15 - seed)
        write_run(tmp_path / "s" / str(seed), [f"seed={seed}"], val, test_accuracy=test)
    return tests


def test_sixteen_seeds_are_one_configuration(sixteen: list[float], dispatch: Dispatch) -> None:
    done = dispatch("report", "s")
    assert done.returncode == 0, done.output
    assert "16 runs are one configuration: they differ in the seed alone" in done.stdout
    low, high = stats.t.interval(0.95, 15, stats.tmean(sixteen), stats.sem(sixteen))
    mean = f"test mean {stats.tmean(sixteen):.4f}, std {stats.tstd(sixteen):.4f}"
    assert f"{mean}, 95 %: {low:.4f} to {high:.4f}" in done.stdout
    assert "of these validation chose 0:" in done.stdout
    lines = [line for line in done.stdout.splitlines() if "0.9507" in line]
    assert [line.split()[0] for line in lines] == ["15"]  # its own row and no more
    page = Path("s/report.html").read_text()
    assert page.count("0.9507") - page.count('data-v="0.9507"') == 1
    assert "they differ in the seed alone" in page


def test_report_as_json(sixteen: list[float], dispatch: Dispatch) -> None:
    found = json.loads(dispatch("report", "s", "--json").stdout)
    assert not Path("s/report.html").exists()
    assert [run["folder"] for run in found["runs"]] == [f"s/{seed}" for seed in range(16)]
    assert found["selected"] == "s/0"
    assert found["runs"][0]["val_interval"][0] < found["runs"][0]["val_accuracy"]
    (one,) = found["configurations"]
    assert one["n"] == 16
    assert one["test_mean"] == pytest.approx(stats.tmean(sixteen))
    assert all(run["selected"] for run in found["runs"])


def test_report_as_csv(tmp_path: Path, dispatch: Dispatch) -> None:
    import csv

    write_run(tmp_path / "s" / "0", ["model=a", "seed=1"], 0.9)
    write_run(tmp_path / "s" / "1", ["model==cmd", "optimizer.lr=0.1"], 0.95, test_accuracy=0.5)
    lines = dispatch("report", "s", "--csv").stdout.splitlines()
    rows = list(csv.DictReader(lines))
    assert [row["folder"] for row in rows] == ["s/1", "s/0"]
    assert (rows[0]["model"], rows[0]["optimizer.lr"], rows[0]["seed"]) == ("'=cmd", "0.1", "")
    assert (rows[1]["test_accuracy"], rows[0]["test_accuracy"]) == ("", "0.5")
    assert [row["selected"] for row in rows] == ["True", "False"]
    assert dispatch("report", "s", "--csv", "--json").returncode == 2


def test_csv_tells_what_was_asked_for_from_what_came_of_it(
    tmp_path: Path, dispatch: Dispatch
) -> None:
    import csv

    write_run(tmp_path / "s" / "0", ["epochs=30", "patience=2", "optimizer.lr=0.1"], 0.9)
    rows = list(csv.reader(dispatch("report", "s", "--csv").stdout.splitlines()))
    assert len(set(rows[0])) == len(rows[0])
    found = dict(zip(*rows, strict=True))
    assert (found["epochs"], found["epochs (override)"], found["optimizer.lr"]) == (
        "3",
        "30",
        "0.1",
    )


def test_runs_on_other_pixels_are_selected_apart(tmp_path: Path) -> None:
    for name, val, pixels in (("a", 0.9, "s:1"), ("b", 0.8, "s:2"), ("c", 0.7, "s:2")):
        write_run(tmp_path / "two" / name, [f"model={name}"], val, test_pixels=pixels)
        same = {"test_pixels": "large:7" if name == "a" else "s:2"}
        write_run(tmp_path / "one" / name, [f"model={name}"], val, **same)
    assert [one.overrides[0] for one in selected(read_runs(tmp_path / "two"))] == [
        "model=a", "model=b",
    ]  # fmt: skip
    assert [one.overrides[0] for one in selected(read_runs(tmp_path / "one"))] == ["model=a"]


def test_the_price_of_choosing_is_the_same_for_a_sweep_and_its_runs(
    tmp_path: Path, dispatch: Dispatch
) -> None:
    """By the spread of the seeds that were tested, where it is known."""
    found = []
    for name in ("zoo", "single"):
        for seed, test in enumerate((0.90, 0.94, 0.95)):
            write_run(
                tmp_path / "outputs" / name / str(seed), ["model=a", f"seed={seed}"], 0.9,
                test_accuracy=test, dataset=name,
            )  # fmt: skip
        for number in range(8):
            readings.note(
                tmp_path / "outputs" / readings.NAME, command="train", run=f"{name}{number}",
                checkpoint="", digest=f"{name}{number}", dataset=name, split="test",
                num_images=1000,
            )  # fmt: skip
    (tmp_path / "outputs" / "zoo" / "multirun.yaml").touch()
    for folder in ("zoo", "zoo/1", "single/1"):
        done = dispatch("report", f"outputs/{folder}")
        found.append(re.search(r"models is ([\d.]+) points above", done.stdout)[1])  # type: ignore[index]
    std = np.std([0.90, 0.94, 0.95], ddof=1)
    luck = np.random.default_rng(0).normal(0, std, (100_000, 8)).max(axis=1).mean()
    assert found[0] == found[1] == f"{100 * luck:.1f}"
    assert found[2] != found[1]


def test_inverted_pixels_are_another_dataset(tmp_path: Path) -> None:
    """By two trainings on folders with the same names, and a third on a copy of the first."""
    for label, i in np.ndindex(2, 8):
        pixels = np.random.default_rng(100 * label + i).integers(0, 256, (8, 8), np.uint8)
        for name, shown in (("one", pixels), ("two", 255 - pixels), ("three", pixels)):
            (tmp_path / name / f"c{label}").mkdir(parents=True, exist_ok=True)
            Image.fromarray(shown).save(tmp_path / name / f"c{label}" / f"{i}.png")
    words = (
        "data=image_folder", "data.shape=[1,8,8]", "model=mlp", "epochs=1", "data.test_size=0.3",
        "data.val_size=0.3", "tensorboard=false",
    )  # fmt: skip
    for name in ("one", "two", "three"):
        own = (*words, f"data.root={name}", f"hydra.run.dir=outputs/{name}")
        done = run_trainer(*own, cwd=tmp_path)
        assert done.returncode == 0, done.output
        read = 2 if name == "three" else 1
        assert f"readings of this test split: {read}, by {read} run" in done.stdout
    report = run_trainer("report", "outputs", cwd=tmp_path)
    assert "2 groups of runs were validated on different images" in report.stdout

"""`compare` on the same images: pixels, classes, labels, and splits that were drawn otherwise."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.helpers.commands import Finished, run_trainer
from tests.helpers.image_files import write_image
from tests.helpers.predicted_runs import LABELS, N, make_run, right
from tests.helpers.small_sweeps import SMALL
from trainer.runs import predictions

Dispatch = Callable[..., Finished]


def test_images_that_both_tested_where_test_sets_differ(tmp_path: Path, dispatch: Dispatch) -> None:
    """Images of a folder are known by their files, so that the shared ones can be compared."""
    names = [f"{i:03}.png" for i in range(N)]
    make_run(tmp_path / "a", right(0.9, 1), files=names)
    make_run(tmp_path / "b", right(0.9, 2)[100:], files=names[100:], labels=LABELS[100:])
    found = json.loads(dispatch("compare", "a", "b", "--json").stdout)
    assert found["n"] == N - 100
    table = dispatch("compare", "a", "b").stdout.partition("\n\n")[0]
    for name, seed in (("a", 1), ("b", 2)):
        accuracy = right(0.9, seed)[100:].mean()
        assert found[f"accuracy_{name}"] == accuracy
        assert re.search(rf"(?m)^{name} +1 +{N - 100} +{accuracy:.4f} ", table)
    make_run(tmp_path / "c", right(0.9, 3), files=names)
    three = dispatch("compare", "a", "b", "c").stdout
    assert re.findall(r"(?m)^a +1 +(\d+) +([\d.]+)", three) == [
        ("300", f"{right(0.9, 1)[100:].mean():.4f}"), ("400", f"{right(0.9, 1).mean():.4f}"),
    ]  # fmt: skip


FOLDER = (
    "data=image_folder", "data.root=photos", "data.shape=[3,8,8]", "model=mlp", "epochs=1",
    "num_threads=1", "data.test_size=0.3", "data.val_size=0.2", "tensorboard=false",
)  # fmt: skip


def test_other_pixels_and_classes_are_refused_whatever_the_splits(
    tmp_path: Path, dispatch: Dispatch
) -> None:
    """Folders with the same file names: other pixels, a class renamed, and the same in all."""
    for name, shift, second in (("one", 0, "c1"), ("two", 50, "c1"), ("three", 0, "kitty")):
        for label, i in np.ndindex(2, 20):
            file = tmp_path / name / ("c0", second)[label] / f"{i:02}.png"
            write_image(file, 100 * label + i + shift, (8, 8))
    shutil.copytree(tmp_path / "one", tmp_path / "four")
    words = [word for word in FOLDER if not word.startswith("data.root")]
    for name, seed in (("one", 0), ("two", 1), ("three", 1), ("four", 1)):
        own = (*words, f"data.root={name}", f"data.split_seed={seed}", f"hydra.run.dir=run_{name}")
        assert run_trainer(*own, cwd=tmp_path).returncode == 0
    tests = [files_in(tmp_path / f"run_{name}", "test") for name in ("one", "two")]
    assert tests[0] != tests[1]
    for name, reason in (
        ("two", "the same name, but not the same pixels: c"),
        ("three", "their classes differ: run_one alone has c1; run_three alone has kitty"),
    ):
        done = dispatch("compare", "run_one", f"run_{name}")
        assert done.returncode == 2
        assert reason in done.stderr
    done = dispatch("compare", "run_one", "run_four", "--json")
    assert done.returncode == 0, done.output
    assert json.loads(done.stdout)["n"] == len(tests[0] & tests[1])


def test_a_file_that_moved_to_another_class_is_refused(tmp_path: Path, dispatch: Dispatch) -> None:
    names = [f"c{label}/{i:03}.png" for i, label in enumerate(LABELS)]
    moved = [f"c{(LABELS[0] + 1) % 3}/000.png", *names[1:]]
    labels = np.concatenate([(LABELS[:1] + 1) % 3, LABELS[1:]])
    make_run(tmp_path / "a", right(0.9, 1), files=names)
    make_run(tmp_path / "b", right(0.9, 2), files=moved, labels=labels)
    unknown = dispatch("compare", "a", "b")
    assert unknown.returncode == 0
    assert "nothing tells whether their pixels are the same" in unknown.stdout
    for run in "ab":
        keys = {"classes": ["c0", "c1", "c2"], "test": {str(i): f"{i:x}" for i in range(N)}}
        (tmp_path / run / "images.json").write_text(json.dumps(keys))
    refused = dispatch("compare", "a", "b")
    assert refused.returncode == 2
    assert f"image {names[0]}, labelled c{LABELS[0]}, of the one is {moved[0]}" in refused.stderr
    twin = dispatch("compare", "a", str(make_run(tmp_path / "c", right(0.9, 3), files=names)))
    assert twin.returncode == 0
    keys["test"]["0"] = "another image of the same name"
    (tmp_path / "b" / "images.json").write_text(json.dumps(keys))
    assert dispatch("compare", "a", "b").returncode == 0


def files_in(folder: Path, *splits: str) -> set[str]:
    with open(folder / predictions.NAME, newline="") as file:
        return {row["file"] for row in csv.DictReader(file) if row["split"] in splits}


def test_images_that_one_side_was_trained_on_are_left_out(
    tmp_path: Path, dispatch: Dispatch
) -> None:
    """Two runs on other splits of a folder, one of them evaluated on the test split of the other:
    against the sets of files in predictions.csv."""
    for label, i in np.ndindex(2, 20):
        write_image(tmp_path / "photos" / f"c{label}" / f"{i:02}.png", 100 * label + i, (8, 8))
    for name, seed in (("a", 0), ("b", 1)):
        words = (*FOLDER, f"data.split_seed={seed}", f"hydra.run.dir={name}")
        assert run_trainer(*words, cwd=tmp_path).returncode == 0
    done = run_trainer("evaluate", "b", "data.split_seed=0", "-o", "b/evaluation/x", cwd=tmp_path)
    assert done.returncode == 0, done.output
    test_a, test_b = files_in(tmp_path / "a", "test"), files_in(tmp_path / "b", "test")
    unseen = files_in(tmp_path / "b", "val", "test")
    plain = dispatch("compare", "a", "b")
    n = len(test_a & test_b)
    assert f"compared on the {n} images that are in the test split of both" in plain.stdout
    assert f"left out: {len(test_a) - n} of a and {len(test_b) - n} of b" in plain.stdout
    crossed = dispatch("compare", "a", "b/evaluation/x", "--json")
    assert crossed.returncode == 0, crossed.output
    assert json.loads(crossed.stdout)["n"] == len(test_a & unseen)
    assert 0 < len(test_a & unseen) < len(test_a)
    line = f"b/evaluation/x: left out {len(test_a - unseen)} images that it was trained on"
    assert line in crossed.stderr
    assert line in dispatch("compare", "a", "b/evaluation/x").stdout
    own = (tmp_path / "b" / predictions.NAME).read_text().splitlines(keepends=True)
    without_test = [line for line in own if not line.startswith("test,")]  # as of test=none
    (tmp_path / "b" / predictions.NAME).write_text("".join(without_test))
    unknown = dispatch("compare", "a", "b/evaluation/x", "--json")
    assert json.loads(unknown.stdout)["n"] == len(test_a)
    assert "may have been trained on some of these images" in unknown.stderr
    assert "data.split_seed" in unknown.stderr
    same = run_trainer("evaluate", "a", "-o", "a/evaluation/x", cwd=tmp_path)  # the twin
    assert same.returncode == 0
    twin = dispatch("compare", "a", "a/evaluation/x", "--json")
    assert (json.loads(twin.stdout)["n"], twin.stderr) == (len(test_a), "")


def test_validation_images_of_two_splits_of_a_set_without_files(
    tmp_path: Path, dispatch: Dispatch
) -> None:
    for name, seed in (("a", 0), ("b", 1)):
        words = (*SMALL, f"data.split_seed={seed}", "data.val_size=0.5", f"hydra.run.dir={name}")
        assert run_trainer(*words, "epochs=1", cwd=tmp_path).returncode == 0
    with open(tmp_path / "a" / predictions.NAME, newline="") as file:
        of_a = {row["index"] for row in csv.DictReader(file) if row["split"] == "val"}
    with open(tmp_path / "b" / predictions.NAME, newline="") as file:
        of_b = {row["index"] for row in csv.DictReader(file) if row["split"] == "val"}
    done = dispatch("compare", "a", "b", "split=val", "--json")
    assert done.returncode == 0, done.output
    assert 0 < json.loads(done.stdout)["n"] == len(of_a & of_b) < len(of_a)

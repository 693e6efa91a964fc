"""`compare` by the command line, on predictions made here: its figures against scipy's."""

from __future__ import annotations

import csv
import itertools
import json
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from scipy import stats

from tests.helpers.commands import Finished, run_trainer
from tests.helpers.image_files import write_image
from tests.helpers.small_sweeps import SMALL
from trainer.runs import predictions

Dispatch = Callable[..., Finished]
N = 400
LABELS = np.random.default_rng(0).integers(0, 3, N)


def make_run(
    folder: Path,
    right: NDArray[np.bool_],
    overrides: Sequence[str] = (),
    files: Sequence[str] = (),
    shape: tuple[int, ...] = (1, 28, 28),
    labels: NDArray[np.int64] = LABELS,
) -> Path:
    """A run's folder, as a training leaves it, with these images right."""
    (folder / ".hydra").mkdir(parents=True)
    config = {"data": {"_target_": "data.mnist.load_mnist_5k", "shape": list(shape)}}
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(list(overrides)))
    rows = [
        ("test", i, files[i] if files else "", f"c{label}", f"c{label if ok else (label + 1) % 3}",
         0.9, 0.1, "c0", "c1", "c2", "", "", 0.9, 0.06, 0.04, "", "")
        for i, (label, ok) in enumerate(zip(labels.tolist(), right.tolist(), strict=True))
    ]  # fmt: skip
    predictions.write(folder / predictions.NAME, rows)
    return folder


def right(share: float, seed: int, n: int = N) -> NDArray[np.bool_]:
    return np.random.default_rng(seed).random(n) < share


def test_two_runs_by_mcnemars_test(tmp_path: Path, dispatch: Dispatch) -> None:
    a, b = right(0.80, 1), right(0.90, 2)
    make_run(tmp_path / "a", a), make_run(tmp_path / "b", b)
    done = dispatch("compare", "a", "b", "--json")
    assert done.returncode == 0, done.output
    found = json.loads(done.stdout)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    assert found["p_value"] == pytest.approx(stats.binomtest(only_a, only_a + only_b).pvalue)
    assert found["difference"] == pytest.approx((only_b - only_a) / N)
    assert (found["accuracy_a"], found["accuracy_b"]) == (a.mean(), b.mean())
    assert found["low"] < found["difference"] < found["high"]
    assert (found["n"], found["a"], found["b"]) == (N, "a", "b")
    assert found["verdict"].startswith("b is better than a by ")
    assert found["verdict"] in dispatch("compare", "a", "b").stdout


def test_equal_runs_are_not_told_apart(tmp_path: Path, dispatch: Dispatch) -> None:
    make_run(tmp_path / "a", right(0.9, 1)), make_run(tmp_path / "b", right(0.9, 2))
    done = dispatch("compare", "a", "b")
    assert "not distinguishable with 400 images" in done.stdout
    assert "images would show a difference of 0.5 points with 80 % power" in done.stdout


def test_groups_of_a_sweep(tmp_path: Path, dispatch: Dispatch) -> None:
    for number, (model, share) in enumerate([("mlp", 0.7)] * 3 + [("lenet5", 0.9)] * 3):
        overrides = [f"model={model}", f"seed={number % 3}"]
        make_run(tmp_path / "zoo" / str(number), right(share, number), overrides)
    done = dispatch("compare", "zoo:model=mlp", "zoo:model=lenet5")
    assert done.returncode == 0, done.output
    assert "zoo:model=lenet5 is better than zoo:model=mlp by " in done.stdout
    assert "t-test over seeds and images\n" in done.stdout
    single = dispatch("compare", "zoo/0", "zoo:model=lenet5")
    assert "takes a single run to vary over seeds as the other side does" in single.stdout
    whole = dispatch("compare", "zoo", "zoo:model=mlp")
    assert whole.returncode == 2
    assert "zoo:model=lenet5, zoo:model=mlp" in whole.stderr
    assert "no run with model=vgg11" in dispatch("compare", "zoo:model=vgg11", "zoo").stderr


@pytest.mark.parametrize(
    ("words", "runs"),
    [
        ("optimizer.lr=0.1", "0 1"), ("optimizer.lr=0.10", "0 1"), ("optimizer.lr=1e-1", "0 1"),
        ("+optimizer.lr=0.1,seed=0.0", "0"), ("seed=0, optimizer.lr=0.1", "0"),
        ("optimizer.lr='0.1'", ""), ("seed=false", ""),
        ("model.hidden=[128,64]", "2 3"), ("model.hidden=[128, 64],seed=1", "3"),
        ("seed=1,model.hidden=[128,64]", "3"), ("model.hidden=[64,128]", ""),
        ("data.root=/a,b/c:d", "4"), ("data.root='/a,b/c:d'", "4"), ('data.root="/a,b/c:d"', "4"),
        ("data.root=/a", ""),
    ],
)  # fmt: skip
def test_overrides_are_matched_by_value(
    tmp_path: Path, dispatch: Dispatch, words: str, runs: str
) -> None:
    own = (
        ["optimizer.lr=0.1", "seed=0"], ["optimizer.lr=0.10", "seed=1"],
        ["model.hidden=[128,64]", "seed=0"], ["model.hidden=[128,64]", "seed=1"],
        ["data.root='/a,b/c:d'"],
    )  # fmt: skip
    for number, overrides in enumerate(own):
        make_run(tmp_path / "zo:o" / str(number), right(0.7 + number / 20, number), overrides)
    make_run(tmp_path / "other", right(0.9, 9))
    done = dispatch("compare", "other", f"zo:o:{words}", "--json")
    if not runs:
        assert done.returncode == 2
        assert f"no run with {words} is there. There are: " in done.stderr
        return
    assert done.returncode == 0, done.output
    means = [right(0.7 + int(run) / 20, int(run)).mean() for run in runs.split()]
    assert json.loads(done.stdout)["accuracy_b"] == pytest.approx(np.mean(means))


def test_what_is_proposed_can_be_pasted(tmp_path: Path, dispatch: Dispatch) -> None:
    own = (["model.hidden=[128,64]"], ["model.hidden=[8]", "data.root='it,s=a \\'test'"], [])
    for number, overrides in enumerate(own):
        make_run(tmp_path / "my zoo" / str(number), right(0.8, number), [*overrides, "seed=0"])
    make_run(tmp_path / "other", right(0.8, 4))
    done = dispatch("compare", "other", "my zoo")
    assert done.returncode == 2
    proposed = shlex.split(done.stderr.partition("Name it: ")[2].replace(", ", " "))
    assert len(proposed) == 3
    found = [json.loads(dispatch("compare", "other", one, "--json").stdout) for one in proposed]
    accuracies = sorted(one["accuracy_b"] for one in found)
    assert accuracies == pytest.approx(sorted(right(0.8, n).mean() for n in range(3)))
    refused = dispatch("compare", "other", "my zoo:model.hidden=[")
    assert refused.returncode == 2
    assert "model.hidden=[: not understood" in refused.stderr


def test_a_name_that_is_proposed_means_one_configuration(
    tmp_path: Path, dispatch: Dispatch
) -> None:
    """Whatever part of it was typed: what is proposed holds that, and the rest."""
    for number, (model, lr) in enumerate(itertools.product(("mlp", "lenet5"), ("0.05", "0.1"))):
        own = [f"model={model}", f"optimizer.lr={lr}", "seed=0"]
        make_run(tmp_path / "zoo" / str(number), right(0.8, number), own)
    make_run(tmp_path / "other", right(0.8, 9))
    for typed in ("optimizer.lr=0.05", "model=mlp"):
        told = dispatch("compare", "other", f"zoo:{typed}").stderr.partition("Name it: ")[2]
        proposed = told.split()
        assert len(proposed) == 2
        for name in proposed:
            assert typed in name
            assert dispatch("compare", "other", name.rstrip(","), "--json").returncode == 0, name
    for typed in ("modle=mlp", "optimizer.lr=7"):
        told = dispatch("compare", "other", f"zoo:{typed}")
        assert told.returncode == 2
        assert f"zoo:{typed}: no run with {typed} is there. There are: " in told.stderr
        assert told.stderr.count("zoo:model=") == 4


def test_seeds_that_differ_too_much_are_not_blamed_on_the_images(
    tmp_path: Path, dispatch: Dispatch
) -> None:
    """Each run has every image right or every image wrong."""
    for number in range(4):
        own = [f"model={'ab'[number % 2]}", f"seed={number // 2}"]
        make_run(tmp_path / "zoo" / str(number), np.full(N, number in (0, 3)), own)
    done = dispatch("compare", "zoo:model=a", "zoo:model=b")
    assert "more than 1,000 seeds each would be needed to show a difference of 0.5" in done.stdout
    assert "more images" not in done.stdout


def test_checkpoints_without_predictions_are_told_how_to_get_them(
    tmp_path: Path, dispatch: Dispatch
) -> None:
    for name in "ab":
        run = make_run(tmp_path / name, right(0.9, 1))
        (run / "checkpoints").mkdir()
        for file in ("best.pth", "last.pth", "step_20.pth"):
            (run / "checkpoints" / file).touch()
    for file in ("last.pth", "step_20.pth"):
        done = dispatch("compare", "a/checkpoints/best.pth", f"b/checkpoints/{file}")
        assert done.returncode == 2
        assert f"`evaluate b/checkpoints/{file}` writes them" in done.stderr
    shutil.copytree(tmp_path / "a", tmp_path / "b" / "evaluation" / "last_test")
    assert dispatch("compare", "a", "b/checkpoints/last.pth").returncode == 0
    missing = dispatch("compare", "a", "b/checkpoints/none.pth")
    assert "there is no such run, checkpoint or sweep" in missing.stderr


def test_what_evaluate_has_read_is_not_read_again(tmp_path: Path, dispatch: Dispatch) -> None:
    """Of runs whose training read no test split, unless the best weights are others by now."""
    for name, seed in (("a", 1), ("b", 2)):
        run = make_run(tmp_path / name, right(0.8, seed))
        shutil.copytree(run, run / "evaluation" / "test")
        (run / "evaluation" / "test" / "evaluation.json").write_text('{"epoch": 3}')
        (run / "summary.json").write_text('{"best_epoch": 3}')
        own = (run / predictions.NAME).read_text().replace("\ntest,", "\nval,")
        (run / predictions.NAME).write_text(own)
    done = dispatch("compare", "a", "b", "--json")
    assert done.returncode == 0, done.output
    assert json.loads(done.stdout)["accuracy_b"] == right(0.8, 2).mean()
    assert dispatch("compare", "a", "b", "split=val").returncode == 0
    (tmp_path / "b" / "summary.json").write_text('{"best_epoch": 4}')
    stale = dispatch("compare", "a", "b")
    assert stale.returncode == 2
    assert "the test split of this run was not read" in stale.stderr


def test_a_run_is_not_compared_with_a_group_that_holds_it(
    tmp_path: Path, dispatch: Dispatch
) -> None:
    for seed in range(3):
        make_run(tmp_path / "zoo" / str(seed), right(0.8, seed), [f"seed={seed}"])
    for words in (("zoo/1", "zoo"), ("zoo", "zoo/1"), ("zoo:seed=1", "zoo")):
        done = dispatch("compare", *words)
        assert done.returncode == 2
        assert f"the run {tmp_path / 'zoo' / '1'} is on both sides" in done.stderr
    assert dispatch("compare", "zoo/1", "zoo/2").returncode == 0
    make_run(tmp_path / "other", right(0.8, 4))
    assert dispatch("compare", "other", "zoo").returncode == 0


def test_three_sides_are_corrected_for_their_number(tmp_path: Path, dispatch: Dispatch) -> None:
    for name, share in (("a", 0.80), ("b", 0.84), ("c", 0.95)):
        make_run(tmp_path / name, right(share, ord(name)))
    lines = [json.loads(x) for x in dispatch("compare", *"abc", "--json").stdout.splitlines()]
    assert [(x["a"], x["b"]) for x in lines] == [("a", "b"), ("a", "c"), ("b", "c")]
    smallest = min(lines, key=lambda x: x["p_value"])
    assert smallest["p_holm"] == pytest.approx(3 * smallest["p_value"])
    assert all(x["p_holm"] >= x["p_value"] for x in lines)


def test_what_cannot_be_compared_is_named(tmp_path: Path, dispatch: Dispatch) -> None:
    a = make_run(tmp_path / "a", right(0.9, 1))
    make_run(tmp_path / "other", right(0.9, 1), shape=(1, 32, 32))
    make_run(tmp_path / "fewer", right(0.9, 1)[:50], labels=LABELS[:50])
    make_run(tmp_path / "labels", right(0.9, 1), labels=(LABELS + 1) % 3)
    for name, reason in (
        ("other", "data.shape is [1, 28, 28] for the one and [1, 32, 32]"),
        ("fewer", "(400 and 50 images)"), ("labels", "image 0 is labelled c0 and c2"),
        ("nothing", "nothing: there is no such run, checkpoint or sweep"),
    ):  # fmt: skip
        done = dispatch("compare", "a", name)
        assert done.returncode == 2
        assert reason in done.stderr
    assert "at least two sides" in dispatch("compare", "a").stderr
    assert "split=train" in dispatch("compare", "a", "a", "split=train").stderr
    assert (
        "has no predictions of the val split" in dispatch("compare", "a", "a", "split=val").stderr
    )
    (a / predictions.NAME).write_text("split,index\n")
    assert "its first line is not that of a predictions.csv" in dispatch("compare", "a", "a").stderr


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


def test_a_checkpoint_means_its_run(tmp_path: Path, dispatch: Dispatch) -> None:
    for name in "ab":
        make_run(tmp_path / name, right(0.9, 1))
        (tmp_path / name / "checkpoints").mkdir()
        (tmp_path / name / "checkpoints" / "best.pth").touch()
    done = dispatch("compare", "a/checkpoints/best.pth", "b/checkpoints/best.pth", "--json")
    assert json.loads(done.stdout)["difference"] == 0


def test_torch_is_not_imported(tmp_path: Path) -> None:
    make_run(tmp_path / "a", right(0.9, 1))
    make_run(tmp_path / "zoo" / "0", right(0.9, 1), ["model=mlp"])
    (tmp_path / "zoo" / "multirun.yaml").touch()
    code = (
        "import sys; from trainer.cli.dispatch import dispatch\n"
        "assert dispatch(['compare', 'a', 'a']) == 0\n"
        "assert dispatch(['compare', 'zoo', 'zoo:model=mlp']) == 0\n"
        "print('torch' in sys.modules)"
    )
    import subprocess

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("False\n")
    assert run_trainer("compare", "--help", cwd=tmp_path).returncode == 0


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

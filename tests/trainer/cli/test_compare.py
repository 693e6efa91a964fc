"""`compare` by the command line, on predictions made here: its figures against scipy's."""

from __future__ import annotations

import itertools
import json
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from tests.helpers.commands import Finished, run_trainer
from tests.helpers.predicted_runs import LABELS, N, make_run, right
from trainer.runs import predictions

Dispatch = Callable[..., Finished]


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

"""Pictures to classes by the command line: digits as PNG files, and everything that goes wrong."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, Finished, TrainedRun, run_trainer
from PIL import Image

from trainer import checkpoint

NUM_DIGITS = 100


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the first test digits, <number>_<label>.png, half of them in a subfolder."""
    folder = tmp_path_factory.mktemp("digits")
    (folder / "more").mkdir()
    with np.load(ROOT / "data" / "mnist_5k.npz") as file:
        images, labels = file["test_images"], file["test_labels"]
    for i in range(NUM_DIGITS):
        where = folder / ("more" if i >= NUM_DIGITS // 2 else "")
        Image.fromarray(images[i]).save(where / f"{i:03}_{labels[i]}.png")
    return folder


def rows_of(done: Finished) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


Dispatch = Callable[..., Finished]


def test_predict_agrees_with_evaluate(
    default_run: TrainedRun, digits: Path, dispatch: Dispatch
) -> None:
    """The same weights see the same pictures, once as files: accuracy, and each probability."""
    from trainer import parts, restore

    done = dispatch("predict", str(default_run.best), str(digits), "--json", "--top-k=10")
    assert done.returncode == 0, done.output
    rows = rows_of(done)
    assert [Path(row["file"]).name[:3] for row in rows] == [f"{i:03}" for i in range(NUM_DIGITS)]

    entries = checkpoint.read(default_run.best)
    config = restore.stored_config(entries)
    test = parts.load_data(config["data"]).test
    model = restore.restore(entries, config)
    batches = restore.evaluation(config, model, entries, test, torch.device("cpu"))
    images, labels = next(batches.epoch())
    with torch.no_grad():
        expected = model(images[:NUM_DIGITS]).softmax(1)
    for row, truth in zip(rows, expected, strict=True):
        by_index = sorted(row["top"], key=lambda one: one["index"])
        assert [one["class"] for one in by_index] == [str(i) for i in range(10)]
        found = [one["probability"] for one in by_index]
        np.testing.assert_allclose(found, truth.numpy(), rtol=1e-4, atol=1e-7)
        assert math.fsum(found) == pytest.approx(1, abs=1e-12)
        in_order = [one["probability"] for one in row["top"]]
        assert in_order == sorted(in_order, reverse=True)
    right = sum(Path(row["file"]).stem[-1] == row["top"][0]["class"] for row in rows)
    assert right == (expected.argmax(1) == labels[:NUM_DIGITS]).sum()
    assert right > 0.8 * NUM_DIGITS


def test_rows_for_people(default_run: TrainedRun, digits: Path, dispatch: Dispatch) -> None:
    seven = digits / "007_7.png"
    as_json = dispatch("predict", str(default_run.best), str(seven), "--json", "--top-k", "2")
    top = rows_of(as_json)[0]["top"]
    done = dispatch("predict", str(default_run.best), str(seven), "--top-k", "2")
    heading, first, second = done.stdout.splitlines()
    assert heading.split() == ["file", "probability", "class"]
    assert first.split() == [str(seven), f"{top[0]['probability']:.4f}", top[0]["class"]]
    assert second.split() == [f"{top[1]['probability']:.4f}", top[1]["class"]]
    assert first.index("0.") == second.index("0.")
    assert len(dispatch("predict", str(default_run.best), str(seven)).stdout.splitlines()) == 6


def test_bad_files_are_named_and_the_rest_goes_on(
    default_run: TrainedRun, digits: Path, tmp_path: Path
) -> None:
    """As a process: exit code 1, one line on stderr each, nothing else there."""
    shutil.copy(digits / "007_7.png", tmp_path / "c_7.png")
    whole = (tmp_path / "c_7.png").read_bytes()
    (tmp_path / "a_cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "b_words.txt").write_text("not a picture")
    (tmp_path / "d_empty.png").write_bytes(b"")
    (tmp_path / ".hidden").write_bytes(b"")
    (tmp_path / ".thumbs").mkdir()
    (tmp_path / ".thumbs" / "x.png").write_bytes(b"")
    done = run_trainer("predict", str(default_run.best), ".", "--top-k", "1", cwd=tmp_path)
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 2
    assert done.stdout.splitlines()[1].split()[::2] == ["c_7.png", "7"]
    lines = done.stderr.splitlines()
    assert [line.partition(":")[0] for line in lines[:3]] == [
        "a_cut.png",
        "b_words.txt",
        "d_empty.png",
    ]
    assert lines[3:] == ["3 of 4 pictures failed."]


def test_bad_files_as_json(default_run: TrainedRun, digits: Path, dispatch: Dispatch) -> None:
    Path("bad\n.png").write_bytes(b"")  # dispatch works in a folder of its own
    good = str(digits / "007_7.png")
    done = dispatch("predict", str(default_run.best), good, "bad\n.png", good, "--json")
    assert done.returncode == 1
    first, second, third = rows_of(done)
    assert second == {"file": "bad\n.png", "error": "the file is empty."}
    assert first == third
    assert set(first) == {"file", "top"}
    shown = dispatch("predict", str(default_run.best), "bad\n.png")
    assert shown.stderr.splitlines()[0] == "bad?.png: the file is empty."


def test_words_that_look_like_keys_and_options(
    default_run: TrainedRun, digits: Path, dispatch: Dispatch
) -> None:
    for name in ("device=cpu", "x=1.png", "-dash.png"):
        shutil.copy(digits / "007_7.png", name)
    best = str(default_run.best)
    done = dispatch("predict", "--json", best, "device=cpu", "x=1.png", "--", "-dash.png")
    assert done.returncode == 0, done.output
    assert [row["file"] for row in rows_of(done)] == ["device=cpu", "x=1.png", "-dash.png"]
    Path("device=cpu").unlink()
    as_key = dispatch("predict", "device=cpu", best, "x=1.png", "precision=fp64", "num_threads=1")
    assert as_key.returncode == 0, as_key.output


def test_layers_by_hand_predict_the_same(
    default_run: TrainedRun, digits: Path, dispatch: Dispatch
) -> None:
    words = ("predict", str(default_run.best), str(digits), "--json")
    by_layers = {n: rows_of(dispatch(*words, f"layers={n}")) for n in ("torch", "numpy")}
    for ours, theirs in zip(by_layers["numpy"], by_layers["torch"], strict=True):
        assert [one["class"] for one in ours["top"]] == [one["class"] for one in theirs["top"]]
        for one, other in zip(ours["top"], theirs["top"], strict=True):
            assert one["probability"] == pytest.approx(other["probability"], abs=1e-6)
    assert len(by_layers["numpy"]) == NUM_DIGITS


def test_linked_folders_are_walked_once(
    default_run: TrainedRun, digits: Path, dispatch: Dispatch
) -> None:
    Path("here").mkdir()
    Path("here/loop").symlink_to(Path("here").absolute())
    Path("here/digits").symlink_to(digits)
    done = dispatch("predict", str(default_run.best), "here", "--json", "--top-k=1")
    assert done.returncode == 0, done.output
    assert len(rows_of(done)) == NUM_DIGITS


def test_other_sizes_and_colours_are_brought_to_the_nets_own(
    default_run: TrainedRun, digits: Path, dispatch: Dispatch
) -> None:
    """A digit in colour, on a wide black sheet, four times as large: the crop finds it."""
    small = np.asarray(Image.open(digits / "007_7.png").convert("RGB"))
    sheet = np.zeros((112, 400, 3), np.uint8)
    sheet[:, 144:256] = small.repeat(4, axis=0).repeat(4, axis=1)
    Image.fromarray(sheet).save("sheet.png")
    probability = {}
    for fit in ("crop", "squash"):
        done = dispatch("predict", str(default_run.best), "sheet.png", "--json", "--fit", fit)
        probability[fit] = {t["class"]: t["probability"] for t in rows_of(done)[0]["top"]}
    assert next(iter(probability["crop"])) == "7"
    assert probability["crop"] != probability["squash"]


def test_a_net_that_computes_nonsense_says_so(
    default_run: TrainedRun, digits: Path, dispatch: Dispatch
) -> None:
    entries = checkpoint.read(default_run.best)
    next(iter(entries["model"].values())).fill_(torch.nan)
    checkpoint.write(Path("nan.pth"), entries)
    done = dispatch("predict", "nan.pth", str(digits / "007_7.png"), "--json")
    assert done.returncode == 1
    assert "not finite" in rows_of(done)[0]["error"]


def test_weights_without_a_data_set(
    default_run: TrainedRun, digits: Path, dispatch: Dispatch
) -> None:
    """import-weights knows no data set; its checkpoints predict all the same."""
    import yaml

    entries = checkpoint.read(default_run.best)
    config = yaml.safe_load(entries["config"])
    config["data"] = {"shape": [1, 28, 28], "num_classes": 10}
    entries["config"] = yaml.safe_dump(config)
    checkpoint.write(Path("imported.pth"), entries)
    picture = str(digits / "007_7.png")
    done = dispatch("predict", "imported.pth", picture)
    assert done.returncode == 0, done.output
    assert done.stdout == dispatch("predict", str(default_run.best), picture).stdout


WRONG = [
    (["BEST", "nowhere.png"], "nowhere.png"),
    (["BEST", "there.png", "nowhere"], "nowhere"),
    (["BEST", "empty"], "no files in this folder"),
    (["BEST"], "IMAGE_OR_FOLDER"),
    (["no.pth", "there.png"], "no.pth"),
    (["there.png", "there.png"], "there.png"),
    (["BEST", "there.png", "--top-k", "0"], "--top-k 0"),
    (["BEST", "there.png", "--top-k", "-1"], "--top-k -1"),
    (["BEST", "there.png", "--top-k", "few"], "few"),
    (["BEST", "there.png", "--fit", "stretch"], "squash"),
    (["BEST", "there.png", "device=cuda:99"], "device=cuda:99"),
    (["BEST", "there.png", "precision=fp8"], "precision=fp8"),
    (["BEST", "there.png", "epochs=3"], "epochs"),
    (["BEST", "there.png", "nofile=3.png"], "nofile"),
]


@pytest.mark.parametrize(("words", "expected"), WRONG, ids=[" ".join(w) for w, _ in WRONG])
def test_wrong_words(
    default_run: TrainedRun, digits: Path, dispatch: Dispatch, words: list[str], expected: str
) -> None:
    shutil.copy(digits / "007_7.png", "there.png")
    Path("empty").mkdir()
    Path("empty/.hidden.png").write_bytes(b"")
    done = dispatch("predict", *(str(default_run.best) if w == "BEST" else w for w in words))
    assert done.returncode == 2, done.output
    assert expected in done.stderr
    assert "Traceback" not in done.output
    assert done.stdout == ""


def test_missing_files_are_told_before_torch_is_imported(default_run: TrainedRun) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "trainer", "predict", str(default_run.best),
         "nowhere.png"], cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert "nowhere.png" in done.stderr
    assert "trainer.commands.arguments" in done.stderr
    assert "torch" not in done.stderr


def test_torchvision_and_the_compiler_stay_unimported(
    default_run: TrainedRun, digits: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "trainer", "predict", str(default_run.best),
         str(digits / "007_7.png")], cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0
    modules = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert {"torch", "data.pictures"} <= modules
    assert not {"torchvision", "torch._dynamo"} & modules


def test_a_reader_that_has_seen_enough_is_no_error(default_run: TrainedRun, digits: Path) -> None:
    done = subprocess.run(
        f"{sys.executable} -m trainer predict {default_run.best} {digits} {digits} | head -1",
        shell=True, cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout.startswith("file ")

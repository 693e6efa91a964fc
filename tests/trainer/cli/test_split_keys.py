"""Keys that divide a folder, as they are typed: one message and exit code 2 where they are wrong,
the same splits wherever a checkpoint or a run is used again."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from data.image_folder import fix_test
from tests.helpers.commands import Finished, read_json, run_trainer
from tests.helpers.image_files import write_image
from tests.helpers.small_sweeps import predictions

Dispatch = Callable[..., Finished]
WORDS = ("model=mlp", "model.hidden=[4]", "data=image_folder", "data.root=photos", "epochs=1",
         "data.shape=[3,8,8]", "data.val_size=0.2", "num_threads=1", "batch_size=8",
         "tensorboard=false", "hydra.run.dir=run")  # fmt: skip


def photos(folder: Path) -> Path:
    """Twelve patients of each of two classes, two images of each."""
    for label, name in enumerate(("cat", "dog")):
        for i in range(24):
            path = folder / "photos" / name / f"p{12 * label + i // 2:02}_{i % 2}.png"
            write_image(path, seed=100 * label + i, size=(8, 8))
    return folder / "photos"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (r"data.group=(p\d+", r"data.group=(p\d+: is no regular expression"),
        (r"data.group=p\d+", r"data.group=p\d+: has no part in parentheses"),
        (r"data.group=(p0)", "data.group=(p0): 28 of 48 images have no group"),
        (r"data.group=([cd])[a-z]", "Too few groups with images of cat, dog"),
        ("data.group=none.csv", "data.group=none.csv: does not exist"),
        ("data.test_files=none.txt", "data.test_files=none.txt: does not exist"),
        ("data.test_files=list", "data.test_files=list: 1 of its files is not among the images"),
        ("data.test_size=0", "data.test_size=0: must lie between 0 and 1"),
        ("data.folds=30", "Too few images in cat, dog: each class needs 30 or more"),
    ],
)
def test_wrong_keys_end_with_one_message(
    dispatch: Dispatch, tmp_path: Path, word: str, message: str
) -> None:
    photos(tmp_path)
    Path("list").write_text("cat/none.png")
    done = dispatch(*WORDS, word)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) <= 2
    assert "Traceback" not in done.output
    assert sorted(os.listdir()) == ["list", "photos"]


def test_a_size_beside_a_list_is_refused_where_it_is_typed(
    dispatch: Dispatch, tmp_path: Path
) -> None:
    photos(tmp_path)
    done = dispatch(*WORDS, "data.test_files=list", "data.test_size=0.3")
    assert done.returncode == 2
    assert "data.test_size=0.3: has no effect: data.test_files lists the test split" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        (r"data.group=(p\d+)_",),
        (r"data.group=(p\d+)_", "data.folds=3", "data.fold=2"),
        ("data.test_files=photos/test_files.txt",),
        ("data.folds=2", "data.test_size=0"),
    ],
    ids=["group", "both", "list", "folds"],
)
def test_what_is_trained_is_evaluated_and_resumed_on_its_own_splits(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    root = photos(tmp_path)
    fix_test(root=str(root), test_size=0.2, val_size=0.2, split_seed=0)
    done = run_trainer(*WORDS, *words, cwd=tmp_path)
    assert done.returncode == 0, done.output
    summary = read_json(tmp_path / "run" / "summary.json")
    done = run_trainer("evaluate", "run/checkpoints/best.pth", "-o", "out", cwd=tmp_path)
    assert done.returncode == 0, done.output
    found = read_json(tmp_path / "out" / "evaluation.json")
    assert found["same_data"] is True
    assert found["accuracy"] == pytest.approx(summary["test_accuracy"])
    done = run_trainer("resume", "run", "epochs=2", cwd=tmp_path)
    assert done.returncode == 0, done.output
    assert read_json(tmp_path / "run" / "summary.json")["epochs"] == 2
    other = "data.split_seed=1" if "test_files" not in words[0] else "data.test_files=other"
    names = (tmp_path / "photos" / "test_files.txt").read_text().splitlines()
    (tmp_path / "other").write_text("\n".join(names[:-1]))
    done = run_trainer("evaluate", "run/checkpoints/best.pth", "-o", "out", other, cwd=tmp_path)
    assert done.returncode == 0, done.output
    assert read_json(tmp_path / "out" / "evaluation.json")["same_data"] is False  # the twin


def test_an_index_means_the_same_file_in_every_split(tmp_path: Path) -> None:
    """In predictions.csv, whatever the seed of the split: a damaged file has its place, too."""
    root = photos(tmp_path)
    (root / "cat" / "p03_0.png").write_bytes(b"no image")
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
    found = []
    for seed in (0, 1):
        words = (*WORDS, "data.on_bad_image=skip", f"data.split_seed={seed}")
        done = run_trainer(*words, f"hydra.run.dir=run{seed}", cwd=tmp_path)
        assert done.returncode == 0, done.output
        found.append([(int(r["index"]), r["file"]) for r in predictions(tmp_path / f"run{seed}")])
        assert all(names[index] == file for index, file in found[-1])
        assert len(set(found[-1])) == len(found[-1]) > 10
    assert found[0] != found[1]
    assert all(file != "cat/p03_0.png" for file in dict(found[0] + found[1]).values())

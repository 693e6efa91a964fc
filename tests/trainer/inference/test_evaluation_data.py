"""`evaluate` on other data than the net was trained with: other classes, other images."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from data.types import Split
from tests.helpers.commands import Finished, TrainedRun, train
from tests.helpers.image_files import pack_folder, write_classes, write_image
from trainer import checkpoints
from trainer.errors import UserError
from trainer.inference import evaluation_data

Dispatch = Callable[..., Finished]
WARNING = "Warning: these are not the data, or not the split, that the model was trained with"
QUIET = ("tensorboard=false", "device=cpu")


def evaluated(dispatch: Dispatch, *words: str | Path) -> tuple[str, dict[str, Any]]:
    """What it printed, and evaluation.json."""
    done = dispatch("evaluate", *map(str, words), "-o", "out", "device=cpu")
    assert done.returncode == 0, done.output
    return done.stdout, json.loads(Path("out/evaluation.json").read_text())


@pytest.fixture(scope="module")
def animals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A net of cats, dogs and owls, all splits carved from one folder: best.pth, and pictures/."""
    folder = tmp_path_factory.mktemp("animals")
    write_classes(folder / "pictures", per_class=20)
    run = train(
        folder, "data=image_folder", f"data.root={folder / 'pictures'}", "data.shape=[3,12,12]",
        "data.val_size=0.2", "data.test_size=0.2", "model.hidden=[8]", "epochs=1", *QUIET,
    )  # fmt: skip
    shutil.copy(run.best, folder / "best.pth")
    shutil.copy(run.folder / "checkpoints" / "last.pth", folder / "last.pth")
    return folder


@pytest.fixture
def images(animals: Path, tmp_path: Path) -> Path:
    """A copy of them, to be changed: at another place the same images are the same data."""
    return Path(shutil.copytree(animals / "pictures", tmp_path / "pictures"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["best.pth", "last.pth"])
def test_the_data_of_the_training_need_no_warning(
    animals: Path, images: Path, dispatch: Dispatch, name: str
) -> None:
    for words in ((), (f"data.root={images}",)):
        said, results = evaluated(dispatch, animals / name, *words)
        assert "Warning" not in said
        assert results["same_data"] is True


@pytest.mark.parametrize("change", ["added", "removed", "split_seed", "val_size", "test_size"])
def test_changed_data_are_told_before_the_figures(
    animals: Path, images: Path, dispatch: Dispatch, change: str
) -> None:
    key = []
    if change == "added":
        write_image(images / "cat" / "new.png", seed=77)
    elif change == "removed":
        (images / "dog" / "03.png").unlink()
    else:
        key = [f"data.{change}={7 if change == 'split_seed' else 0.3}"]
    said, results = evaluated(dispatch, animals / "best.pth", f"data.root={images}", *key)
    assert said.index(WARNING) < said.index("test split")
    assert said.count("Warning") == 1
    assert "data=<another dataset>" in said
    assert results["same_data"] is False


def test_another_set_and_old_checkpoints_need_no_warning(
    animals: Path, images: Path, dispatch: Dispatch
) -> None:
    write_image(images / "cat" / "new.png", seed=77)
    other = ("data=image_folder", f"data.root={images}")
    said, results = evaluated(dispatch, animals / "best.pth", *other)
    assert "Warning" not in said
    assert results["same_data"] is None
    config = yaml.safe_load(checkpoints.read(animals / "best.pth")["config"])
    own = ("data=image_folder", f"data.root={config['data']['root']}", "data.split_seed=7")
    said, results = evaluated(dispatch, animals / "best.pth", *own)  # the twin: it is its own
    assert "Warning" in said
    assert results["same_data"] is False
    entries = checkpoints.read(animals / "best.pth")
    del entries["data"]
    checkpoints.write(Path("old.pth"), entries)
    said, results = evaluated(dispatch, "old.pth", f"data.root={images}")
    assert "Warning" not in said
    assert results["same_data"] is None


@pytest.mark.parametrize(
    ("old", "others"), [("owl", "cat, dog, zebra"), ("cat", "dog, owl, zebra")]
)
def test_a_folder_with_some_of_the_classes_is_refused(
    animals: Path, images: Path, dispatch: Dispatch, old: str, others: str
) -> None:
    """Shared names at their places, and at others; before any image is packed."""
    folder = pack_folder(images)
    shutil.move(images / old, images / "zebra")
    done = dispatch("evaluate", str(animals / "best.pth"), f"data.root={images}", "-o", "out")
    assert (done.returncode, done.stdout) == (2, "")
    told = f"data: its classes are {others}, those of the checkpoint cat, dog, owl; "
    assert done.stderr.startswith(f"{told}on one side only: {old}, zebra. ")
    assert not folder.exists()
    assert not Path("out").exists()


def test_a_folder_with_none_of_the_names_is_compared_by_position(
    animals: Path, images: Path, dispatch: Dispatch
) -> None:
    for number, name in enumerate(("cat", "dog", "owl")):
        shutil.move(images / name, images / f"kind {number}")
    said, results = evaluated(dispatch, animals / "best.pth", f"data.root={images}")
    assert "those of this dataset differ" in said
    assert [(row["class"], row["count"]) for row in results["per_class"]] == [
        ("cat", 4), ("dog", 4), ("owl", 4),
    ]  # fmt: skip
    assert results["same_data"] is False  # the names are part of the data


@pytest.mark.parametrize("part", ["", "train"])
def test_a_strange_folder_without_a_test_split_is_taken_whole(
    animals: Path, tmp_path: Path, dispatch: Dispatch, part: str
) -> None:
    """Also one that is too small to draw a split from; one that has a test split gives that."""
    strange = write_classes(tmp_path / "strange" / part, per_class=2).parent if part else (
        write_classes(tmp_path / "strange", per_class=2)
    )  # fmt: skip
    words = ("data=image_folder", f"data.root={strange}")
    said, results = evaluated(dispatch, animals / "best.pth", *words)
    assert f"All 6 images of {strange} are taken: it has no test split" in said
    assert (results["num_images"], results["same_data"]) == (6, None)
    done = dispatch("evaluate", str(animals / "best.pth"), *words, "split=val", "-o", "val")
    assert done.returncode == 2  # a split of it was asked for, and there are too few
    if part:
        write_classes(strange / part, per_class=20)
        write_classes(strange / "test", per_class=1)
        said, results = evaluated(dispatch, animals / "best.pth", *words)
        assert "are taken" not in said
        assert results["num_images"] == 3


def test_the_folder_of_the_training_at_another_place_is_not_taken_whole(
    animals: Path, images: Path, dispatch: Dispatch
) -> None:
    words = ("data=image_folder", f"data.root={images}", "data.val_size=0.2")
    said, results = evaluated(dispatch, animals / "best.pth", *words, "data.test_size=0.2")
    assert results["num_images"] == 12
    said, results = evaluated(
        dispatch, animals / "best.pth", "data=image_folder", f"data.root={images}"
    )
    assert results["num_images"] == 60  # other sizes than the training's: not its splits
    assert "All 60 images" in said


def test_another_set_of_as_many_classes(default_run: TrainedRun, dispatch: Dispatch) -> None:
    entries = checkpoints.read(default_run.best)
    entries["classes"] = [f"digit {k}" for k in range(10)]
    checkpoints.write(Path("renamed.pth"), entries)
    said, results = evaluated(dispatch, "renamed.pth", "data=mnist_5k", "split=val")
    assert "those of this dataset differ" in said
    assert "val split of data=mnist_5k, 400 images on " in said
    assert "digit 3" in said
    assert results["num_images"] == 400

    known = [f"kind {k}" for k in range(11)]
    for num, told in ((10, "kind 9);"), (11, "kind 9, and 1 more);")):
        with pytest.raises(UserError) as refusal:
            evaluation_data.numbers_of(["a", *known[:2]], known[:num])
        assert told in str(refusal.value)
    refused = dispatch("evaluate", "renamed.pth", "data=synthetic", "data.num_classes=3")
    assert refused.returncode == 2


def test_the_same_classes_in_another_order_are_matched_by_name(
    default_run: TrainedRun, dispatch: Dispatch
) -> None:
    """A net whose outputs stand in another order, with their names: the same figures, class by
    class. With the names alone in another order nothing fits."""
    order = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
    entries = checkpoints.read(default_run.best)
    entries["classes"] = [entries["classes"][k] for k in order]
    checkpoints.write(Path("names.pth"), entries)
    for name in list(entries["model"])[-2:]:
        assert len(entries["model"][name]) == 10
        entries["model"][name] = entries["model"][name][order]
    checkpoints.write(Path("all.pth"), entries)

    said, plain = evaluated(dispatch, default_run.best)
    assert "matched by name" not in said
    said, moved = evaluated(dispatch, "all.pth")
    assert said.count("matched by name") == 1
    assert moved["same_data"] is True
    assert moved["accuracy"] == plain["accuracy"] > 0.9
    assert moved["loss"] == pytest.approx(plain["loss"], rel=1e-5)
    by_name = {row["class"]: row for row in plain["per_class"]}
    assert [row["class"] for row in moved["per_class"]] == [str(k) for k in order]
    assert all(row == by_name[row["class"]] for row in moved["per_class"])
    _, wrong = evaluated(dispatch, "names.pth")
    assert wrong["accuracy"] < 0.5


@pytest.mark.parametrize(
    ("found", "known", "numbers"),
    [
        ("abc", "abc", [0, 1, 2]), ("cab", "abc", [2, 0, 1]), ("xyz", "abc", [0, 1, 2]),
        ("aab", "aab", [0, 1, 2]),
    ],
)  # fmt: skip
def test_which_class_is_which(found: str, known: str, numbers: list[int]) -> None:
    assert evaluation_data.numbers_of(list(found), list(known)) == numbers
    split = Split(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.tensor([2, 0, 1]))
    labels = evaluation_data.relabelled(split, list(found), list(known)).labels
    assert labels.tolist() == [numbers[2], numbers[0], numbers[1]]
    assert labels.dtype == torch.int64


@pytest.mark.parametrize(
    ("found", "known", "told"),
    [
        ("bcz", "abc", "on one side only: a, z."), ("abz", "abc", "on one side only: c, z."),
        ("baa", "aab", "none, but a name stands twice"), ("abb", "aab", "a name stands twice"),
        ("xb", "abc", "data.num_classes=2"), ("abcd", "abc", "data.num_classes=4"),
    ],
)  # fmt: skip
def test_what_leaves_a_doubt_is_refused(found: str, known: str, told: str) -> None:
    with pytest.raises(UserError) as refusal:
        evaluation_data.numbers_of(list(found), list(known))
    assert told in str(refusal.value)


def test_a_part_of_the_classes_goes_by_name() -> None:
    assert evaluation_data.numbers_of(list("cb"), list("abc")) == [2, 1]
    split = Split(torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.tensor([1, 0]))
    assert evaluation_data.relabelled(split, list("cb"), list("abc")).labels.tolist() == [1, 2]

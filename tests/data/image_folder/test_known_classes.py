"""A folder's classes are known by their names before an image is read: wrong words about the net
are refused while nothing is packed yet."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.commands import Finished
from tests.helpers.image_files import pack_folder, write_classes, write_parts
from trainer.builders import datasets, training_run
from trainer.config.compose import Composer, parse, plain
from trainer.errors import UserError

Dispatch = Callable[..., Finished]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_classes(tmp_path / "root")


def job(*words: str) -> dict[str, Any]:
    composer = Composer(parse(list(words)))
    return plain(composer.jobs(composer.master())[0])


def words_for(root: Path) -> list[str]:
    return ["data=image_folder", f"data.root={root}", "data.shape=[3,32,32]"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["weights=nofile.pth"], "nofile.pth"),
        (["model.dropout=7"], "dropout=7"),
        (["freeze=[nothing*]"], "nothing*"),
        (["model=torchvision", "model.name=resnet1"], "resnet1"),
        (["model.num_classes=4"], "model.num_classes=4: the data has 3"),
        (["--multirun", "model.dropout=0,7"], "dropout=7"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_wrong_words_about_the_net_pack_nothing(
    root: Path, dispatch: Dispatch, wrong: list[str], said: str
) -> None:
    net = [] if any(word.startswith("model=") for word in wrong) else ["model=alexnet"]
    done = dispatch(*words_for(root), *net, *wrong)
    assert done.returncode == 2, done.output
    assert said in done.output
    assert "packing" not in done.output
    assert sorted(path.name for path in root.iterdir()) == ["cat", "dog", "owl"]
    assert not (root.parent / "outputs").exists()


def test_right_words_pack_after_the_net_was_checked(root: Path) -> None:
    config = job(*words_for(root), "model=alexnet", "model.dropout=0.7", "freeze=['*bias']")
    training_run.check(config)
    assert not pack_folder(root).exists()
    training_run.check_data(config)
    assert (pack_folder(root) / "3x32x32.pack").is_file()


def test_wrong_words_about_the_folders_are_said_by_the_first_check(root: Path) -> None:
    with pytest.raises(UserError, match=r"data\.root=null"):
        training_run.check(job("data=image_folder"))
    with pytest.raises(UserError, match="does not exist"):
        training_run.check(job("data=image_folder", "data.root=nowhere"))
    with pytest.raises(UserError, match="one class folder only, root"):
        training_run.check(job("data=image_folder", f"data.root={root.parent}"))
    training_run.check(job("data=image_folder", f"data.root={root}"))


def test_names_are_those_of_the_loaded_set(root: Path, tmp_path: Path) -> None:
    for folder in (root, write_parts(tmp_path / "parts", "train", "test")):
        options = job("data=image_folder", f"data.root={folder}", "data.shape=[3,8,8]")["data"]
        names = datasets.class_names(options)
        assert not pack_folder(folder).exists()
        assert datasets.announced_size(options) == ((3, 8, 8), 3)
        assert not pack_folder(folder).exists()
        assert names == ("cat", "dog", "owl") == datasets.load_data(options).classes
    assert datasets.class_names(job()["data"]) is None  # the digits' module has no such function


def test_a_set_of_the_users_own_without_such_a_function_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = (
        "from data.synthetic import load_synthetic\n\n\ndef load(num_classes=None, **keys):\n"
        "    return load_synthetic(**keys, num_classes=10)\n"
    )
    names = "\n\ndef class_names(**keys):\n    return list('abc')\n"
    (tmp_path / "set_of_theirs.py").write_text(load)
    (tmp_path / "named_set_of_theirs.py").write_text(load + names)
    monkeypatch.syspath_prepend(tmp_path)
    options = {**job("data=synthetic")["data"], "num_classes": None}
    shape = tuple(options["shape"])
    without = {**options, "_target_": "set_of_theirs.load"}
    assert datasets.known_size(without) is None
    assert datasets.announced_size(without) == (shape, 10)
    assert datasets.known_size({**options, "_target_": "named_set_of_theirs.load"}) == (shape, 3)


def test_a_constant_of_that_name_is_no_function(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("my_pictures")
    module.load = lambda **options: None  # type: ignore[attr-defined]
    module.class_names = ("cat", "dog")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_pictures", module)
    assert datasets.class_names({"_target_": "my_pictures.load"}) is None

    def class_names(**options: object) -> tuple[str, ...]:
        return "cat", "dog"

    module.class_names = class_names  # type: ignore[attr-defined]
    assert datasets.class_names({"_target_": "my_pictures.load"}) == ("cat", "dog")

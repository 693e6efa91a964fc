"""Every key of the commands that use a file, and of `summary`: it changes something that is looked
at here, or it is refused by name with exit code 2."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.every_key import (
    ALL_KEYS,
    ROWS,
    Dispatch,
    Outcome,
    Words,
    changes,
    joined,
    known,
    placed,
    traits,
)
from trainer import checkpoints
from trainer.builders import datasets, networks, pretrained
from trainer.cli import evaluate, export, import_weights, predict
from trainer.cli.arguments import MACHINE_KEYS, takes
from trainer.errors import UserError

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unchanged", "no_network")]


@pytest.fixture
def fitting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights as they would be read, which fit the first net that they are read for: a child that
    parses them takes a second, and there would have to be a file for each net."""
    found: dict[str, Any] = {}

    def from_file(path: Path, model: Any) -> pretrained.Start:
        generator = torch.Generator().manual_seed(0)
        for name, tensor in {} if found else model.state_dict().items():
            drawn = torch.rand(tensor.shape, generator=generator) - 0.5
            found[name] = (drawn.abs() if name.endswith("var") else drawn / 10).to(tensor.dtype)
        return pretrained.Start(dict(found))

    monkeypatch.setattr(pretrained, "from_file", from_file)


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """How a checkpoint's model was placed, and what of the data was asked for."""
    found: dict[str, Any] = {}
    move, load_data, on_layers = networks.move_model, datasets.load_data, networks.on_layers
    make_model = networks.make_model

    def moving(model: Any, *how: Any) -> Any:
        found["placed"] = [str(one) for one in how]
        return move(model, *how)

    def loading(options: Mapping[str, Any]) -> Any:
        try:
            data = load_data(options)
        except UserError as error:
            found["data"] = str(error)
            raise
        found["data"] = traits(data)
        found["seen"] = [data.classes, data.shape, data.mean, data.std, data.pixel_range]
        found["packs"] = os.path.isdir("packs")
        shutil.rmtree("packs", ignore_errors=True)
        return data

    def making(*how: Any) -> Any:
        net = make_model(*how)
        found["net"] = repr(net)
        return net

    def layering(layers: str, model: Any) -> Any:
        found["layers"] = layers
        return on_layers(layers, model)

    monkeypatch.setattr(networks, "move_model", moving)
    monkeypatch.setattr(datasets, "load_data", loading)
    monkeypatch.setattr(networks, "make_model", making)
    monkeypatch.setattr(networks, "on_layers", layering)
    return found


def using(dispatch: Dispatch, used: dict[str, Any], words: Words) -> Outcome:
    """What came out, and how it was computed; not the folder, which is named after the keys, nor
    the time that it took."""
    used.clear()
    datasets._load_data.cache_clear()  # a set that was used before has its fingerprint already
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(False)
    done = dispatch(*words)
    if words[0] == "predict" and "seen" in used:  # of its images a net alone tells nothing
        used["data"] = used["seen"]
    if done.returncode == 1 and words[0] == "predict":  # of an image, not of the words
        return 0, (done.output, dict(used))
    if done.returncode:
        return done.returncode, done.output
    results = None
    if words[0] == "evaluate":
        results = json.loads(Path("results/evaluation.json").read_text())
        for name in ("data", "images_per_s", "seconds"):
            results.pop(name, None)
    how = {**used, "threads": torch.get_num_threads(),
           "deterministic": torch.are_deterministic_algorithms_enabled()}  # fmt: skip
    said = re.sub(r"[\d,]+ images/s|readings of this test split.*", "", done.output)
    return 0, (results, said, how)


def rows_of(keys: tuple[str, ...]) -> list[str]:
    """Those of all keys that a command with these keys takes."""
    return sorted(key for key in ALL_KEYS if takes(key, keys))


OTHER_ROWS = {"trust": ([], "trust=my_nets"), "limit_batches": ([], "limit_batches=1")}


def compared(
    dispatch: Dispatch,
    used: dict[str, Any],
    places: dict[str, Path],
    words: Words,
    key: str,
    alone: bool = False,
) -> None:
    """The command without and with the key; alone: without what else its row needs."""
    more, changed = OTHER_ROWS.get(key) or ROWS[key]
    more = [] if alone else more
    more = [word for word in more if word.split("=")[0] in ("data", "loss", "model")
            or word.startswith("data.root=")
            or (key.startswith("model.") and word.startswith("data.shape="))]  # fmt: skip
    base = placed([*words, *more], places)
    if "{bare}" in words:  # which are made up to fit this net, for each test anew
        before = using(dispatch, used, base)
    else:
        before = known(lambda *words: using(dispatch, used, list(words)), *base, of="using")
    changes(key, before, using(dispatch, used, [*base, *placed([changed], places)]))


def checkpoint_for(key: str) -> str:
    return "{foreign}" if key == "trust" else "{best}"


@pytest.mark.parametrize("key", rows_of(evaluate.KEYS))
def test_of_evaluate(
    dispatch: Dispatch, used: dict[str, Any], places: dict[str, Path], key: str
) -> None:
    words = ["evaluate", checkpoint_for(key), "-o", "results"]
    if key in ("data.val_size", "data.split_seed"):
        words.append("split=val")
    if key == "data.hflip":
        words.append("--flip")
    if key == "limit_batches":
        words.append("data.num_test=2000")
    compared(dispatch, used, places, words, key)


def test_of_evaluate_the_split(
    dispatch: Dispatch, used: dict[str, Any], places: dict[str, Path]
) -> None:
    words = placed(["evaluate", "{best}", "-o", "results"], places)
    assert using(dispatch, used, words) != using(dispatch, used, [*words, "split=val"])
    assert set(evaluate.KEYS) - {"split", "data.", "loss."} <= set(ROWS)


def test_the_same_evaluation_is_the_same_outcome(
    dispatch: Dispatch, used: dict[str, Any], places: dict[str, Path]
) -> None:
    words = placed(["evaluate", "{best}", "-o", "results"], places)
    first = using(dispatch, used, words)
    assert first[0] == 0
    assert using(dispatch, used, words) == first


@pytest.mark.parametrize("key", rows_of((*MACHINE_KEYS, *predict.DESCRIBING)))
def test_of_predict(
    dispatch: Dispatch, used: dict[str, Any], places: dict[str, Path], key: str
) -> None:
    words = ["predict", checkpoint_for(key), "{images}/class_0/1.png", "--json"]
    compared(dispatch, used, places, words, key, alone=True)


BARE = ["model=mlp", "data=synthetic", "data.num_classes=4", "data.shape=[3,8,8]"]


@pytest.mark.parametrize("key", rows_of(predict.DESCRIBING))
def test_of_predict_on_bare_weights(
    dispatch: Dispatch, used: dict[str, Any], places: dict[str, Path], fitting: None, key: str
) -> None:
    words = ["predict", "{bare}", "{deep}/class_0/9.png", "--json", *BARE]
    if key in ("data.archive_md5", "data.verify"):  # of files at hand, for nothing is fetched
        root = "{junk}" if key == "data.verify" else "{archive}"
        words = [*words[:4], "model=mlp", "data=cifar10", f"data.root={root}"]
        base = placed(words, places)
        before = using(dispatch, used, base)
        changes(key, before, using(dispatch, used, [*base, ROWS[key][1]]))
        return
    if key in ("data.on_bad_image", "data.max_pixels", "data.cache_dir", "data.pixel_range"):
        words.append("data.num_classes=null")
    compared(dispatch, used, places, words, key)


@pytest.mark.parametrize("key", rows_of(export.KEYS))
def test_of_export(
    dispatch: Dispatch, used: dict[str, Any], places: dict[str, Path], key: str
) -> None:
    words = ["export", checkpoint_for(key), "--format", "state_dict", "-o", "out.pth", "--force"]
    compared(dispatch, used, places, words, key)


IMPORT_KEYS = ("model.", "data", "data.root", *(f"data.{k}" for k in import_weights.DESCRIBING))


@pytest.mark.parametrize("key", rows_of(IMPORT_KEYS))
def test_of_import_weights(
    dispatch: Dispatch, places: dict[str, Path], fitting: None, key: str
) -> None:
    more, changed = ROWS[key]
    model = next((w.split("=")[1] for w in more if w.startswith("model=")), "mlp")
    words = ["import-weights", "{bare}", "--model", model, "-o", "out.pth", "--force"]
    words += ["data.num_classes=4", "data.shape=[3,8,8]"]
    words += [word for word in more if key.startswith("model.") and word.startswith("data.shape")]
    if key in ("data.mean", "data.std"):
        words += ["data.mean=[0.5]", "data.std=[0.5]"]
    if key == "data.root":
        words += ["data=image_folder", "data.root={images}", "data.num_classes=null"]

    def outcome(*words: str) -> Outcome:
        done = dispatch(*placed(list(words), places))
        if done.returncode:
            return done.returncode, done.output
        entries = checkpoints.read(Path("out.pth"))
        return 0, {name: traits(value) for name, value in entries.items() if name != "digest"}

    if key in ("data", "data.root"):
        changed = {"data": "data=image_folder", "data.root": "data.root={renamed}"}[key]
        before = outcome(*words)
        changes(key, before, outcome(*words, changed))
        return
    changes(key, outcome(*words), outcome(*words, changed))


# data.download=false says that nothing is fetched, which summary never does of a set of known size.
@pytest.mark.parametrize("key", sorted(set(ROWS) - {"data.download"}))
def test_of_summary(dispatch: Dispatch, places: dict[str, Path], key: str) -> None:
    more, changed = ROWS[key]
    more = [
        word for word in more if re.match(r"(model|data|data\.(root|shape|num_classes))=", word)
    ]
    words = placed(joined(["summary", "data=synthetic", "data.shape=[3,16,16]"], *more), places)
    if key == "data.root":
        words = ["summary", "data=image_folder", f"data.root={places['images']}"]
        changed = f"data.root={places['three']}"
    if key == "data":
        words = ["summary"]
        changed = "data=cifar10"

    def outcome(*words: str) -> Outcome:
        done = dispatch(*words)
        return done.returncode, done.output

    before = known(outcome, *words, of="summary")
    changes(key, before, outcome(*words, *placed([changed], places)))

"""Imported weights get back what their file does not tell; a folder is evaluated as it lies; keys
that could do nothing are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import SqueezeNet1_1_Weights, squeezenet1_1

from models.vgg import VGG
from tests.helpers.commands import ROOT, Finished, TrainedRun, run_trainer
from trainer import checkpoints
from trainer.builders import pretrained
from trainer.errors import UserError

Dispatch = Callable[..., Finished]
IMPORT = ("import-weights", "sd.pth", "--model", "mlp", "model.hidden=[]", "-o", "ours.pth")


@pytest.fixture
def linear(tmp_path: Path) -> Path:
    torch.save({"fc.weight": torch.ones(10, 784), "fc.bias": torch.zeros(10)}, tmp_path / "sd.pth")
    (tmp_path / "names.txt").write_text("".join(f"digit {i}\n" for i in range(10)))
    return tmp_path


@pytest.mark.slow
def test_names_and_normalisation_by_hand(linear: Path, dispatch: Dispatch) -> None:
    words = ("data.shape=[1,28,28]", "--classes", "names.txt", "data.mean=[0.1]", "data.std=[0.3]")
    done = dispatch(*IMPORT, *words)
    assert done.returncode == 0, done.output
    entries = checkpoints.read(Path("ours.pth"))
    assert entries["classes"] == [f"digit {i}" for i in range(10)]
    assert (entries["mean"], entries["std"]) == ([0.1], [0.3])
    assert "--classes" not in done.stdout
    plain = dispatch(*IMPORT, "--force", "data.shape=[1,28,28]", "data.num_classes=10")
    assert plain.returncode == 0, plain.output
    assert "--classes FILE names them" in plain.stdout
    assert "data.mean=[...]" in plain.stdout
    entries = checkpoints.read(Path("ours.pth"))
    assert (entries["classes"][3], entries["mean"], entries["std"]) == ("3", [0.0], [1.0])


@pytest.mark.slow
def test_all_of_a_set_and_then_evaluated(linear: Path, dispatch: Dispatch) -> None:
    done = dispatch(*IMPORT, "data=mnist_5k", "--classes", "names.txt")
    assert done.returncode == 0, done.output
    entries = checkpoints.read(Path("ours.pth"))
    assert entries["shape"] == [1, 28, 28]
    assert entries["classes"][3] == "digit 3"
    assert 0.1 < entries["mean"][0] < 0.2
    refused = dispatch("evaluate", "ours.pth")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "add data=" in refused.stderr
    done = dispatch("evaluate", "ours.pth", "data=mnist_5k", "limit_batches=1")
    assert done.returncode == 0, done.output
    assert "accuracy" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--classes", "few.txt", "data.num_classes=10"], "has 2 names; the model has 10 classes"),
        (["--classes", "none.txt"], "none.txt: cannot be read"),
        (["--classes", "empty.txt"], "a name on each line"),
        (["--classes", "bytes.txt"], "no text in UTF-8"),
        (["data.num_classes=10", "data.mean=[0.1]"], "both or neither"),
        (["data.num_classes=10", "data.mean=[0.1,0.2]", "data.std=[1.0,1.0]"], "data.mean"),
    ],
)
def test_what_does_not_fit(linear: Path, dispatch: Dispatch, words: list[str], told: str) -> None:
    Path("few.txt").write_text("a\nb\n")
    Path("empty.txt").write_text("a\n\nb\n")
    Path("bytes.txt").write_bytes(b"\xff\xfe\x00")
    done = dispatch(*IMPORT, "data.shape=[1,28,28]", *words)
    assert done.returncode == 2, done.output
    assert told in done.stderr
    assert not Path("ours.pth").exists()


def test_a_file_without_a_head_starts_a_training() -> None:
    """As torchvision publishes VGG-16's features; but not one that lacks something below, nor
    where nothing would be replaced."""
    net = VGG((3, 32, 32), 5, depth=11)
    full = net.state_dict()
    features = {n: t.clone() for n, t in full.items() if n.startswith("features.")}
    with pytest.raises(UserError, match=r"no head.*replace_head=true initialises a new one"):
        pretrained.check_fit(net, features, False, "x.pth")
    features["features.0.weight"].fill_(3)
    fresh = pretrained.load_into(net, features, True, "x.pth")
    assert fresh == [n for n in full if n.startswith("classifier.")] != []
    assert (net.state_dict()["features.0.weight"] == 3).all()
    del features["features.0.weight"]
    with pytest.raises(UserError, match="missing"):
        pretrained.check_fit(net, features, True, "x.pth")
    with pytest.raises(UserError, match=r"replace_head=true: the head of x\.pth fits"):
        pretrained.check_fit(net, full, True, "x.pth")
    assert pretrained.check_fit(net, full, False, "x.pth") == []


def test_a_folder_is_evaluated_as_it_lies(
    default_run: TrainedRun, tmp_path: Path, dispatch: Dispatch
) -> None:
    """All of its images, those of some classes, by their names: as many right as predict says."""
    with np.load(ROOT / "data" / "mnist_5k.npz") as file:
        images, labels = file["test_images"], file["test_labels"]
    chosen = [i for i in range(0, 1000, 7) if labels[i] in (1, 4, 7)]
    for i in chosen:
        target = tmp_path / "digits" / str(labels[i]) / f"{i}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[i]).save(target)
    done = dispatch("evaluate", str(default_run.best), "digits", "-o", "out")
    assert done.returncode == 0, done.output
    results = json.loads(Path("out/evaluation.json").read_text())
    assert results["num_images"] == len(chosen)
    assert [row["count"] > 0 for row in results["per_class"]] == [k in (1, 4, 7) for k in range(10)]
    assert "no images here of 7 of the checkpoint's classes: 0, 2, 3, 5, 6, 8, 9" in done.stdout
    said = dispatch("predict", str(default_run.best), "digits", "--json", "--top-k", "1")
    rows = [json.loads(line) for line in said.stdout.splitlines()]
    right = sum(Path(row["file"]).parent.name == row["top"][0]["class"] for row in rows)
    assert results["accuracy"] == pytest.approx(right / len(chosen))
    (tmp_path / "digits" / "1").rename(tmp_path / "digits" / "one")
    unknown = dispatch("evaluate", str(default_run.best), "digits", "-o", "out")
    assert unknown.returncode == 2
    assert "It does not know one." in unknown.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["data.mean=[0.5]"], "data.mean=[0.5]: the checkpoint has fixed it"),
        (["data.std=[0.5]"], "data.std=[0.5]: the checkpoint has fixed it"),
        (["data.shape=[1,2,2]"], "the checkpoint has fixed it"),
        (["nowhere"], "nowhere: there is no such folder"),
        ([".", "data=mnist_5k"], "says already what is evaluated"),
        ([".", "data.root=x"], "says already what is evaluated"),
    ],
)
def test_keys_that_could_do_nothing(
    default_run: TrainedRun, dispatch: Dispatch, words: list[str], told: str
) -> None:
    done = dispatch("evaluate", str(default_run.best), *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr


def test_a_runs_configuration_is_not_taken_and_ignored(
    default_run: TrainedRun, tmp_path: Path, dispatch: Dispatch
) -> None:
    saved = default_run.folder / ".hydra"
    done = dispatch("--config-dir", str(saved), "--config-name", "config", "--cfg", "job")
    assert (done.returncode, done.stdout) == (2, "")
    assert "config.yaml would be ignored" in done.stderr
    assert "overrides.yaml" in done.stderr
    (tmp_path / "mine" / "model").mkdir(parents=True)  # the twin: choices of one's own are found
    (tmp_path / "mine" / "model" / "small.yaml").write_text(
        "_target_: models.mlp.MLP\nshape: ${data.shape}\nnum_classes: ${data.num_classes}\n"
        "hidden: [3]\n"
    )
    own = run_trainer("--config-dir", "mine", "model=small", "--cfg", "job", cwd=tmp_path)
    assert own.returncode == 0, own.output
    assert "  - 3\n" in own.stdout


@pytest.mark.slow
def test_a_torchvision_network_gets_its_names_and_normalisation(
    tmp_path: Path, dispatch: Dispatch
) -> None:
    """Also where the file has its head first; by hand, others."""
    torch.manual_seed(0)
    state = squeezenet1_1(weights=None).state_dict()
    torch.save(dict(sorted(state.items())), tmp_path / "sd.pth")
    words = ("import-weights", "sd.pth", "--model", "torchvision", "model.name=squeezenet1_1",
             "-o", "ours.pth")  # fmt: skip
    done = dispatch(*words)
    assert done.returncode == 0, done.output
    assert "taken to be those of squeezenet1_1 IMAGENET1K_V1" in done.stdout
    recipe = SqueezeNet1_1_Weights.IMAGENET1K_V1
    entries = checkpoints.read(Path("ours.pth"))
    assert entries["classes"] == recipe.meta["categories"]
    assert entries["mean"] == list(recipe.transforms().mean)
    assert entries["std"] == list(recipe.transforms().std)
    assert [entries["resize"]] == recipe.transforms().resize_size
    done = dispatch(*words, "--force", "data.mean=[0.5,0.5,0.5]", "data.std=[0.2,0.2,0.2]")
    assert done.returncode == 0, done.output
    entries = checkpoints.read(Path("ours.pth"))
    assert (entries["mean"], entries["std"]) == ([0.5] * 3, [0.2] * 3)
    assert entries["classes"] == recipe.meta["categories"]


@pytest.mark.slow
def test_vgg16s_features_train_with_a_new_head(tmp_path: Path, dispatch: Dispatch) -> None:
    net = VGG((3, 32, 32), 10, depth=16)
    features = {n: t for n, t in net.state_dict().items() if n.startswith("features.")}
    torch.save(features, tmp_path / "f.pth")
    size = ("data.shape=[3,32,32]", "epochs=1", "limit_batches=1", "batch_size=2")
    words = ("model=vgg16", "weights=f.pth", "freeze=[features.*]", "hydra.run.dir=r", *size)
    done = dispatch(*words)
    assert done.returncode == 2, done.output
    assert "replace_head=true" in done.stderr
    assert not Path("r").exists()
    done = dispatch(*words, "replace_head=true")
    assert done.returncode == 0, done.output
    assert "mean [0.48235,0.45882,0.40784], std [0.00392,0.00392,0.00392]" in done.output
    entries = checkpoints.read(Path("r/checkpoints/best.pth"))
    assert entries["mean"] == [0.48235, 0.45882, 0.40784]
    assert torch.equal(entries["model"]["features.0.weight"], features["features.0.weight"])
    done = dispatch("import-weights", "f.pth", "--model", "vgg16", "-o", "ours.pth")
    assert done.returncode == 2, done.output
    assert "The file has no head" in done.stderr
    assert not Path("ours.pth").exists()

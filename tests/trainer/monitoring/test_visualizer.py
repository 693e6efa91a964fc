"""The images of a run: that they show what is there, and change nothing."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.compat.proto.graph_pb2 import GraphDef
from torch import Tensor, nn

from tests.helpers.commands import ROOT, TrainedRun, read_json
from tests.helpers.visualizer_runs import (
    built,
    compose_words,
    events,
    first_epoch,
    gallery_of,
)
from trainer import job
from trainer.monitoring import tensorboard_images
from trainer.monitoring.graph import graph_nodes
from trainer.monitoring.tensorboard import node_def

MNIST = ROOT / "data" / "mnist_5k.npz"


@pytest.fixture(scope="module")
def configured() -> Callable[..., dict[str, Any]]:
    return compose_words


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    return compose_words("model.hidden=[8]")


def decoded(encoded: bytes) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(encoded)))


def test_the_default_run_shows_itself(default_run: TrainedRun) -> None:
    found = events(default_run.folder)
    steps = {tag: [image.step for image in found.Images(tag)] for tag in found.Tags()["images"]}
    assert steps["images/train"] == [0]
    assert steps["confusion/test"] == steps["mistakes/test"] == [1140]
    drawn = [57 * epoch for epoch in (1, 4, 16, 20)]
    for tag in ("confusion/val", "mistakes/val", "filters/hidden.0.weight"):
        assert steps[tag] == drawn, tag
    assert found.Tags()["graph"]
    per_class = {tag for tag in found.Tags()["scalars"] if tag.startswith("accuracy_per_class/")}
    assert per_class == {f"accuracy_per_class/{digit}" for digit in range(10)}
    assert {point.step for tag in per_class for point in found.Scalars(tag)} == set(drawn)


def test_accuracies_per_class_are_those_of_their_epoch(default_run: TrainedRun) -> None:
    """Each class as often as it stands in the 400 images, their mean is the epoch's accuracy."""
    found = events(default_run.folder)
    of_step = {point.step: point.value for point in found.Scalars("accuracy/val")}
    cells = read_json(default_run.folder / "findings.json")["val"]["confusion_cells"]
    counts = [sum(count for true, _, count in cells if true == digit) for digit in range(10)]
    for number, step in enumerate(57 * epoch for epoch in (1, 4, 16, 20)):
        shares = [found.Scalars(f"accuracy_per_class/{k}")[number].value for k in range(10)]
        mean = sum(share * count for share, count in zip(shares, counts, strict=True)) / 400
        assert mean == pytest.approx(of_step[step], rel=1e-5)


def test_findings_agree_with_the_summary(default_run: TrainedRun) -> None:
    found = read_json(default_run.folder / "findings.json")
    assert found["epoch"] == default_run.summary["best_epoch"]
    for split, images in (("test", 1000), ("val", 400)):
        cells = found[split]["confusion_cells"]
        assert sum(count for _, _, count in cells) == images
        right = sum(count for true, said, count in cells if true == said)
        assert right / images == pytest.approx(default_run.summary[f"{split}_accuracy"])
        accuracy = [
            point.value for point in events(default_run.folder).Scalars(f"accuracy/{split}")
        ]
        assert right / images == pytest.approx(max(accuracy))


def test_mistakes_are_images_of_the_set(default_run: TrainedRun) -> None:
    """Their pixels and labels are those that the shipped file has at that place."""
    shipped = np.load(MNIST)
    images, labels = shipped["test_images"], shipped["test_labels"]
    mistakes = read_json(default_run.folder / "findings.json")["test"]["mistakes"]
    assert len(mistakes) == 16
    sure = [mistake["probability"] for mistake in mistakes]
    assert sure == sorted(sure, reverse=True)
    for mistake in mistakes:
        encoded = base64.b64decode(mistake["image"].partition(",")[2])
        assert (decoded(encoded) == images[mistake["index"]].squeeze()).all()
        assert mistake["label_index"] == labels[mistake["index"]] != mistake["predicted_index"]


@pytest.mark.parametrize(
    ("model", "first"),
    [
        (("model=mlp", "model.dropout=0.5"), "hidden.0.weight"),
        pytest.param(
            ("model=torchvision", "model.name=mobilenet_v3_small"), "features.0.0.weight",
            marks=pytest.mark.slow,
        ),
    ],
)  # fmt: skip
def test_the_same_weights_without_images(
    configured: Callable[..., dict[str, Any]], tmp_path: Path, model: tuple[str, ...], first: str
) -> None:
    """With augmentation, dropout and batch norm, whose states a careless look would move."""
    config = configured(
        *model, "data.shape=[3,32,32]", "augment=basic", "limit_batches=2", "epochs=1"
    )
    digests = {}
    for name, shown in (("with", {"tensorboard": True, "histograms": True}),
                        ("without", {"tensorboard": False})):  # fmt: skip
        (tmp_path / name).mkdir()
        job.run({**config, **shown}, tmp_path / name, {}, in_sweep=True)
        digests[name] = read_json(tmp_path / name / "summary.json")["weights_sha256"]
        assert (tmp_path / name / "findings.json").is_file()
    assert digests["with"] == digests["without"]
    tags = events(tmp_path / "with").Tags()
    assert {"images/train", f"filters/{first}"} <= set(tags["images"])
    assert {f"weights/{first}", f"gradients/{first}"} <= set(tags["histograms"])
    assert not (tmp_path / "without" / "tensorboard").exists()


def test_a_look_changes_nothing(config: dict[str, Any], tmp_path: Path) -> None:
    run = built(config, tmp_path)
    norm = nn.BatchNorm2d(6)
    run.model = nn.Sequential(
        nn.Conv2d(3, 6, 3), norm, nn.Dropout(0.5), nn.Flatten(), nn.Linear(216, 4)
    )
    run.model.train()
    norm.eval()  # frozen
    before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    random_state = torch.get_rng_state()
    gallery_of(run).start(run)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(t, before[name]) for name, t in run.model.state_dict().items())
    assert [module.training for module in run.model] == [True, False, True, True, True]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in run.model)
    run.close()
    assert events(tmp_path).Tags()["graph"]


def test_the_first_batch_is_shown_as_it_is_trained_on(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = built(config, tmp_path)
    shown: list[tuple[Tensor, list[str]]] = []
    monkeypatch.setattr(
        tensorboard_images.plots, "picture_grid", lambda *given: shown.append(given)
    )
    monkeypatch.setattr(tensorboard_images, "add_picture", lambda *given: None)
    gallery_of(run).start(run)
    first = run.train.order(0)[:16]  # type: ignore[attr-defined]
    (pixels, captions), split = shown[0], run.about.data.train
    assert torch.equal(pixels, split.images[first])
    assert captions == [run.about.data.classes[label] for label in split.labels[first].tolist()]
    run.close()


def test_mixed_labels_are_named_by_their_shares() -> None:
    classes = ["cat", "dog", "owl"]
    assert tensorboard_images.label_of(torch.tensor(2), classes) == "owl"
    assert (
        tensorboard_images.label_of(torch.tensor([0.25, 0.75, 0.0]), classes) == "75% dog\n25% cat"
    )
    assert tensorboard_images.label_of(torch.tensor([1.0, 0.0, 0.0]), classes) == "100% cat"


def test_filters_keep_sign_and_scale() -> None:
    filters = torch.zeros(3, 1, 2, 2)
    filters[1, 0] = torch.tensor([[1.0, -1.0], [0.5, 0.0]])
    filters[2, 0] = 1e-3 * filters[1, 0]
    grid = tensorboard_images.filter_grid(filters)
    side = grid.shape[0] // 2  # two in a row
    assert grid.shape == (2 * side, 2 * side, 3)
    assert grid[0, 0].tolist() == [128] * 3
    zoom = tensorboard_images.FILTERS_SIDE // 6
    cell = grid[: 2 * zoom : zoom, side : side + 2 * zoom : zoom, 0]
    assert cell.tolist() == [[255, 0], [191, 128]]
    below = grid[side : side + 2 * zoom : zoom, : 2 * zoom : zoom, 0]
    assert below.tolist() == cell.tolist()  # each by its own scale
    assert (grid[side:, side:] == 255).all()  # no fourth one


@pytest.mark.parametrize(
    ("weight", "shown"),
    [
        (nn.Linear(192, 5), True), (nn.Conv2d(3, 5, 7), True), (nn.Conv2d(1, 70, 3), True),
        (nn.Linear(100, 5), False),
    ],
)  # fmt: skip
def test_which_first_layers_are_images(
    config: dict[str, Any], tmp_path: Path, weight: nn.Module, shown: bool
) -> None:
    run = built(config, tmp_path)
    run.model = nn.Sequential(weight)
    tensorboard_images.show_filters(gallery_of(run).writer, run, 3)
    run.close()
    assert ("filters/0.weight" in events(tmp_path).Tags()["images"]) == shown


def test_many_classes_are_bars(
    configured: Callable[..., dict[str, Any]], config: dict[str, Any], tmp_path: Path
) -> None:
    many = configured("data.num_classes=21", "data.num_test=63", "data.num_train=210")
    for name, of in (("few", config), ("many", many)):
        (tmp_path / name).mkdir()
        run = built(of, tmp_path / name)
        first_epoch(run)
        run.close()
    few, many = events(tmp_path / "few").Tags(), events(tmp_path / "many").Tags()
    assert "accuracy_per_class" in many["images"]
    assert "accuracy_per_class" not in few["images"]
    assert {tag for tag in few["scalars"] if "per_class" in tag} == {
        f"accuracy_per_class/class {k}" for k in range(4)
    }
    assert not [tag for tag in many["scalars"] if "per_class" in tag]


def test_the_graph_leads_from_the_image_to_the_logits() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2, 3))
    graph = GraphDef(node=map(node_def, graph_nodes(net, torch.zeros(1, 1, 3, 3))))
    nodes = {node.name: node for node in graph.node}
    assert len(nodes) == len(graph.node)
    assert all(name in nodes for node in graph.node for name in node.input)
    path, name = [], "output"
    while name != "input":
        path.append(name)
        within = [i for i in nodes[name].input if nodes[i].op not in ("parameter", "t")]
        assert len(within) == 1, nodes[name]
        name = within[0]
    scopes = [name.split("/")[1] for name in path[1:]]
    assert scopes == ["Linear[3]", "Flatten[2]", "ReLU[1]", "Conv2d[0]"]
    assert "Sequential/Conv2d[0]/weight" in nodes[path[-1]].input

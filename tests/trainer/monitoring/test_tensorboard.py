"""Private names of TensorBoard: each is there and does what is relied on."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

from trainer.monitoring.graph import Node
from trainer.monitoring.hparams import hparams
from trainer.monitoring.tensorboard import Events


def test_a_resumed_runs_curve_is_one(tmp_path: Path) -> None:
    """Steps 1 to 4, and again from 3 on with other values."""
    names = []
    for first, value in ((0, 1.0), (2, 2.0)):
        writer = Events(tmp_path, first)
        names.append(writer.file_writer.event_writer.path.name)
        for step in range(first + 1, 5):
            writer.add_scalar("loss", value, step)
        writer.close()
    assert names == sorted(names), "TensorBoard reads the later file first"
    events = EventAccumulator(str(tmp_path)).Reload()
    found = [(event.step, event.value) for event in events.Scalars("loss")]
    assert found == [(1, 1.0), (2, 1.0), (3, 2.0), (4, 2.0)], "curves double after a resume"


def test_hparams_and_the_graph_are_in_the_runs_own_file(tmp_path: Path) -> None:
    before = threading.active_count()
    writer = Events(tmp_path, 0)
    writer.add_hparams_row({"lr": 0.1, "seed": 1}, {"accuracy/test": 0.9}, ("lr",))
    writer.add_nodes([Node("input", "input", [], torch.Size((1, 2)))])
    assert threading.active_count() == before, "events go through a thread, which hides errors"
    writer.close()
    assert [file.is_file() for file in tmp_path.iterdir()] == [True]
    events = EventAccumulator(str(tmp_path)).Reload()
    assert {"_hparams_/experiment", "_hparams_/session_start_info"} <= set(events.summary_metadata)
    (node,) = events.Graph().node
    shape = node.attr["_output_shapes"].list.shape[0]
    assert [dim.size for dim in shape.dim] == [1, 2]


def test_train_and_val_stand_in_one_chart(tmp_path: Path) -> None:
    """Of the page of custom scalars: each chart's tags are regular expressions."""
    for first in (0, 2):  # the second is a resume
        writer = Events(tmp_path, first)
        for split in ("train", "val", "test"):
            writer.add_scalar(f"loss/{split}", 1.0, first + 1)
        writer.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    (event,) = {e.tensor_proto.string_val[0] for e in events.Tensors("custom_scalars__config__")}
    charts = [chart for category in Layout.FromString(event).category for chart in category.chart]
    assert [chart.title for chart in charts] == ["accuracy", "loss"]
    scalars = events.Tags()["scalars"]
    shown = [tag for tag in scalars if any(re.match(p, tag) for p in charts[1].multiline.tag)]
    assert sorted(shown) == ["loss/train", "loss/val"]


def test_every_override_is_among_the_hparams(tmp_path: Path) -> None:
    """Under the same keys in each job of a sweep, whatever its choices have."""
    of_all = {"epochs": 3, "seed": 1, "batch_size": 8, "precision": "fp32", "freeze": ["a.*"]}
    words = ["optimizer={}", "optimizer.lr=0.1", "+model.depth=2", "freeze=[a.*]", "weights=null"]
    found = []
    for name, options in (("sgd", {"lr": 0.1, "momentum": 0.9}), ("adam", {"lr": 0.1})):
        config = {**of_all, "optimizer": options, "model": {"depth": 2}, "weights": None}
        choices = {"model": "mlp", "data": "digits", "optimizer": name}
        (tmp_path / name / ".hydra").mkdir(parents=True)
        noted = json.dumps([word.format(name) for word in words])
        (tmp_path / name / ".hydra" / "overrides.yaml").write_text(noted)
        found.append(hparams(config, choices, tmp_path / name))
    assert list(found[0]) == list(found[1])
    assert list(found[0])[:5] == ["optimizer", "optimizer.lr", "model.depth", "freeze", "weights"]
    assert [one["optimizer"] for one in found] == ["sgd", "adam"]
    assert {key: found[0][key] for key in ("optimizer.lr", "model.depth", "freeze", "weights")} == {
        "optimizer.lr": 0.1, "model.depth": 2, "freeze": "[a.*]", "weights": "null",
    }  # fmt: skip
    assert list(hparams({**of_all, "optimizer": {}}, {}, tmp_path))[:5] == [
        "model", "data", "optimizer", "lr", "seed"
    ]  # fmt: skip
    assert found[0].keys() > {"epochs", "batch_size", "seed", "model", "scheduler"}

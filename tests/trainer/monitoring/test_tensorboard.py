"""Private names of TensorBoard: each is there and does what is relied on."""

from __future__ import annotations

import threading
from pathlib import Path

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trainer.monitoring.graph import Node
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

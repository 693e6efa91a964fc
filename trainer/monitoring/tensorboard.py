"""TensorBoard's event files, written where they are asked for and not in a thread; all that knows
TensorBoard's inside.

TensorBoard's own writer hands each event to a thread, whose errors nobody sees but as a traceback
of the thread's; it opens the file anew at each write, and its names must be UTF-8. Here a write is
one to a buffer of a file that stays open, and a fault is raised to who caused it.

Checked on tensorboard 2.21.0 and torch 2.14.1;
`tests/trainer/monitoring/test_tensorboard.py` uses each.

what they have                            if it goes
_get_file_writer, file_writer,            silent: events go through the thread again,
all_writers, purge_step                   or twice; after a resume the curves double
FileWriter.event_writer, RecordWriter     no training with tensorboard=true starts
order and times in names of event files   silent: the curves of a resumed run are mixed up
summary.hparams and its protobufs         a training ends in a traceback after its test
add_custom_scalars                        the charts of train and val together are missing
protobufs of a graph                      a line in the log, and no graph
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import socket
import time
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from tensorboard.compat.proto import event_pb2  # type: ignore[import-untyped]
from tensorboard.compat.proto.attr_value_pb2 import AttrValue  # type: ignore[import-untyped]
from tensorboard.compat.proto.graph_pb2 import GraphDef  # type: ignore[import-untyped]
from tensorboard.compat.proto.node_def_pb2 import NodeDef  # type: ignore[import-untyped]
from tensorboard.compat.proto.tensor_shape_pb2 import (  # type: ignore[import-untyped]
    TensorShapeProto,
)
from tensorboard.compat.proto.versions_pb2 import VersionDef  # type: ignore[import-untyped]
from tensorboard.plugins.hparams.plugin_data_pb2 import (  # type: ignore[import-untyped]
    HParamsPluginData,
)
from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]
from torch.utils.tensorboard import SummaryWriter, summary
from torch.utils.tensorboard.writer import FileWriter

from trainer.errors import named
from trainer.monitoring.graph import Node

log = logging.getLogger("trainer")

FLUSH_S = 120.0  # so old may be what a running TensorBoard shows, at most, as with its own writer
VERSION = "brain.Event:2"
# Charts on the page "Custom Scalars", of every run in them.
LAYOUT = {
    "training and validation": {
        quantity: ["Multiline", [f"{quantity}/{split}$" for split in ("train", "val")]]
        for quantity in ("accuracy", "loss")
    }
}
_numbers = itertools.count()


class Events(SummaryWriter):
    """A SummaryWriter over an `EventFile`. Points after `first_step` of earlier files are dropped
    by TensorBoard: they come again."""

    file_writer: Any
    all_writers: Any

    def __init__(self, folder: Path, first_step: int) -> None:
        self.folder = folder
        again = any(folder.glob("events.out.tfevents.*"))
        super().__init__(os.fspath(folder), purge_step=first_step + 1 if again else None)
        self.add_custom_scalars(LAYOUT)

    def _get_file_writer(self) -> Any:
        """Of which the base class makes its own, here and nowhere else."""
        if self.file_writer is None:
            file_writer: Any = _FileWriter(self.folder)
            self.file_writer, self.all_writers = file_writer, {self.log_dir: file_writer}
            if self.purge_step is not None:
                started = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
                for more in ({"file_version": VERSION}, {"session_log": started}):
                    file_writer.add_event(event_pb2.Event(step=self.purge_step, **more))
        return self.file_writer

    def add_hparams_row(
        self, hparams: dict[str, Any], metrics: dict[str, float], shown: Collection[str]
    ) -> None:
        """One row of the HParams page, in this file: add_hparams would open a second run beside it.
        The metrics are names of scalars that the run has; of the hparams TensorBoard shows at first
        those that are `shown`."""
        experiment, *session = summary.hparams(hparams, metrics)
        plugin = experiment.value[0].metadata.plugin_data
        content = HParamsPluginData.FromString(plugin.content)
        for info in content.experiment.hparam_infos:
            info.differs = info.name in shown
        plugin.content = content.SerializeToString()
        for one in (experiment, *session):
            self._get_file_writer().add_summary(one)

    def add_nodes(self, nodes: Iterable[Node]) -> None:
        """The graph of a network."""
        graph = GraphDef(node=map(node_def, nodes), versions=VersionDef(producer=22))
        self._get_file_writer().add_event(event_pb2.Event(graph_def=graph.SerializeToString()))


def node_def(node: Node) -> Any:
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in node.shape])
    shapes = AttrValue(list=AttrValue.ListValue(shape=[shape]))
    return NodeDef(name=node.name, op=node.op, input=node.inputs, attr={"_output_shapes": shapes})


class _FileWriter(FileWriter):
    def __init__(self, folder: Path) -> None:
        self.event_writer = EventFile(folder)


class EventFile:
    """A new event file in `folder`. Its name sorts after those that are there: TensorBoard reads
    them by the times in their names, which a clock that was set back would turn round."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        names = [file.name.split(".") for file in folder.glob("events.out.tfevents.*")]
        latest = max((int(w[3]) for w in names if re.fullmatch("[0-9]{1,10}", w[3])), default=0)
        began = max(int(time.time()), latest + 1)
        host, process = socket.gethostname(), f"{os.getpid()}.{next(_numbers)}"
        self.path = folder / f"events.out.tfevents.{began:010d}.{host}.{process}"
        self.file = open(self.path, "xb")  # noqa: SIM115
        self.records = RecordWriter(self.file)
        self.is_lost, self.flushed_at = False, time.monotonic()
        self.add_event(event_pb2.Event(wall_time=time.time(), file_version=VERSION))
        self.flush()

    def add_event(self, event: Any) -> None:
        with named(self.path):
            self.records.write(event.SerializeToString())
        if time.monotonic() - self.flushed_at > FLUSH_S:
            self.flush()

    def flush(self) -> None:
        self.flushed_at = time.monotonic()
        with named(self.path):
            self.file.flush()
        if not self.is_lost and not self.path.exists():
            self.is_lost = True
            log.warning("%s: was moved or removed while the run goes on; its curves go where the "
                        "file has gone.", self.path)  # fmt: skip

    def close(self) -> None:
        with named(self.path):
            self.file.close()

"""TensorBoard's event files, written where they are asked for and not in a thread.

TensorBoard's own writer hands each event to a thread, whose errors nobody sees but as a traceback
of the thread's; it opens the file anew at each write, and its names must be UTF-8. Here a write is
one to a buffer of a file that stays open, and a fault is raised to who caused it.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import socket
import time
from pathlib import Path
from typing import Any

from tensorboard.compat.proto import event_pb2  # type: ignore[import-untyped]
from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.writer import FileWriter

from trainer.errors import named

log = logging.getLogger("trainer")

FLUSH_S = 120.0  # so old may be what a running TensorBoard shows, at most, as with its own writer
VERSION = "brain.Event:2"
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

    def get_logdir(self) -> str:
        return os.fspath(self.path.parent)

"""World: the processes that train one model together, and what they tell each other."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from data.loading.part import Part
from trainer.errors import TrainingError, UserError, complain
from trainer.evaluation.metrics import Meter
from trainer.system.distributed import Place
from trainer.system.signals import StopSignals

Result = TypeVar("Result")

MAX_BUCKET = 2**24  # numbers that are sent at once: 64 MB
# For a process that hangs; of one that has died the others learn at once.
PATIENCE = datetime.timedelta(minutes=30)
# The first process may download data while the others wait.
LONG_PATIENCE = datetime.timedelta(days=7)


class ProcessEndedError(TrainingError):
    """A process of the training has ended before the others."""


class World:
    """The only process: it has nobody to tell anything.

    Attributes:
        rank: index of this process, from 0.
        size: number of processes.
        part: what this process takes of each batch; None: all.
    """

    rank, size = 0, 1
    part: Part | None = None

    @property
    def is_main(self) -> bool:
        """True if this process writes the log, checkpoints and pages."""
        return self.rank == 0

    @property
    def share(self) -> float:
        """Share of this process in the latest training batch; those of all add up to 1."""
        return 1.0 if self.part is None else self.part.share

    def reduce(self, tensors: Sequence[Tensor]) -> None:
        """Replace the tensors by their sums over all processes."""

    def merge(self, meter: Meter) -> None:
        """Let a meter have what those of all processes have collected."""

    def collect(self, meter: Meter) -> None:
        """The same, and empty those of the others, so that all together hold it once."""

    def from_main(self, call: Callable[[], Result]) -> Result:
        """Result of the call in the first process, for all. Its errors are raised in all."""
        return call()

    def together(self, call: Callable[[], Result]) -> Result:
        """Result of the call in each process. An error in one is raised in all."""
        return call()

    def exchange(self, signals: StopSignals, time_is_up: bool = False) -> bool:
        """Tell the other processes of a signal and of the clock, and take note of what all of them
        told at the call before this one: so all stop and save after the same batch. Returns True if
        the first process's clock asks for a state."""
        return time_is_up


class Processes(World):
    """Several processes, connected.

    Args:
        control: group for messages in the CPU's memory.
    """

    def __init__(self, place: Place, control: Any) -> None:
        self.rank, self.size, self.control = place.rank, place.size, control
        self.part: Part = Part(place.rank, place.size)
        self.under_way: tuple[Any, Tensor] | None = None

    def reduce(self, tensors: Sequence[Tensor]) -> None:
        sent = []
        for bucket in buckets(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
            sent.append((bucket, flat, dist.all_reduce(flat, async_op=True)))
        for bucket, flat, work in sent:
            work.wait()
            sums = flat.split([tensor.numel() for tensor in bucket])
            for tensor, total in zip(bucket, sums, strict=True):
                tensor.copy_(total.view(tensor.shape))

    def gather(self, value: Any) -> list[Any]:
        values: list[Any] = [None] * self.size
        with connection():
            dist.all_gather_object(values, value, group=self.control)
        return values

    def send_to_main(self, value: Any) -> list[Any] | None:
        values: list[Any] | None = [None] * self.size if self.is_main else None
        dist.gather_object(value, values, dst=0, group=self.control)
        return values

    def merge(self, meter: Meter) -> None:
        meter.merge(self)

    def collect(self, meter: Meter) -> None:
        meter.merge(self)
        if not self.is_main:
            meter.reset()

    def from_main(self, call: Callable[[], Result]) -> Result:
        outcome = [outcome_of(call) if self.is_main else None]
        with connection():
            dist.broadcast_object_list(outcome, src=0, group=self.control)
        result, error = outcome[0]  # type: ignore[misc]
        if error is not None:
            raise error
        return result

    def together(self, call: Callable[[], Result]) -> Result:
        result, error = outcome_of(call)
        first = next((one for one in self.gather(error) if one is not None), None)
        if first is not None:
            raise first
        return result

    def exchange(self, signals: StopSignals, time_is_up: bool = False) -> bool:
        number, is_due = self.told()
        signals.received = number or None
        by_clock = self.is_main and time_is_up and not is_due
        values = torch.tensor([signals.noted_number or 0, int(by_clock)])
        work = dist.all_reduce(values, dist.ReduceOp.MAX, group=self.control, async_op=True)
        self.under_way = (work, values)  # awaited at the next call, when it has long arrived
        return bool(is_due)

    def told(self) -> tuple[int, int]:
        """Largest signal number and clock of the exchange under way."""
        if self.under_way is None:
            return 0, 0
        work, values = self.under_way
        self.under_way = None
        work.wait()
        number, is_due = values.tolist()
        return number, is_due


class PartMeter(Meter):
    """Meter of the training batches of any but the first process: it leaves out those that each
    process has the whole of."""

    part: Part

    def add(self, loss: Tensor, logits: Tensor, targets: Tensor) -> None:
        if not self.part.is_whole:
            super().add(loss, logits, targets)


def meter_for(world: World) -> Meter:
    """Meter of the training batches."""
    if world.part is None or world.is_main:
        return Meter()
    meter = PartMeter()
    meter.part = world.part
    return meter


def outcome_of(call: Callable[[], Result]) -> tuple[Any, Exception | None]:
    """Result of a call, and the error with a message for the user that it raised, if any."""
    try:
        return call(), None
    except (UserError, TrainingError, OSError) as error:
        return None, error


def buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """The tensors in groups of about MAX_BUCKET numbers."""
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        bucket.append(tensor)
        size += tensor.numel()
        if size >= MAX_BUCKET:
            yield bucket
            bucket, size = [], 0
    if bucket:
        yield bucket


@contextlib.contextmanager
def connection() -> Iterator[None]:
    """Context of messages to other processes. Raises TrainingError if one of them has ended."""
    try:
        yield
    except RuntimeError as error:
        if is_of_connection(error):
            raise ProcessEndedError("Another process of this training has ended.") from error
        raise


def is_of_connection(error: RuntimeError) -> bool:
    """True for an error of the messages between processes; gloo's has no class of its own."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)


@contextlib.contextmanager
def joined(place: Place) -> Iterator[World]:
    """The world of this process, connected while the context lasts: tensors on a CPU are sent by
    gloo, those on GPUs by NCCL."""
    try:
        world = connected(place)
    except (RuntimeError, ValueError) as error:
        complain(
            f"Process {place.rank} of {place.size} cannot reach the others: {error}\n"
            "torchrun, or processes=N on one machine, sets what they need to find each other."
        )
        raise SystemExit(1) from None
    yield world
    world.told()  # what is under way
    dist.destroy_process_group()


def connected(place: Place) -> Processes:
    """World of this process, once all are there."""
    backend = "gloo"
    if torch.cuda.device_count() >= place.local_size:
        torch.cuda.set_device(place.local_rank)
        backend = "cpu:gloo,cuda:nccl"
    store, rank, size = next(dist.rendezvous("env://", timeout=PATIENCE))
    # torchrun's store may hold the addresses of the processes before a restart.
    store = dist.PrefixStore(f"restart {place.restarts}", store)
    dist.init_process_group(backend, timeout=PATIENCE, store=store, rank=rank, world_size=size)
    return Processes(place, dist.new_group(backend="gloo", timeout=LONG_PATIENCE))

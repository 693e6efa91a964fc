"""Profiler of a training (profile=true): seconds and memory by phase, a trace of some steps.

`profiled` wraps the parts of a run, so that the loop knows nothing of it. The results are the same
bits; but at each boundary of a phase a GPU is waited for, so that its work is counted where it
belongs, and the training is slower for it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import logging
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.profiler import record_function

from trainer.checkpoints import CheckpointFolder
from trainer.evaluation.metrics import Metrics
from trainer.system.device import synchronize
from trainer.system.torch_internals import memory_events, memory_profiler, range_events
from trainer.training.batches import BatchSource, SeenBatches
from trainer.training.run import Run
from trainer.training.step import Stepper
from trainer.training.watcher import Watcher

log = logging.getLogger("trainer")

NUM_WARM_UP, NUM_TRACED = 10, 20  # steps before the trace, and in it
MOST_EVALUATED = 200  # batches of a validation that is traced as well
# step: the four before it, where they are one compiled graph.
PHASES = ("data", "forward", "backward", "check", "optimizer", "step", "compile", "eval",
          "checkpoint", "other")  # fmt: skip


class Clock:
    """Seconds by phase, of which one is running at any time: inside another it interrupts it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)
        self.counts: dict[str, int] = defaultdict(int)
        self.start()
        self.is_tracing = False

    def start(self) -> None:
        """Forget what was before."""
        self.seconds.clear()
        self.counts.clear()
        self.running, self.since = "other", time.monotonic()

    def switch(self, phase: str) -> str:
        """Returns the phase that ran until now."""
        synchronize(self.device)
        now = time.monotonic()
        self.seconds[self.running] += now - self.since
        before, self.running, self.since = self.running, phase, now
        return before

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self.counts[name] += 1
        before = self.switch(name)
        try:
            with record_function(name) if self.is_tracing else contextlib.nullcontext():
                yield
        finally:
            self.switch(before)


class TimedBatches(SeenBatches):
    """The same batches.

    Args:
        phase: "data": the time until each batch is there; "eval": from the first batch to the end
            of the last one.
    """

    def __init__(self, batches: BatchSource, clock: Clock, phase: str) -> None:
        super().__init__(batches)
        self.clock, self.phase = clock, phase

    def seen(self, batches: Iterator[Any]) -> Iterator[Any]:
        if self.phase == "eval":
            with self.clock.phase(self.phase):
                yield from batches
            return
        while True:
            with self.clock.phase(self.phase):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch


class TimedStepper:
    """The same updates."""

    def __init__(self, stepper: Stepper, clock: Clock) -> None:
        self.stepper, self.clock = stepper, clock
        self.optimizer, self.zero_grad = stepper.optimizer, stepper.zero_grad
        self.num_skipped_steps = stepper.num_skipped_steps
        self.state_dict, self.load_state_dict = stepper.state_dict, stepper.load_state_dict

    def backward(self, loss: Tensor) -> None:
        with self.clock.phase("backward"):
            self.stepper.backward(loss)

    def check_and_clip(self) -> None:
        with self.clock.phase("check"):
            self.stepper.check_and_clip()

    def step(self) -> None:
        with self.clock.phase("optimizer"):
            self.stepper.step()


class TimedCheckpoints(CheckpointFolder):
    """The same folder."""

    def __init__(self, checkpoints: CheckpointFolder, clock: Clock) -> None:
        self.folder, self.keep, self.clock = checkpoints.folder, checkpoints.keep, clock

    def save_state(self, step: int, entries: dict[str, Any]) -> Path:
        with self.clock.phase("checkpoint"):
            return super().save_state(step, entries)

    def save_best(self, entries: dict[str, Any]) -> None:
        with self.clock.phase("checkpoint"):
            super().save_best(entries)


class Tracer:
    """Records what happens between `start` and `finish` with torch's profiler."""

    def __init__(self, clock: Clock, file: Path) -> None:
        self.clock, self.file = clock, file
        self.is_running = False
        self.profiler = memory_profiler(clock.device)

    def start(self) -> None:
        with self.clock.phase("tracer"):
            self.profiler.__enter__()
        self.clock.is_tracing = self.is_running = True

    def finish(self) -> None:
        if self.is_running:
            self.clock.is_tracing = self.is_running = False
            with self.clock.phase("tracer"):
                self.profiler.__exit__(None, None, None)
                self.file.parent.mkdir(exist_ok=True)
                self.profiler.export_chrome_trace(str(self.file))


class Profiler(Watcher):
    """Traces some steps, once those before have warmed up, and an epoch's end, its validation and
    saving, unless those steps have been over one. At the end a table goes to the log, a point for
    each phase to TensorBoard, and Chrome traces lie in `folder` (see them with Perfetto or
    chrome://tracing)."""

    def __init__(self, clock: Clock, writer: Any, folder: Path) -> None:
        self.clock, self.writer = clock, writer
        self.steps = Tracer(clock, folder / "trace.json")
        self.end = Tracer(clock, folder / "trace_epoch_end.json")
        self.num_steps = 0
        self.run: Run | None = None  # until it has been reported on

    def start(self, run: Run) -> None:
        self.run = run
        num_coming = run.plan.epochs * len(run.train) - run.progress.step
        self.num_warm_up = max(1, min(NUM_WARM_UP, num_coming // 2))
        self.wants_end = len(run.val) <= MOST_EVALUATED
        self.clock.start()

    def step(self, run: Run) -> None:
        self.end.finish()
        self.num_steps += 1
        if self.num_steps == self.num_warm_up:
            self.steps.start()
        elif self.num_steps == self.num_warm_up + NUM_TRACED:
            self.steps.finish()
        if run.progress.batch == len(run.train) and run.validates and self.wants_end:
            self.wants_end = False
            if not self.steps.is_running:
                self.end.start()

    def best(self, run: Run) -> None:
        self.end.finish()

    def finish(self, run: Run, test: Metrics | None) -> None:
        self.close()

    def close(self) -> None:
        if self.run is None:
            return
        run, self.run = self.run, None
        for tracer in (self.steps, self.end):
            tracer.finish()
        memory = {**memory_by_phase(self.end.file), **memory_by_phase(self.steps.file)}
        self.clock.switch("other")
        report(self.clock, memory, self.writer, run.progress.step)


def profiled(run: Run, writer: Any, folder: Path) -> Run:
    """The same run, its parts wrapped in ones that time them.

    Args:
        writer: TensorBoard's.
        folder: where traces are to lie.
    """
    clock = Clock(run.about.device)
    update, phase = run.update, "step"
    if isinstance(update, functools.partial):  # a compiled step has no parts
        parts = (TimedStepper(x, clock) if x is run.stepper else x for x in update.args)
        update, phase = functools.partial(update.func, *parts, **update.keywords), "forward"

    def timed_update(images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        with clock.phase(phase):
            return update(images, targets)

    run.compile_time.around = lambda: clock.phase("compile")
    return dataclasses.replace(
        run,
        update=timed_update,
        train=TimedBatches(run.train, clock, "data"),
        val=TimedBatches(run.val, clock, "eval"),
        test=TimedBatches(run.test, clock, "eval"),
        checkpoints=TimedCheckpoints(run.checkpoints, clock),
        watchers=(*run.watchers, Profiler(clock, writer, folder)),
    )


def memory_by_phase(trace: Path) -> dict[str, int]:
    """The most bytes in use in each phase of the traced steps, above the least in any of them: what
    a step needs beside weights and data. On a GPU its memory, else that of the CPU."""
    if not trace.is_file():
        return {}
    events = json.loads(trace.read_bytes())["traceEvents"]
    amounts = memory_events(events)
    kind = max((device for _, device, _ in amounts), default=0)
    marks: list[tuple[float, str | None, int]] = [
        (when, None, amount) for when, device, amount in amounts if device == kind
    ]
    for begin, end, phase in range_events(events):
        if phase in PHASES:
            marks += [(begin, phase, 0), (end, "", 0)]
    inside, peaks, in_use = ["other"], dict[str, int](), None
    for _, name, amount in sorted(marks, key=lambda mark: mark[0]):
        if name == "":
            inside.pop()
            continue
        if name is None:
            in_use = amount
        else:
            inside.append(name)
        if in_use is not None:
            peaks[inside[-1]] = max(in_use, peaks.get(inside[-1], in_use))
    least = min((amount for _, name, amount in marks if name is None), default=0)
    return {name: peak - least for name, peak in peaks.items()}


def report(clock: Clock, memory: dict[str, int], writer: Any, step: int) -> None:
    """A row for each phase that there was; memory where the trace has the phase."""
    whole = sum(clock.seconds[phase] for phase in PHASES)
    log.info("phase       seconds  share  times   ms each  memory above rest")
    for phase in PHASES:
        seconds, count = clock.seconds[phase], clock.counts[phase]
        if not seconds:
            continue
        ms = f"{1000 * seconds / count:.3f}" if count else ""
        megabytes = f"{memory[phase] / 1e6:.1f} MB" if phase in memory else "not traced"
        log.info("%-10s %8.2f %5.1f%% %6s %9s  %s", phase, seconds, 100 * seconds / whole,
                 count or "", ms, megabytes)  # fmt: skip
        if count:
            writer.add_scalar(f"profile/{phase}_ms", 1000 * seconds / count, step)

"""Where a training's time and memory go (profile=true): seconds by phase, a trace of some steps.

`watch` wraps the parts of a run from outside, so that the loop knows nothing of it. The results are
the same bits; but at each boundary of a phase a GPU is waited for, so that its work is counted
where it belongs, and the training is slower for it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.autograd.profiler import profile, record_function

from trainer.batches import BatchSource
from trainer.compiling.compiled import CompiledStep
from trainer.progress import CompileTime
from trainer.runtime import synchronize
from trainer.state import Run

log = logging.getLogger("trainer")

NUM_WARM_UP, NUM_TRACED = 10, 20  # steps before the trace, and in it
MOST_EVALUATED = 200  # batches of a validation that is traced as well
# step: the three before it, where they are one compiled graph.
PHASES = ("data", "forward", "backward", "optimizer", "step", "compile", "eval", "checkpoint",
          "other")  # fmt: skip


class Clock:
    """Seconds by phase, of which one is running at any time: inside another it interrupts it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)
        self.counts: dict[str, int] = defaultdict(int)
        self.running, self.since = "other", time.monotonic()
        self.is_tracing = False

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

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            with self.phase(name):
                return function(*args, **options)

        return call

    def timed_batches(self, source: BatchSource) -> Callable[..., Iterator[Any]]:
        """`source.epoch`, with the time until each batch is there as the phase data."""
        epoch_of = source.epoch

        def epoch(*args: Any, **options: Any) -> Iterator[Any]:
            with contextlib.closing(epoch_of(*args, **options)) as batches:
                while True:
                    with self.phase("data"):
                        batch = next(batches, None)
                    if batch is None:
                        return
                    yield batch

        return epoch

    def timed_evaluation(self, source: BatchSource) -> Callable[..., Iterator[Any]]:
        """`source.epoch`, with the time from the first batch to the last one's end as eval."""
        epoch_of = source.epoch

        def epoch(*args: Any, **options: Any) -> Iterator[Any]:
            with self.phase("eval"):
                yield from epoch_of(*args, **options)

        return epoch


class Tracer:
    """Records what happens between `start` and `finish` with torch's profiler."""

    def __init__(self, clock: Clock, file: Path) -> None:
        self.clock, self.file = clock, file
        self.is_running = False
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it tells stderr that it starts and stops
        # What torch.profiler.profile is built on; that one imports the compiler, for seconds.
        gpu = "cuda" if clock.device.type == "cuda" else None
        self.profiler = profile(use_device=gpu, profile_memory=True)

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


class Plan:
    """What is traced: some steps, once those before have warmed up; and an epoch's end, its
    validation and saving, unless those steps have been over one."""

    def __init__(self, clock: Clock, run: Run, folder: Path) -> None:
        self.steps = Tracer(clock, folder / "trace.json")
        self.end = Tracer(clock, folder / "trace_epoch_end.json")
        num_coming = run.epochs * len(run.train) - run.progress.step
        self.num_warm_up = max(1, min(NUM_WARM_UP, num_coming // 2))
        self.num_steps = 0
        self.wants_end = len(run.val) <= MOST_EVALUATED

    def step_done(self) -> None:
        self.num_steps += 1
        if self.num_steps == self.num_warm_up:
            self.steps.start()
        elif self.num_steps == self.num_warm_up + NUM_TRACED:
            self.steps.finish()

    def around(self, run: Run) -> Iterator[tuple[Any, str, Any]]:
        """What replaces the methods of the run that are called at an epoch's end."""
        trained, epoch_done = run.trained, run.epoch_done

        def begin() -> Any:
            result = trained()
            if self.wants_end and run.validates and not self.steps.is_running:
                self.end.start()
            self.wants_end &= not run.validates
            return result

        def end(*metrics: Any) -> None:
            epoch_done(*metrics)
            self.end.finish()

        yield run, "trained", begin
        yield run, "epoch_done", end

    def finish(self) -> dict[str, int]:
        """Memory by phase, of all that was traced."""
        for tracer in (self.steps, self.end):
            tracer.finish()
        return {**memory_by_phase(self.end.file), **memory_by_phase(self.steps.file)}


@contextlib.contextmanager
def watch(run: Run, folder: Path) -> Iterator[None]:
    """While inside, the run is measured; at its end a table goes to the log, a point for each phase
    to TensorBoard, and Chrome traces lie in folder/profile (see them with Perfetto or
    chrome://tracing)."""
    clock = Clock(run.device)
    plan = Plan(clock, run, folder / "profile")
    inner = run.update

    def update(*batch: Any) -> Any:
        with clock.phase("step" if isinstance(inner, CompiledStep) else "forward"):
            result = inner(*batch)
        plan.step_done()
        return result

    @contextlib.contextmanager
    def compiling() -> Iterator[None]:
        with clock.phase("compile"), CompileTime.measured(run.compile_time):
            yield

    with contextlib.ExitStack() as stack:
        for owner, name, value in (
            (run, "update", update),
            *_parts_of(inner, run, clock),
            *plan.around(run),
            (run.compile_time, "measured", compiling),
            (run.train, "epoch", clock.timed_batches(run.train)),
            (run.val, "epoch", clock.timed_evaluation(run.val)),
            (run.test, "epoch", clock.timed_evaluation(run.test)),
            *((run.checkpoints, name, clock.timed("checkpoint", getattr(run.checkpoints, name)))
              for name in ("save_state", "save_best")),
        ):  # fmt: skip
            stack.enter_context(_replaced(owner, name, value))
        try:
            yield
        finally:
            memory = plan.finish()
            clock.switch("other")
            report(clock, memory, run)


def _parts_of(update: Any, run: Run, clock: Clock) -> Iterator[tuple[Any, str, Any]]:
    """What is timed inside an update: a compiled one has no parts."""
    if not isinstance(update, CompiledStep):
        yield run.guard, "backward", clock.timed("backward", run.guard.backward)
        yield run.guard, "step", clock.timed("optimizer", run.guard.step)


@contextlib.contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """An attribute of this object alone, for a while."""
    before = vars(owner).get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if before is None:
            delattr(owner, name)
        else:
            setattr(owner, name, before)


def memory_by_phase(trace: Path) -> dict[str, int]:
    """The most bytes in use in each phase of the traced steps, above the least in any of them: what
    a step needs beside weights and data. On a GPU its memory, else that of the CPU."""
    if not trace.is_file():
        return {}
    events = json.loads(trace.read_bytes())["traceEvents"]
    amounts = [event for event in events if event.get("name") == "[memory]"]
    kind = max((event["args"]["Device Type"] for event in amounts), default=0)
    marks: list[tuple[float, str | None, int]] = [
        (event["ts"], None, event["args"]["Total Allocated"])
        for event in amounts
        if event["args"]["Device Type"] == kind
    ]
    for event in events:
        if event.get("cat") == "user_annotation" and event["name"] in PHASES:
            marks += [(event["ts"], event["name"], 0), (event["ts"] + event["dur"], "", 0)]
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


def report(clock: Clock, memory: dict[str, int], run: Run) -> None:
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
            run.log.writer.add_scalar(
                f"profile/{phase}_ms", 1000 * seconds / count, run.progress.step
            )

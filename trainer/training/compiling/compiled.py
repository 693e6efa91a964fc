"""compile=step: forward, backward and update as one compiled graph; compile=model: the model only.

Which batches run compiled depends on the training's state and on their size only, not on what this
process did before: a resumed run computes the same bits.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainer.errors import TrainingError, UserError
from trainer.runs.progress import CompileTime
from trainer.system.torch_internals import (
    compile_graph,
    compiled_call,
    compiler_error,
    eager_call,
    graph_of,
    replace_call,
    with_backward,
)  # fmt: skip
from trainer.training.compiling.agreement import Trial, disagreement
from trainer.training.compiling.step_graph import StepGraph, has_state
from trainer.training.loop import update
from trainer.training.step import CheckedStep, is_wrapped

log = logging.getLogger("trainer")


def check(mode: str, device: torch.device, precision: str) -> None:
    """Raises UserError if `mode` (none, model or step) is impossible on this machine or with this
    precision."""
    if mode == "none":
        return
    if device.type == "mps":
        raise UserError(
            f"compile={mode}: not supported on device mps. Use compile=none, or device=cpu."
        )
    if mode == "step" and precision == "fp16":
        raise UserError(
            "compile=step: not supported with precision=fp16, whose loss scaling skips steps. "
            "Use precision=bf16 or fp32, or compile=model."
        )
    # torch reads the same variable; Triton, on a GPU, needs a compiler as well.
    compiler = os.environ.get("CXX", {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++"))
    if shutil.which(compiler) is None:
        raise UserError(
            f"compile={mode}: needs a C++ compiler, and {compiler} was not found. Install g++ or "
            "clang, or set the environment variable CXX to one; compile=none needs none."
        )


def check_optimizer(mode: str, optimizer: Optimizer) -> None:
    """Raises UserError if a compiled step would skip hooks or decorators of the optimizer."""
    if mode == "step" and is_wrapped(optimizer):
        raise UserError(
            f"compile=step: not supported with {type(optimizer).__name__}, whose step has hooks or "
            "a decorator, which a compiled step would skip. Use compile=none or compile=model."
        )


def warm_up() -> None:
    """Have the compiler imported, and what it asks of the machine asked, for jobs that are forked
    from this process; each would do it again, for seconds. No thread is left running."""
    # The compiler's processes, which a fork would not have; each job's compile alone is as fast.
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    images = torch.ones(8, 8)
    with contextlib.suppress(Exception):  # a job whose compilation fails tells why
        compile_graph(graph_of(lambda x: (x @ x).relu().sum(), [images]), [images], {})(images)


@contextlib.contextmanager
def compiling(what: str, error_class: type[Exception], timer: CompileTime) -> Iterator[None]:
    """Context that logs the compilation time. Raises TrainingError, with the cause chained, for an
    error of `error_class`."""
    # It warns on stderr if CUDA is installed but no GPU is there.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    start = time.monotonic()
    try:
        with timer.measured():
            yield
    except TrainingError:
        raise
    except error_class as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), "")
        raise TrainingError(
            f"{what}: torch could not compile this training: {type(error).__name__}: {reason}\n"
            "Use compile=none."
        ) from error
    log.info("%s: %.1f s", what, time.monotonic() - start)


def compile_model(
    model: nn.Module, train_size: int, eval_size: int, timer: CompileTime | None = None
) -> None:
    """Compile a model with torch.compile, in place; names in the state_dict do not change.

    Args:
        train_size, eval_size: batch sizes that run compiled, in training and evaluation mode.
            Batches of other sizes run in eager: torch would recompile for each, depending on the
            earlier ones.
        timer: counts the seconds of compilation.
    """
    torch.compiler.reset()  # its limit of recompilations is per process, not per model
    model.compile(dynamic=False, options={"fallback_random": True})  # dropout as in eager
    compiled, eager, failed = compiled_call(model), eager_call(model), compiler_error()
    fresh = {True: "compile=model (training)", False: "compile=model (evaluation)"}

    def call(images: Tensor) -> Any:
        if len(images) != (train_size if model.training else eval_size):
            return eager(images)
        if model.training in fresh:
            with (
                with_backward(),
                compiling(fresh.pop(model.training), failed, timer or CompileTime()),
            ):
                return compiled(images)
        return compiled(images)

    replace_call(model, call)


def dtype_under(autocast: AbstractContextManager[Any], weight: Tensor) -> torch.dtype:
    """In which a step computes its products."""
    kind = weight.device.type
    with autocast:
        lowered = torch.is_autocast_enabled(kind)
        return torch.get_autocast_dtype(kind) if lowered else weight.dtype


class CompiledStep:
    """Compiled replacement of `loop.update` with its first four arguments bound.

    Batches of `batch_size` run compiled, with one graph for each layout and form of targets. Those
    of other sizes run in eager, and so does the first step, in which the optimizer creates its
    state.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: nn.Module,
        stepper: CheckedStep,
        autocast: AbstractContextManager[Any],
        batch_size: int,
        timer: CompileTime | None = None,
    ) -> None:
        self.timer = timer or CompileTime()
        self.parts = (model, loss, stepper, autocast)
        self.update = functools.partial(update, *self.parts)
        self.optimizer, self.found_inf = stepper.optimizer, stepper.found_inf
        self.batch_size = batch_size
        self.optimizer_has_state = has_state(self.optimizer)
        self.dtype = dtype_under(autocast, next(model.parameters()))
        self.graphs: dict[Any, StepGraph] = {}
        # Loading a state replaces the tensors that the graphs refer to.
        self.optimizer.register_load_state_dict_post_hook(lambda _: self.graphs.clear())

    def __call__(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """One step on images (N, C, H, W) and targets. Returns the mean loss (0-dim) and the logits
        (N, K)."""
        if len(images) != self.batch_size or not self.has_state():
            loss, logits = self.update(images, targets)
            self.optimizer.zero_grad(set_to_none=True)  # no graph needs them
            return loss.detach(), logits.detach()
        kind = (images.shape, images.stride(), targets.shape, targets.stride(), targets.dtype)
        if kind not in self.graphs:
            self.graphs[kind] = self.compile(images, targets)
        return self.graphs[kind](images, targets)

    def compile(self, images: Tensor, targets: Tensor) -> StepGraph:
        """Compile a step and check it against eager steps. The training's state is unchanged.
        Raises TrainingError."""
        with compiling("compile=step", Exception, self.timer):
            graph = StepGraph(*self.parts, images, targets)
            self.check(graph, images, targets)
        return graph

    def has_state(self) -> bool:
        return not self.optimizer_has_state or any(self.optimizer.state.values())

    def check(self, graph: StepGraph, images: Tensor, targets: Tensor) -> None:
        """Raises TrainingError if two compiled steps differ from two eager ones."""
        eager = self.two_steps(self.update, graph, images, targets)
        compiled = self.two_steps(graph, graph, images, targets)
        difference = disagreement(eager, compiled, self.dtype)
        if difference:
            raise TrainingError(
                "compile=step: the compiled step does not match the eager one: two trial steps "
                f"differ in {difference}.\nUse compile=none for this model."
            )

    def two_steps(
        self,
        step: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
        graph: StepGraph,
        images: Tensor,
        targets: Tensor,
    ) -> Trial:
        """Make two trial steps and undo them. The second one has half the learning rate, to detect
        a rate that became a constant of the graph."""
        before = [tensor.clone() for tensor in graph.tensors]
        rates = [group["lr"] for group in self.optimizer.param_groups]
        losses = []
        with torch.random.fork_rng([images.device] if images.device.type == "cuda" else []):
            for share in (1.0, 0.5):
                self.set_lr([share * rate for rate in rates])
                losses.append(step(images, targets)[0].item())
        changes = [tensor - old for tensor, old in zip(graph.tensors, before, strict=True)]
        trial = Trial(
            losses,
            bool(self.found_inf),
            dict(zip(graph.named, changes, strict=False)),  # `tensors` starts with `named`
            {name: t.grad for name, t in graph.named.items() if t.grad is not None},
            graph.states_by_kind(changes[len(graph.named) :]),
        )
        with torch.no_grad():
            for tensor, old in zip(graph.tensors, before, strict=True):
                tensor.copy_(old)
        self.set_lr(rates)
        self.optimizer.zero_grad(set_to_none=True)
        return trial

    def set_lr(self, rates: list[float]) -> None:
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

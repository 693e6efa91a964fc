"""Training step as one graph, traced from the code that eager steps run, and compiled.

`loop.update` runs once on copies of the weights, the buffers and the optimizer's state, with an
optimizer of the same class over them. Its operations are recorded (torch.fx's make_fx) and compiled
by inductor; each step writes the results into the real tensors in place. No Python code of the
model, of autograd or of the optimizer runs at a step.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode

from trainer.system.torch_internals import (
    being_compiled,
    compile_graph,
    gate,
    graph_of,
    once,
    tree_map_only,
)  # fmt: skip
from trainer.training.loop import update
from trainer.training.step import CheckedStep, Clip, undecorated_step


class StepGraph:
    """Compiled training step. Called with a batch of the traced shape, it trains one step and
    returns the mean loss (0-dim) and the logits (N, K).

    Attributes:
        tensors: those that a step writes: weights, buffers, the optimizer's state, the step's
            flags. Once a loss or a gradient is not finite, they keep their values.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: nn.Module,
        stepper: CheckedStep,
        autocast: AbstractContextManager[Any],
        images: Tensor,
        targets: Tensor,
    ) -> None:
        self.model, self.loss, self.stepper, self.autocast = model, loss, stepper, autocast
        self.groups = stepper.optimizer.param_groups
        self.named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        state = stepper.optimizer.state
        self.state = [  # in the same order for a state loaded from a file
            (parameter, key)
            for parameter in model.parameters()
            for key in sorted(state.get(parameter, ()))
            if isinstance(state[parameter][key], Tensor)
        ]
        kept = [state[parameter][key] for parameter, key in self.state]
        flags = [stepper.found_inf, stepper.num_bad_steps]
        self.tensors = [t.detach() for t in (*self.named.values(), *kept, *flags)]
        # float64, as in eager steps: float32 would round the learning rate.
        self.lrs = [images.new_zeros((), dtype=torch.float64) for _ in self.groups]
        # Of the loss, such as class weights; not written.
        self.constants = dict(loss.named_buffers())
        self.compiled = self._compile(images, targets)

    def __call__(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        for lr, group in zip(self.lrs, self.groups, strict=True):
            lr.fill_(group["lr"])
        with torch.no_grad():
            mean_loss, logits = self.compiled(
                *self.tensors, *self.lrs, *self.constants.values(), images, targets
            )
        return mean_loss, logits

    def states_by_kind(self, values: Sequence[Tensor]) -> dict[str, dict[str, Tensor]]:
        """Group values, one for each tensor of the optimizer's state in the order of `tensors`, by
        kind (such as exp_avg) and name of the weight."""
        names = {parameter: name for name, parameter in self.named.items()}
        found: dict[str, dict[str, Tensor]] = defaultdict(dict)
        for (parameter, kind), value in zip(self.state, values, strict=False):
            found[kind][names[parameter]] = value
        return found

    def _compile(self, images: Tensor, targets: Tensor) -> Callable[..., Any]:
        arguments = [*self.tensors, *self.lrs, *self.constants.values(), images, targets]
        with torch.enable_grad():
            graph = graph_of(self._step, arguments)
        options = {
            "fallback_random": True,  # dropout draws from torch's generators, as in eager steps
            "cpp_wrapper": images.device.type == "cpu",  # halves the start from a warm cache
            # `CompiledStep` checks the batch, and the other tensors do not change. Checking each at
            # every step costs a small network 3 % of its time.
            "size_asserts": False,
        }
        with torch.no_grad():
            return compile_graph(graph, arguments, options)

    def _step(self, *arguments: Tensor) -> tuple[Tensor, Tensor]:
        """Traced function; it has the arguments of the compiled graph."""
        *tensors, images, targets = arguments
        old, others = tensors[: len(self.tensors)], tensors[len(self.tensors) :]
        lrs, constants = others[: len(self.lrs)], others[len(self.lrs) :]
        *before, found_inf, num_bad_steps = old
        fresh = [tensor.clone() for tensor in before]
        named = dict(zip(self.named, fresh, strict=False))
        parameters: dict[Tensor, Tensor] = {
            real: named[name].requires_grad_(real.requires_grad)
            for name, real in self.named.items()
            if isinstance(real, nn.Parameter)
        }
        state: dict[Tensor, dict[str, Tensor]] = defaultdict(dict)
        for (real, key), tensor in zip(self.state, fresh[len(named) :], strict=True):
            # Eager steps compute powers of the step number in float64: 1 - 0.999 ** 1.
            state[real][key] = tensor.double() if key == "step" else tensor
        every, off, on = len(self.groups), [False], [True]
        optimizer = clone_with_parameters(
            self.stepper.optimizer,
            [[parameters[real] for real in group["params"]] for group in self.groups],
            {parameters[real]: of_one for real, of_one in state.items()},
            # Options that can be traced: no fused kernel, no values read on the CPU.
            lr=lrs, fused=every * off, foreach=every * on, capturable=every * on,
        )  # fmt: skip
        model: Any = partial(functional_call, self.model, named)
        # A loss may hold weights of the model, whose penalty it adds.
        of_loss = {
            **dict(zip(self.constants, constants, strict=True)),
            **{name: parameters[real] for name, real in self.loss.named_parameters()},
        }
        loss: Any = lambda *pair: functional_call(self.loss, of_loss, pair)  # noqa: E731
        stepper: Any = _TracedStep(optimizer, parameters.values(), self.stepper.clip)
        mean_loss, logits = update(model, loss, stepper, self.autocast, images, targets)
        after = [*named.values(), *(state[real][key] for real, key in self.state)]
        bad = once((found_inf > 0) | ~stepper.finite)
        with torch.no_grad():
            for tensor, value in zip(before, after, strict=True):
                # A step counter on the CPU, beside a GPU, is not worth a sync.
                gated = tensor.device == bad.device
                tensor.copy_(torch.where(bad, tensor, value) if gated else value)
            found_inf.copy_(bad)
            num_bad_steps.add_(bad)
        return mean_loss.detach(), logits.detach()


class _TracedStep:
    """Step that is traced. Unlike `CheckedStep` it always computes the update; `StepGraph` discards
    the result if a gradient is not finite."""

    def __init__(
        self, optimizer: Optimizer, parameters: Iterable[Tensor], clip: Clip | None
    ) -> None:
        self.optimizer, self.clip = optimizer, clip
        self.parameters = [p for p in parameters if p.requires_grad]

    def zero_grad(self) -> None:
        """Nothing: the copies have no gradients yet."""

    def backward(self, loss: Tensor) -> None:
        gradients = torch.autograd.grad(loss, self.parameters, allow_unused=True)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        checked = [loss.detach(), *(g for g in gradients if g is not None)]
        self.finite = torch.stack([t.isfinite().all() for t in checked]).all()

    def check_and_clip(self) -> None:
        """Nothing: `backward` checks, and clipping is traced with the step."""

    def step(self) -> None:
        with torch.no_grad(), being_compiled(), _ScalarsOnce():
            if self.clip is not None:
                self.clip(self.parameters)
            undecorated_step(self.optimizer)(self.optimizer)


def clone_with_parameters(
    optimizer: Optimizer,
    parameters: Sequence[Sequence[Tensor]],
    state: Mapping[Tensor, dict[str, Tensor]],
    **options: Sequence[Any],
) -> Optimizer:
    """Optimizer of the same class over other parameters, with their state.

    Args:
        parameters: for each parameter group.
        state: by parameter.
        options: values that replace the optimizer's own, for each parameter group.
    """
    groups = [
        {**group, **{key: values[i] for key, values in options.items() if key in group}}
        for i, group in enumerate(optimizer.param_groups)
    ]
    for group, members in zip(groups, parameters, strict=True):
        group["params"] = list(members)
    twin: Optimizer = object.__new__(type(optimizer))
    vars(twin).update(vars(optimizer))
    vars(twin).update(param_groups=groups, state=defaultdict(dict, state))
    gate(twin, None)
    return twin


def has_state(optimizer: Optimizer) -> bool:
    """True if a step of the optimizer creates a state, which plain gradient descent does not. Tried
    on separate parameters."""
    like = optimizer.param_groups[0]["params"][0].detach()
    probes = [nn.Parameter(like.new_zeros(1)) for _ in optimizer.param_groups]
    for probe in probes:
        probe.grad = torch.zeros_like(probe)
    twin = clone_with_parameters(optimizer, [[probe] for probe in probes], {})
    with torch.no_grad():
        undecorated_step(twin)(twin)
    return any(twin.state.values())


class _ScalarsOnce(TorchFunctionMode):
    """Mode that applies `once` to 0-dim operands of tensors. It saves a fifth of a small network's
    step with Adam, whose bias corrections are powers."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        first = args[0] if args else None
        first = first[0] if isinstance(first, list | tuple) and first else first
        if isinstance(first, Tensor) and first.ndim:
            others = tree_map_only(Tensor, lambda t: t if t.ndim else once(t), args[1:])
            args = (args[0], *others)
        return func(*args, **(kwargs or {}))

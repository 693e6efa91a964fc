"""Training step: backward, gradient check and clipping, optimizer step.

A non-finite loss or gradient sets a flag on the device. Fused optimizers take the flag as
`found_inf` and then leave weights and state unchanged, so no step waits for the device; the loop
reads the flag at its log interval. Since the flag stays set, the weights remain those from before
the bad step until it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainer.system.torch_internals import gate, has_hooks, unscale_and_flag, update_scale

# As in torch.amp.GradScaler: the scale is halved after an overflow, doubled after GROWTH_INTERVAL
# steps without one.
BACKOFF, GROWTH, GROWTH_INTERVAL = 0.5, 2.0, 2000
SMALLEST_SCALE = 1e-3  # below it no scale makes the gradients fit fp16


class Stepper(Protocol):
    """Interface of an update in any precision: `backward` once or several times (gradients add up),
    then `check_and_clip`, then `step`."""

    optimizer: Optimizer

    def zero_grad(self) -> None: ...

    def backward(self, loss: Tensor) -> None: ...

    def check_and_clip(self) -> None: ...

    def step(self) -> None: ...

    def num_skipped_steps(self) -> int: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Processes(Protocol):
    """Interface of several processes that compute the gradients of a batch together.

    Attributes:
        share: of this process in the batch; those of all add up to 1.
    """

    @property
    def share(self) -> float: ...

    def reduce(self, tensors: Sequence[Tensor]) -> None:
        """Replace the tensors by their sums over all processes."""


class Clip(Protocol):
    """Interface of gradient clipping. It is traced by compile=step, with copies in place of the
    parameters, so it may know these by their place only."""

    def __call__(self, parameters: Sequence[Tensor]) -> None:
        """Clip the gradients of all trained parameters, in place."""


class CheckedStep:
    """Backward, check and step in full precision (fp32, fp64, and bf16, which has fp32's range).

    Args:
        clip: clips the gradients; None: no clipping.
        processes: that share each batch; None: there is one.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        parameters: Iterable[nn.Parameter],
        clip: Clip | None = None,
        processes: Processes | None = None,
    ) -> None:
        self.processes = processes
        self.optimizer, self.clip = optimizer, clip
        self.parameters = list(parameters)
        device = self.parameters[0].device
        self.found_inf = torch.zeros((), device=device)
        self.num_bad_steps = torch.zeros((), device=device)
        self._one = torch.ones((), device=device)
        self._losses: list[Tensor] = []  # of this update
        self._update = undecorated_step(optimizer)
        # Only torch's kernels read the flag.
        self.gated = is_fused(optimizer) and has_torchs_step(optimizer)
        if self.gated:
            gate(optimizer, self.found_inf)

    def zero_grad(self) -> None:
        """Set all gradients to None. `Optimizer.zero_grad` takes ten times as long, for a profiler
        range and hooks."""
        for parameter in self.parameters:
            parameter.grad = None

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a 0-dim loss to the existing ones."""
        loss = self._shared(loss)
        loss.backward()
        self._losses.append(loss.detach())

    def check_and_clip(self) -> None:
        """Set the flag if a loss or a gradient is not finite; clip the gradients."""
        self._reduce()
        self._check([*self._gradients(), *self._losses], self._one)
        self._losses.clear()
        self.num_bad_steps.add_(self.found_inf)

    def _shared(self, loss: Tensor) -> Tensor:
        """The part of the mean loss of the whole batch that this process contributes."""
        return loss if self.processes is None else loss * self.processes.share

    def _reduce(self) -> None:
        """Gradients and losses become those of the whole batch: a NaN of one process reaches all,
        and they skip the step alike."""
        if self.processes is not None:
            self.processes.reduce([*self._gradients(), *self._losses])

    def _gradients(self) -> list[Tensor]:
        return [p.grad for p in self.parameters if p.grad is not None]

    def _check(self, values: list[Tensor], factor: Tensor) -> None:
        """One pass multiplies all by the factor and raises the flag if one is not finite. Then the
        gradients are clipped."""
        unscale_and_flag(values, self.found_inf, factor)
        if self.clip is not None:
            self.clip(self.parameters)

    @torch.no_grad()
    def step(self) -> None:
        """Optimizer step, unless the flag is set."""
        assert not self._losses, "check_and_clip comes before step"
        if self.gated:
            is_first = not self.optimizer.state
            self._update(self.optimizer)
            if is_first:
                self._clear_state()
        elif self.found_inf.device.type == "cpu":  # RMSprop, Adadelta have no fused form
            if not self.found_inf.item():  # costs nothing on a CPU
                self._update(self.optimizer)
        else:
            self.step_without_sync()

    def step_without_sync(self) -> None:
        """Compute the update in any case, and restore weights and state if the flag is set."""
        before = {tensor: tensor.clone() for tensor in self.updated()}
        self._update(self.optimizer)
        for tensor in self.updated():
            # State that the optimizer creates in this step counts as zero before it.
            old = before.get(tensor, torch.zeros_like(tensor))
            tensor.copy_(torch.where(self.found_inf.bool(), old, tensor))

    def _clear_state(self) -> None:
        """Zero the optimizer's state if the flag was set in the first step: torch's fused SGD then
        leaves its momentum uninitialised."""
        for tensor in self._state():
            tensor.copy_(torch.where(self.found_inf.bool(), torch.zeros_like(tensor), tensor))

    def updated(self) -> list[Tensor]:
        """Tensors that a step writes on the device: weights and the optimizer's state."""
        return [*self.parameters, *self._state()]

    def _state(self) -> list[Tensor]:
        kept = (value for state in self.optimizer.state.values() for value in state.values())
        return [v for v in kept if isinstance(v, Tensor) and v.device == self.found_inf.device]

    def state_dict(self) -> dict[str, Any]:
        """Empty: a state is saved only while the flag is not set."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""

    def num_skipped_steps(self) -> int:
        """Number of latest steps that were skipped because the flag was set. A sync."""
        return int(self.num_bad_steps.item())


class ScaledStep(CheckedStep):
    """Backward, check and step in fp16, whose gradients underflow unless the loss is scaled
    (Micikevicius et al. 2018, section 3.2).

    A step with overflowing gradients is skipped and the scale halved, with the kernels and
    constants of torch's GradScaler. So only a non-finite loss, or a scale below SMALLEST_SCALE,
    counts as bad. (GradScaler itself waits for the device at each step of an optimizer that has no
    fused form.)
    """

    def __init__(
        self,
        optimizer: Optimizer,
        parameters: Iterable[nn.Parameter],
        clip: Clip | None = None,
        processes: Processes | None = None,
    ) -> None:
        super().__init__(optimizer, parameters, clip, processes)
        self.scale = torch.full_like(self.found_inf, 2.0**16)
        self.num_good_steps = torch.zeros_like(self.found_inf, dtype=torch.int32)  # in a row
        self.is_bad = torch.zeros_like(self.found_inf, dtype=torch.bool)  # stays set

    def backward(self, loss: Tensor) -> None:
        """Add the scaled gradients of a 0-dim loss to the existing ones."""
        loss = self._shared(loss)
        self._losses.append(loss.detach())
        (loss * self.scale).backward()

    def check_and_clip(self) -> None:
        """Unscale the gradients; set the flag if one is not finite; clip them."""
        self._reduce()
        for loss in self._losses:
            self.is_bad.logical_or_(~loss.isfinite())
        self._losses.clear()
        self.num_bad_steps.add_(self.is_bad)
        self.found_inf.copy_(self.is_bad)
        self._check(self._gradients(), self.scale.reciprocal())

    def step(self) -> None:
        """Optimizer step, unless a gradient overflowed; then update the scale."""
        super().step()
        update_scale(
            self.scale, self.num_good_steps, self.found_inf, GROWTH, BACKOFF, GROWTH_INTERVAL
        )

    def state_dict(self) -> dict[str, Any]:
        """Scale and number of steps since its last change, under GradScaler's names."""
        return {"scale": self.scale.item(), "_growth_tracker": int(self.num_good_steps.item())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if not state:  # saved in another precision
            return
        self.scale.fill_(state["scale"])
        self.num_good_steps.fill_(state["_growth_tracker"])

    def num_skipped_steps(self) -> int:
        vanished = (self.scale < SMALLEST_SCALE).to(self.num_bad_steps.dtype)
        return int(torch.maximum(self.num_bad_steps, vanished).item())


def is_fused(optimizer: Optimizer) -> bool:
    return all(group.get("fused") for group in optimizer.param_groups)


def undecorated_step(optimizer: Optimizer) -> Callable[[Optimizer], Any]:
    """Optimizer step as a function of the optimizer, without torch's wrappers (profiler range,
    hooks, graph break for the compiler). These cost a small network a tenth of its step, and the
    first one imports the compiler, 1.2 s of every start. A step that is not torch's, is wrapped by
    other code or has hooks is `optimizer.step()` in full."""
    if not has_torchs_step(optimizer):
        return lambda optimizer: optimizer.step()
    return _layers(type(optimizer).step)[-1]


def has_torchs_step(optimizer: Optimizer) -> bool:
    """True if `optimizer.step()` is a step of torch.optim without wrappers or hooks of other
    code."""
    own = _layers(type(optimizer).step)[-1]
    return not is_wrapped(optimizer) and _home(own).startswith("torch.optim.")


def is_wrapped(optimizer: Optimizer) -> bool:
    """True if code outside torch runs around the step: a hook or a decorator."""
    wrappers = _layers(type(optimizer).step)[:-1]
    return (
        "step" in vars(optimizer)  # put there by hand, round the class's
        or has_hooks(optimizer)
        or not all(_home(f).startswith("torch.") for f in wrappers)
    )


def _layers(function: Callable[..., Any]) -> list[Callable[..., Any]]:
    """The function and the functions it wraps (`__wrapped__`), outermost first."""
    found = [function]
    while (inner := getattr(found[-1], "__wrapped__", None)) is not None:
        found.append(inner)
    return found


def _home(function: Callable[..., Any]) -> str:
    """Name of the module that defines the code; functools.wraps copies `__module__`, so the
    function's globals are read."""
    scope: dict[str, Any] = getattr(function, "__globals__", {})
    return str(scope.get("__name__", ""))

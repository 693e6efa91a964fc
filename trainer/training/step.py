"""Between backward and the optimizer's step: clipping, and no NaN or inf into the weights.

A non-finite loss or gradient is latched in a flag on the device. Fused optimizers take the flag
as `found_inf` and then leave weights and state alone, so no step waits for the device; the loop
reads the flag at its log interval. Because the flag stays up, the weights are those from before
the bad step, however much later it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainer.system.torch_internals import gate, has_hooks, unscale_and_flag, update_scale

# torch.amp.GradScaler's: the scale is halved after an overflow, doubled after so many good steps.
BACKOFF, GROWTH, GROWTH_INTERVAL = 0.5, 2.0, 2000
SMALLEST_SCALE = 1e-3  # below it a gradient is beyond fp16 whatever the scale


class Stepper(Protocol):
    """One update, whatever the precision: `backward` once or several times, whose gradients add up,
    then `check_and_clip`, then `step`."""

    optimizer: Optimizer

    def zero_grad(self) -> None: ...

    def backward(self, loss: Tensor) -> None: ...

    def check_and_clip(self) -> None: ...

    def step(self) -> None: ...

    def num_skipped_steps(self) -> int: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Guard:
    """Backward, check and step in full precision (fp32, fp64, and bf16, which has fp32's range).

    Args:
        clip_norm: largest 2-norm of all gradients together; 0 = no clipping.
    """

    def __init__(
        self, optimizer: Optimizer, parameters: Iterable[nn.Parameter], clip_norm: float = 0.0
    ) -> None:
        self.optimizer, self.clip_norm = optimizer, clip_norm
        self.parameters = list(parameters)
        device = self.parameters[0].device
        self.found_inf = torch.zeros((), device=device)
        self.num_bad_steps = torch.zeros((), device=device)
        self._one = torch.ones((), device=device)
        self._losses: list[Tensor] = []  # of this update
        self._update = undecorated_step(optimizer)
        # Only torch's kernels ask for the flag.
        self.gated = is_fused(optimizer) and has_torchs_step(optimizer)
        if self.gated:
            gate(optimizer, self.found_inf)

    def zero_grad(self) -> None:
        """The optimizer's own takes ten times as long, for a profiler range and hooks."""
        for parameter in self.parameters:
            parameter.grad = None

    def backward(self, loss: Tensor) -> None:
        """Add the loss's gradients to those that are there."""
        loss.backward()
        self._losses.append(loss.detach())

    def check_and_clip(self) -> None:
        """Raise the flag if a loss or a gradient is not finite; clip the gradients."""
        self._check([*self._gradients(), *self._losses], self._one)
        self._losses.clear()
        self.num_bad_steps.add_(self.found_inf)

    def _gradients(self) -> list[Tensor]:
        return [p.grad for p in self.parameters if p.grad is not None]

    def _check(self, values: list[Tensor], factor: Tensor) -> None:
        """One pass multiplies all by the factor and raises the flag if one is not finite. Then the
        gradients are clipped."""
        unscale_and_flag(values, self.found_inf, factor)
        if self.clip_norm:
            nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)

    @torch.no_grad()
    def step(self) -> None:
        """The optimizer's step, unless the flag is up."""
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
        """Always computes, and puts back what was there before if the flag is up."""
        before = {tensor: tensor.clone() for tensor in self.updated()}
        self._update(self.optimizer)
        for tensor in self.updated():
            # What the optimizer has made in this step had been zero until then.
            old = before.get(tensor, torch.zeros_like(tensor))
            tensor.copy_(torch.where(self.found_inf.bool(), old, tensor))

    def _clear_state(self) -> None:
        """If the flag was up in the very first step, torch's fused SGD has left its momentum as it
        found that memory."""
        for tensor in self._state():
            tensor.copy_(torch.where(self.found_inf.bool(), torch.zeros_like(tensor), tensor))

    def updated(self) -> list[Tensor]:
        """All that a step writes on the device: weights, and the optimizer's state of them."""
        return [*self.parameters, *self._state()]

    def _state(self) -> list[Tensor]:
        kept = (value for state in self.optimizer.state.values() for value in state.values())
        return [v for v in kept if isinstance(v, Tensor) and v.device == self.found_inf.device]

    def state_dict(self) -> dict[str, Any]:
        """Nothing: a state is only ever saved while the flag is down."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what `state_dict` gave."""

    def num_skipped_steps(self) -> int:
        """How many of the latest steps changed nothing because the flag was up. A sync."""
        return int(self.num_bad_steps.item())


class ScalingGuard(Guard):
    """The same for fp16, whose gradients underflow unless the loss is scaled (Micikevicius et al.
    2018, section 3.2).

    A step with overflowing gradients is left out and the scale halved: that is how the scale is
    found, as torch's GradScaler does it, whose kernels and constants these are. So only a
    non-finite loss, or a scale that fell to nothing, counts as bad. (GradScaler itself waits for
    the device at each step of an optimizer that has no fused form.)
    """

    def __init__(
        self, optimizer: Optimizer, parameters: Iterable[nn.Parameter], clip_norm: float = 0.0
    ) -> None:
        super().__init__(optimizer, parameters, clip_norm)
        self.scale = torch.full_like(self.found_inf, 2.0**16)
        self.num_good_steps = torch.zeros_like(self.found_inf, dtype=torch.int32)  # in a row
        self.is_bad = torch.zeros_like(self.found_inf, dtype=torch.bool)  # stays up

    def backward(self, loss: Tensor) -> None:
        """Add the loss's gradients, scaled, to those that are there."""
        self.is_bad.logical_or_(~loss.detach().isfinite())
        self._losses.append(loss.detach())
        (loss * self.scale).backward()

    def check_and_clip(self) -> None:
        """Take the scale out of the gradients; raise the flag if one is not finite; clip them."""
        self._losses.clear()
        self.num_bad_steps.add_(self.is_bad)
        self.found_inf.copy_(self.is_bad)
        self._check(self._gradients(), self.scale.reciprocal())

    def step(self) -> None:
        """The optimizer's step, unless a gradient overflowed; and the next step's scale."""
        super().step()
        update_scale(
            self.scale, self.num_good_steps, self.found_inf, GROWTH, BACKOFF, GROWTH_INTERVAL
        )

    def state_dict(self) -> dict[str, Any]:
        """The scale and how long it has held, under GradScaler's names."""
        return {"scale": self.scale.item(), "_growth_tracker": int(self.num_good_steps.item())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if not state:  # of a training in another precision
            return
        self.scale.fill_(state["scale"])
        self.num_good_steps.fill_(state["_growth_tracker"])

    def num_skipped_steps(self) -> int:
        vanished = (self.scale < SMALLEST_SCALE).to(self.num_bad_steps.dtype)
        return int(torch.maximum(self.num_bad_steps, vanished).item())


def is_fused(optimizer: Optimizer) -> bool:
    return all(group.get("fused") for group in optimizer.param_groups)


def undecorated_step(optimizer: Optimizer) -> Callable[[Optimizer], Any]:
    """One step, as a function of the optimizer: torch's arithmetic without torch's wrappers round
    it (profiler range, hooks, graph break for the compiler), which cost a small net a tenth of its
    step, and the first of which imports the compiler, 1.2 s of every start. A step that is not
    torch's, that somebody has wrapped, or that has hooks, is `optimizer.step()`: all of it."""
    if not has_torchs_step(optimizer):
        return lambda optimizer: optimizer.step()
    step: Callable[[Optimizer], Any] = _layers(type(optimizer).step)[-1]
    return step


def has_torchs_step(optimizer: Optimizer) -> bool:
    """Whether `optimizer.step()` is a step of torch.optim with nothing of anybody else round it."""
    return (
        "step" not in vars(optimizer)  # put there by hand, round the class's
        and not has_hooks(optimizer)
        and all(_home(f).startswith("torch.") for f in _layers(type(optimizer).step))
        and _home(_layers(type(optimizer).step)[-1]).startswith("torch.optim.")
    )


def is_wrapped(optimizer: Optimizer) -> bool:
    """Whether Python code of somebody other than torch runs round the step: a hook, a decorator."""
    wrappers = _layers(type(optimizer).step)[:-1]
    return (
        "step" in vars(optimizer)
        or has_hooks(optimizer)
        or not all(_home(f).startswith("torch.") for f in wrappers)
    )


def _layers(function: Callable[..., Any]) -> list[Callable[..., Any]]:
    """A function, what it wraps, and so on to the innermost."""
    found = [function]
    while (inner := getattr(found[-1], "__wrapped__", None)) is not None:
        found.append(inner)
    return found


def _home(function: Callable[..., Any]) -> str:
    """The module whose code it is: `__module__` is copied by functools.wraps."""
    scope: dict[str, Any] = getattr(function, "__globals__", {})
    return str(scope.get("__name__", ""))

"""Between backward and the optimizer's step: clipping, and no NaN or inf into the weights.

A non-finite loss or gradient is latched in a flag on the device. Fused optimizers take the flag
as `found_inf` and then leave weights and state alone, so no step waits for the device; the loop
reads the flag at its log interval. Because the flag stays up, the weights are those from before
the bad step, however much later it is read.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


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
        self._update = bare_step(optimizer)
        self.gated = is_fused(optimizer)
        if self.gated:
            optimizer.found_inf = self.found_inf  # type: ignore[attr-defined]
            optimizer.grad_scale = None  # type: ignore[attr-defined]

    def zero_grad(self) -> None:
        """The optimizer's own takes ten times as long, for a profiler range and hooks."""
        for parameter in self.parameters:
            parameter.grad = None

    def backward(self, loss: Tensor) -> None:
        """Gradients of the loss, checked and clipped."""
        loss.backward()
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        # GradScaler's own kernel: one pass that multiplies by 1 and raises the flag.
        torch._amp_foreach_non_finite_check_and_unscale_(
            [*gradients, loss.detach()], self.found_inf, self._one
        )
        self.num_bad_steps.add_(self.found_inf)
        if self.clip_norm:
            nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)

    @torch.no_grad()
    def step(self) -> None:
        """The optimizer's step, unless the flag is up."""
        if self.gated:
            self._update(self.optimizer)
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

    def updated(self) -> list[Tensor]:
        """All that a step writes on the device: weights, and the optimizer's state of them."""
        kept = (value for state in self.optimizer.state.values() for value in state.values())
        return [*self.parameters, *(
            v for v in kept if isinstance(v, Tensor) and v.device == self.found_inf.device
        )]  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """Nothing: a state is only ever saved while the flag is down."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what `state_dict` gave."""

    def bad_steps(self) -> int:
        """How many of the latest steps changed nothing because the flag was up. A sync."""
        return int(self.num_bad_steps.item())


class ScalingGuard:
    """The same for fp16, whose gradients underflow unless the loss is scaled (Micikevicius et al.
    2018, section 3.2). A step with overflowing gradients is left out and the scale halved: that
    is how the scale is found, so only a non-finite loss, or a scale that fell to nothing, counts
    as bad."""

    def __init__(
        self, optimizer: Optimizer, parameters: Iterable[nn.Parameter], clip_norm: float = 0.0
    ) -> None:
        self.optimizer, self.clip_norm = optimizer, clip_norm
        self.parameters = list(parameters)
        device = self.parameters[0].device
        self.scaler = torch.amp.GradScaler(device.type)
        self.num_bad_steps = torch.zeros((), device=device)

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def backward(self, loss: Tensor) -> None:
        self.num_bad_steps += ~torch.isfinite(loss.detach())
        self.scaler.scale(loss).backward()
        if self.clip_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)

    def step(self) -> None:
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def state_dict(self) -> dict[str, Any]:
        """The scale and how long it has held."""
        return self.scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.scaler.load_state_dict(state)

    def bad_steps(self) -> int:
        vanished = self.scaler.get_scale() < 1e-3
        return int(self.num_bad_steps.item()) or int(vanished)


def is_fused(optimizer: Optimizer) -> bool:
    return all(group.get("fused") for group in optimizer.param_groups)


def bare_step(optimizer: Optimizer) -> Callable[[Optimizer], Any]:
    """The optimizer's own arithmetic, without torch's wrappers round it (profiler ranges, hooks,
    graph breaks for the compiler). They cost a small net a tenth of its step, and the first of
    them imports the compiler, 1.2 s of every start."""
    step: Callable[[Optimizer], Any] = inspect.unwrap(type(optimizer).step)
    return step

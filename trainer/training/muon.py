"""Muon: momentum whose matrices are made nearly orthogonal, for the hidden layers of a network.

Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"
(kellerjordan.github.io/posts/muon); the scale of the update, which lets it share learning rate and
weight decay with AdamW, is that of Liu et al. 2025, "Muon is scalable for LLM training" (arXiv
2502.16982), equation 4. All other parameters are trained by AdamW (Loshchilov & Hutter 2019).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic; steep at 0, near 1 for all others
SMALLEST_NORM = 1e-7


class Muon(Optimizer):
    """Muon for hidden matrices and, as matrices (maps, all else), convolution filters; AdamW for
    the rest.

    A group of parameters with `is_hidden` of False is AdamW's, and so is, in any group, what has no
    second dimension. Step numbers are tensors on the CPU, and nothing waits for the device.

    Args:
        momentum: of Muon: weight of the running mean of gradients.
        nesterov: Muon looks ahead along the momentum.
        ns_steps: Newton-Schulz iterations of Muon.
        betas, eps: of AdamW.
        weight_decay: of both, apart from the gradient: lr * weight_decay of each weight per step.
    """

    splits_hidden = True  # the builder makes groups of hidden matrices and of the rest

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.1,
    ) -> None:
        defaults = {
            "lr": lr, "momentum": momentum, "nesterov": nesterov, "ns_steps": ns_steps,
            "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay,
        }  # fmt: skip
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update. Without closures: no search along a line."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                is_matrix = group.get("is_hidden", True) and parameter.ndim > 1
                update = muon if is_matrix else adamw
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                update(parameter, parameter.grad, self.state[parameter], group)


def muon(weight: Tensor, grad: Tensor, state: dict[str, Any], group: Mapping[str, Any]) -> None:
    """Take a step of Muon on a weight of two dimensions or more, in place."""
    if not state:
        state["momentum_buffer"] = torch.zeros_like(weight)
    mean = state["momentum_buffer"].lerp_(grad, 1 - group["momentum"])
    ahead = grad.lerp(mean, group["momentum"]) if group["nesterov"] else mean
    update = orthogonalised(ahead.flatten(1), group["ns_steps"])
    # A matrix with equal singular values has entries of 1 / sqrt(longer side); Adam's are of 0.2.
    scale = 0.2 * max(update.shape) ** 0.5
    weight.sub_(update.reshape(weight.shape) * (group["lr"] * scale))


def orthogonalised(matrix: Tensor, steps: int) -> Tensor:
    """Matrix with the same singular vectors and singular values near 1, from 0.7 to 1.2, by Newton
    and Schulz's iteration with a quintic."""
    a, b, c = COEFFICIENTS
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if is_tall else matrix
    x = x / x.norm().clamp(min=SMALLEST_NORM)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x.T if is_tall else x


def adamw(weight: Tensor, grad: Tensor, state: dict[str, Any], group: Mapping[str, Any]) -> None:
    """Take a step of Adam on a weight, in place."""
    if not state:
        state["step"] = torch.zeros(())
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
    beta1, beta2 = group["betas"]
    state["step"] += 1
    count = state["step"].double()  # powers of it in float64, as torch has them
    mean = state["exp_avg"].lerp_(grad, 1 - beta1)
    square = state["exp_avg_sq"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
    root = square.sqrt() / (1 - beta2**count).sqrt() + group["eps"]
    weight.sub_(mean / root * (group["lr"] / (1 - beta1**count)))

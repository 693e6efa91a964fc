"""Knowledge distillation (Hinton, Vinyals and Dean 2015, arXiv 1503.02531): a trained network, the
teacher, shows the network that is trained which classes it takes for alike.

The teacher is a head more: `Taught` adds its logits to the output of the network that is trained,
last, and `trainer.losses.Distilled` takes them off again. So the loop knows nothing of it, and the
parts of a batch and the processes of a training work as without.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trainer.errors import UserError
from trainer.losses import Output, main_logits
from trainer.training.rules.rule import Rule


class Teacher(nn.Module):
    """Trained network in eval mode, without gradients, for images that are prepared for another.

    Args:
        network: on its device; images (N, C, H, W) float -> logits (N, K).
        preprocess: of the teacher, from pixels in 0..255; None: both networks see the same.
        mean, std: of each channel, with which the images are normalised that it is given.
        weights_sha256: digest of its weights.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        preprocess: Callable[[Tensor], Tensor] | None,
        mean: Sequence[float],
        std: Sequence[float],
        weights_sha256: str = "",
    ) -> None:
        super().__init__()
        self.network, self.preprocess = network.eval().requires_grad_(False), preprocess
        self.weights_sha256 = weights_sha256
        like = next(network.parameters())
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, 255 * torch.tensor(values, dtype=torch.float64).to(like))

    @torch.no_grad()  # backward cannot keep what comes out of inference_mode
    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W), prepared for the network that is trained -> logits (N, K)."""
        if self.preprocess is not None:
            images = self.preprocess(images * self.std.view(-1, 1, 1) + self.mean.view(-1, 1, 1))
        return main_logits(self.network(images))


class Taught:
    """Network that is trained, with a teacher's logits as the last of its outputs."""

    def __init__(self, model: Callable[[Tensor], Output], teacher: Teacher) -> None:
        self.model, self.teacher = model, teacher

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        output = self.model(images)
        heads = (output,) if isinstance(output, Tensor) else output
        return (*heads, self.teacher(images))


class SameTeacher(Rule):
    """Rule by which a resumed training has the teacher that it began with, wherever its file lies.

    Args:
        weights_sha256: digest of its weights.
    """

    name = "teacher"

    def __init__(self, weights_sha256: str) -> None:
        self.weights_sha256 = weights_sha256

    def state_dict(self) -> dict[str, Any]:
        return {"weights_sha256": self.weights_sha256}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["weights_sha256"] != self.weights_sha256:
            raise UserError(
                f"teacher: its weights have the digest {self.weights_sha256[:12]}, and the run "
                f"began with one of {state['weights_sha256'][:12]}. Give teacher=FILE with those "
                "weights, or start a new run."
            )

"""Losses. Each takes the model's output and the targets, and returns the mean as a 0-dim tensor.

Output: logits (N, K), or, from a model with auxiliary heads in training mode, a tuple of such
logits with the main head's first. Targets: class indices (N,) int64, or probabilities (N, K).

The training loss, which a run reports for `train`, includes label smoothing and the auxiliary heads
(for GoogLeNet main + 0.3 aux2 + 0.3 aux1: 1.6 times as much while all are at chance). In evaluation
a model has its main head only, and `build` makes the loss without smoothing.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# GoogLeNet adds its auxiliary losses with this weight (Szegedy et al. 2014, section 5).
AUXILIARY_WEIGHT = 0.3

Output = Tensor | tuple[Tensor, ...]


def main_logits(output: Output) -> Tensor:
    """Logits (N, K) of the main head, which accuracy and prediction use."""
    return output if isinstance(output, Tensor) else output[0]


def probabilities(outputs: Tensor, how: str) -> Tensor:
    """Probabilities (N, K) in 0..1 from a model's outputs (N, K).

    Args:
        how: set by the loss of the training. softmax: exactly one class is right. sigmoid: each
            class is a binary decision. clip: the outputs estimate the one-hot target and are
            clamped to 0..1. The squared error is smallest where they are the class probabilities
            (Richard and Lippmann 1991, "Neural network classifiers estimate Bayesian a posteriori
            probabilities"), the absolute error where they are the median, nearly 0 or 1, which
            says little about the model's confidence.
    """
    if how == "sigmoid":
        return outputs.sigmoid()
    return outputs.clamp(0, 1) if how == "clip" else outputs.softmax(dim=1)


class _Loss(nn.Module):
    """Base class: the weighted sum of the losses of all heads.

    Attributes:
        probabilities: argument `how` of the function `probabilities` for outputs trained with it.
    """

    probabilities = "softmax"

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, output: Output, target: Tensor) -> Tensor:
        if isinstance(output, Tensor):
            return self.of_logits(output, target)
        main, *auxiliary = (self.of_logits(logits, target) for logits in output)
        return main + AUXILIARY_WEIGHT * torch.stack(auxiliary).sum()

    def of_logits(self, logits: Tensor, target: Tensor) -> Tensor:
        raise NotImplementedError


class CrossEntropy(_Loss):
    """Cross-entropy: -sum_k t_k log softmax(z)_k, mean over the batch, where
    t = (1 - s) * target + s / K with label smoothing s (Szegedy et al. 2015, section 7)."""

    def of_logits(self, logits: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(logits, target, label_smoothing=self.label_smoothing)


class _Distance(_Loss):
    """Base class: distance of p from t with p = softmax(z), or p = z with on="logits"; mean over
    all N * K elements."""

    distance: Callable[[Tensor, Tensor], Tensor]

    def __init__(self, on: str = "probabilities", label_smoothing: float = 0.0) -> None:
        super().__init__(label_smoothing)
        self.on = on
        self.probabilities = "clip" if on == "logits" else "softmax"

    def of_logits(self, logits: Tensor, target: Tensor) -> Tensor:
        scores = in_full(logits)
        scores = scores if self.on == "logits" else scores.softmax(dim=1)
        return self.distance(scores, soft(target, logits, self.label_smoothing))


class MSE(_Distance):
    """Squared error: (p - t)^2."""

    distance = staticmethod(F.mse_loss)


class L1(_Distance):
    """Absolute error: |p - t|."""

    distance = staticmethod(F.l1_loss)


class BCE(_Loss):
    """Binary cross-entropy: -t log sigmoid(z) - (1 - t) log(1 - sigmoid(z)), each class a binary
    decision; mean over all N * K elements."""

    probabilities = "sigmoid"

    def of_logits(self, logits: Tensor, target: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(
            in_full(logits), soft(target, logits, self.label_smoothing)
        )


def in_full(logits: Tensor) -> Tensor:
    """The logits in at least float32, also under autocast: 0.9 is 0.8984 in bfloat16."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def soft(target: Tensor, logits: Tensor, label_smoothing: float) -> Tensor:
    """Smoothed target probabilities (N, K), in the logits' dtype but at least float32."""
    if target.ndim == 1:
        target = F.one_hot(target, logits.shape[1])
    target = target.to(in_full(logits).dtype)
    return (1 - label_smoothing) * target + label_smoothing / logits.shape[1]

"""Losses. Each takes the model's output and the targets, and gives the mean as a 0-dim tensor.

Output: logits (N, K), or, from a net with auxiliary heads in training mode, a tuple of such
logits with the main head's first. Targets: class indices (N,) int64, or probabilities (N, K).

The loss that is trained, and that a run reports for `train`, counts the label smoothing and the
auxiliary heads (for GoogLeNet main + 0.3 aux2 + 0.3 aux1: 1.6 times as much while all are at
chance). In evaluation a net has its main head alone, and `build` makes the loss without smoothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# GoogLeNet adds its auxiliary losses with this weight (Szegedy et al. 2014, section 5).
AUXILIARY_WEIGHT = 0.3

Output = Tensor | tuple[Tensor, ...]


def main_logits(output: Output) -> Tensor:
    """(N, K): the logits that count for accuracy and prediction."""
    return output if isinstance(output, Tensor) else output[0]


def probabilities(outputs: Tensor, how: str) -> Tensor:
    """(N, K) outputs of a model -> (N, K) in 0..1, as its loss gave them a meaning in training.

    softmax: one of the classes is the right one. sigmoid: each is a question by itself. clip: the
    outputs are estimates of the one-hot target, cut to 0..1. The squared error is smallest where
    they are the probabilities of the classes (Richard and Lippmann 1991, "Neural network
    classifiers estimate Bayesian a posteriori probabilities"), the absolute one where they are
    their median, nearly 0 or 1, which tells little of how sure the model is.
    """
    if how == "sigmoid":
        return outputs.sigmoid()
    return outputs.clamp(0, 1) if how == "clip" else outputs.softmax(dim=1)


class _Loss(nn.Module):
    """Weighs the heads, so that neither the loop nor the formulas below know of several.

    probabilities: how they follow from the outputs that it trains; see `probabilities`."""

    probabilities = "softmax"

    def forward(self, output: Output, target: Tensor) -> Tensor:
        if isinstance(output, Tensor):
            return self.of_logits(output, target)
        main, *auxiliary = (self.of_logits(logits, target) for logits in output)
        return main + AUXILIARY_WEIGHT * torch.stack(auxiliary).sum()

    def of_logits(self, logits: Tensor, target: Tensor) -> Tensor:
        raise NotImplementedError


class CrossEntropy(_Loss):
    """-sum_k t_k log softmax(z)_k, the mean over the batch, where
    t = (1 - s) * target + s / K with label smoothing s (Szegedy et al. 2015, section 7)."""

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def of_logits(self, logits: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(logits, target, label_smoothing=self.label_smoothing)


class MSE(_Loss):
    """(p - t)^2 with p = softmax(z), or p = z with on="logits"; the mean over all N * K
    elements."""

    def __init__(self, on: str = "probabilities", label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.on, self.label_smoothing = on, label_smoothing
        self.probabilities = "clip" if on == "logits" else "softmax"

    def of_logits(self, logits: Tensor, target: Tensor) -> Tensor:
        return F.mse_loss(_scores(logits, self.on), soft(target, logits, self.label_smoothing))


class L1(_Loss):
    """|p - t| with p = softmax(z), or p = z with on="logits"; the mean over all N * K elements."""

    def __init__(self, on: str = "probabilities", label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.on, self.label_smoothing = on, label_smoothing
        self.probabilities = "clip" if on == "logits" else "softmax"

    def of_logits(self, logits: Tensor, target: Tensor) -> Tensor:
        return F.l1_loss(_scores(logits, self.on), soft(target, logits, self.label_smoothing))


class BCE(_Loss):
    """-t log sigmoid(z) - (1 - t) log(1 - sigmoid(z)): each class a yes-or-no question; the mean
    over all N * K elements."""

    probabilities = "sigmoid"

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def of_logits(self, logits: Tensor, target: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(
            in_full(logits), soft(target, logits, self.label_smoothing)
        )


def _scores(logits: Tensor, on: str) -> Tensor:
    logits = in_full(logits)
    return logits if on == "logits" else logits.softmax(dim=1)


def in_full(logits: Tensor) -> Tensor:
    """At least float32, whatever autocast made of them: 0.9 is 0.8984 in bfloat16."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def soft(target: Tensor, logits: Tensor, label_smoothing: float) -> Tensor:
    """Targets as smoothed probabilities, (N, K), of the logits' dtype but at least float32."""
    if target.ndim == 1:
        target = F.one_hot(target, logits.shape[1])
    target = target.to(in_full(logits).dtype)
    return (1 - label_smoothing) * target + label_smoothing / logits.shape[1]

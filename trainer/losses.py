"""Losses. Each takes the model's output and the targets, and returns the mean as a 0-dim tensor.

Output: logits (N, K), or, from a model with auxiliary heads in training mode, a tuple of such
logits with the main head's first. Targets: class indices (N,) int64, or probabilities (N, K).

The training loss, which a run reports for `train`, includes label smoothing, class weights,
penalties and the auxiliary heads (for GoogLeNet main + 0.3 aux2 + 0.3 aux1: 1.6 times as much while
all are at chance). In evaluation a model has its main head only, and `build` makes the loss without
the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

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


class _Weighted(_Loss):
    """Base class: loss with a weight w_k for each class.

    Args:
        class_weights: (K,) numbers, or "none", which are all 1.
    """

    weight: Tensor | None

    def __init__(
        self, label_smoothing: float = 0.0, class_weights: str | Sequence[float] = "none"
    ) -> None:
        super().__init__(label_smoothing)
        if isinstance(class_weights, str) and class_weights != "none":
            raise ValueError(f"class_weights={class_weights}: must be none or a list of numbers")
        self.class_weights = None if isinstance(class_weights, str) else tuple(class_weights)
        weight = (
            None
            if self.class_weights is None
            else torch.tensor(self.class_weights, dtype=torch.float64)
        )
        self.register_buffer("weight", weight, persistent=False)

    def weight_for(self, logits: Tensor) -> Tensor | None:
        """The weights (K,) in the dtype of the logits."""
        return None if self.weight is None else self.weight.to(logits.dtype)


class CrossEntropy(_Weighted):
    """Cross-entropy: -sum_k w_k t_k log softmax(z)_k, where t = (1 - s) * target + s / K with label
    smoothing s (Szegedy et al. 2015, section 7). The sum over the batch is divided by the sum of
    the labels' weights, and by the number of images where targets are probabilities, as torch
    defines it."""

    def of_logits(self, logits: Tensor, target: Tensor) -> Tensor:
        logits = logits if self.weight is None else in_full(logits)
        return F.cross_entropy(
            logits, target, self.weight_for(logits), label_smoothing=self.label_smoothing
        )


class Focal(_Weighted):
    """Focal loss: -sum_k w_k t_k (1 - p_k)^gamma log p_k with p = softmax(z) (Lin et al. 2017);
    t, w and the mean as in `CrossEntropy`, which it is with gamma 0.

    Args:
        gamma: how much less an image counts the surer the model is of its class.
    """

    def __init__(
        self,
        gamma: float = 2.0,
        label_smoothing: float = 0.0,
        class_weights: str | Sequence[float] = "none",
    ) -> None:
        super().__init__(label_smoothing, class_weights)
        self.gamma = gamma

    def of_logits(self, logits: Tensor, target: Tensor) -> Tensor:
        log_p = in_full(logits).log_softmax(dim=1)
        # 1 - p, and its logarithm, from log p: exact also where p rounds to 1. Held above 0, where
        # a power below 1 has no slope.
        rest = -torch.expm1(log_p)
        terms = -soft(target, logits, self.label_smoothing) * log_p
        if self.gamma:
            terms = terms * rest.clamp_min(torch.finfo(rest.dtype).tiny) ** self.gamma
        weight = self.weight_for(log_p)
        if weight is None:
            return terms.sum() / len(terms)
        total = weight[target].sum() if target.ndim == 1 else len(terms)
        return (terms * weight).sum() / total


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


class BCE(_Weighted):
    """Binary cross-entropy: -w t log sigmoid(z) - (1 - t) log(1 - sigmoid(z)), each class a binary
    decision, of whose positive images the weight w is; mean over all N * K elements."""

    probabilities = "sigmoid"

    def of_logits(self, logits: Tensor, target: Tensor) -> Tensor:
        logits = in_full(logits)
        return F.binary_cross_entropy_with_logits(
            logits, soft(target, logits, self.label_smoothing), pos_weight=self.weight_for(logits)
        )


class Distilled(nn.Module):
    """Loss of a network with a teacher: weight * T^2 * KL(p || q) + (1 - weight) * loss, where p
    and q are the softmax of the teacher's and of the network's logits, divided by the temperature
    T; the mean of KL over the images. T^2 keeps the size of the gradients (Hinton et al. 2015,
    section 2).

    Args:
        loss: of the output and the targets, as without a teacher.
        temperature: T; above 1, the small probabilities count more.
        weight: share of what the teacher says, in 0..1.
    """

    def __init__(self, loss: nn.Module, temperature: float, weight: float) -> None:
        super().__init__()
        self.loss, self.temperature, self.weight = loss, temperature, weight

    def forward(self, output: tuple[Tensor, ...], target: Tensor) -> Tensor:
        """The output's last logits are the teacher's."""
        *heads, taught = output
        own: Tensor = self.loss(heads[0] if len(heads) == 1 else tuple(heads), target)
        log_q, log_p = (
            (in_full(logits) / self.temperature).log_softmax(dim=1) for logits in (heads[0], taught)
        )
        apart = F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
        return self.weight * self.temperature**2 * apart + (1 - self.weight) * own


class Penalised(nn.Module):
    """Loss plus l1 * sum |w| + l2 * sum w^2 over some weights of the model, which stay its own.

    Args:
        loss: of the output and the targets.
    """

    def __init__(
        self, loss: nn.Module, weights: Iterable[nn.Parameter], l1: float, l2: float
    ) -> None:
        super().__init__()
        self.loss, self.l1, self.l2 = loss, l1, l2
        self.weights = nn.ParameterList(weights)

    def forward(self, output: Output, target: Tensor) -> Tensor:
        loss: Tensor = self.loss(output, target)
        return loss + self.penalty(list(self.weights))

    def penalty(self, weights: Sequence[Tensor]) -> Tensor:
        terms = [self.l1 * weight.abs().sum() for weight in weights if self.l1]
        terms += [self.l2 * weight.square().sum() for weight in weights if self.l2]
        return torch.stack(terms).sum()


def in_full(logits: Tensor) -> Tensor:
    """The logits in at least float32, also under autocast: 0.9 is 0.8984 in bfloat16."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def soft(target: Tensor, logits: Tensor, label_smoothing: float) -> Tensor:
    """Smoothed target probabilities (N, K), in the logits' dtype but at least float32."""
    if target.ndim == 1:
        target = F.one_hot(target, logits.shape[1])
    target = target.to(in_full(logits).dtype)
    return (1 - label_smoothing) * target + label_smoothing / logits.shape[1]

"""Loss and accuracy over batches, without waiting for the device at every step; and, where a split
is looked at closely, the confusion of its classes, the calibration and the worst mistakes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

CALIBRATION_BINS = 15  # as Guo et al. 2017 have them, section 5
TOP = 5
MOST_WAITING = 50  # batches whose logits are held
SMALLEST = 1074  # every float is a multiple of 2**-1074


@dataclass(frozen=True)
class Metrics:
    """loss: mean per picture. accuracy: share of right pictures, 0..1. num_images: how many.
    seconds: what it took."""

    loss: float
    accuracy: float
    num_images: int
    seconds: float = 0.0

    @property
    def images_per_s(self) -> float:
        return self.num_images / self.seconds if self.seconds > 0 else 0.0


@dataclass
class Meter:
    """Collects references to what each batch gave; `read` turns them into numbers.

    The sum of the losses is exact, an integer number of the smallest float, so that a result
    does not depend on how often the meter was read, and a reading costs no more late in an epoch
    than early.
    """

    loss_sum: int = 0  # of the pictures' losses, in 2**-1074
    is_finite: bool = True
    num_images: int = 0
    num_correct: int = 0
    _waiting: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)
    # Of so many batches each: (their losses, then how many pictures were right), their sizes.
    _folded: list[tuple[Tensor, list[int]]] = field(default_factory=list)

    def add(self, loss: Tensor, logits: Tensor, targets: Tensor) -> None:
        """loss: 0-dim, the batch's mean. logits: (N, K). targets: (N,) int64, or (N, K)
        probabilities, whose largest is the label."""
        self._waiting.append((loss.detach(), logits.detach(), targets))
        if len(self._waiting) == MOST_WAITING:
            self._fold()

    def _fold(self) -> None:
        """Logits to a count, on the device and without waiting for it: of a large split with many
        classes they would not all fit."""
        losses, logits, targets = zip(*self._waiting, strict=True)
        self._waiting = []
        labels = torch.cat([t if t.ndim == 1 else t.argmax(dim=1) for t in targets])
        num_correct = (torch.cat(logits).argmax(dim=1) == labels).sum()
        means = torch.stack(losses)
        means = means.to(torch.promote_types(means.dtype, torch.float32))
        self._folded.append((torch.cat([means, num_correct[None]]), [len(x) for x in logits]))

    def read(self, seconds: float = 0.0) -> Metrics:
        """Everything added so far, and how long it took. Waits for the device."""
        if self._waiting:
            self._fold()
        for values, counts in self._folded:
            *means, num_correct = values.tolist()  # the sync
            for mean, count in zip(means, counts, strict=True):
                self._add_loss(mean * count)
            self.num_images += sum(counts)
            self.num_correct += int(num_correct)
        self._folded = []
        count = max(1, self.num_images)
        loss = self.loss_sum / (count << SMALLEST) if self.is_finite else math.nan
        return Metrics(loss, self.num_correct / count, self.num_images, seconds)

    def _add_loss(self, loss: float) -> None:
        if math.isfinite(loss):
            numerator, power_of_two = loss.as_integer_ratio()
            self.loss_sum += numerator << (SMALLEST + 1 - power_of_two.bit_length())
        else:
            self.is_finite = False

    def reset(self) -> None:
        self.loss_sum, self.is_finite, self.num_images, self.num_correct = 0, True, 0, 0
        self._waiting, self._folded = [], []

    def state_dict(self) -> dict[str, Any]:
        self.read()
        return {
            "loss_sum": hex(self.loss_sum),
            "is_finite": self.is_finite,
            "num_images": self.num_images,
            "num_correct": self.num_correct,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.reset()
        if "losses" in state:  # as states had it before the sum was an integer
            for loss in state["losses"]:
                self._add_loss(loss)
        else:
            self.loss_sum, self.is_finite = int(state["loss_sum"], 16), state["is_finite"]
        self.num_images, self.num_correct = state["num_images"], state["num_correct"]


@dataclass(frozen=True)
class Mistake:
    """A picture whose most probable class is not its own.

    index: its position in the split. was: its label. said: the most probable class. probability:
    of `said`, 0..1.
    """

    index: int
    was: int
    said: int
    probability: float


@dataclass(frozen=True)
class Findings:
    """What a close look at a split gave.

    confusion: (K, K) int64, rows the true class, columns the most probable one.
    top5: share of pictures whose class is among the min(5, K) most probable.
    calibration_error: see `calibration_error`, 0..1.
    mistakes: the surest first; among equally sure ones, in the order of the split.
    """

    confusion: Tensor
    top5: float
    calibration_error: float
    mistakes: list[Mistake]


@dataclass
class Examiner(Meter):
    """A meter that also keeps, of each picture, what `findings` needs: its class, the most probable
    class, the probability of that (a softmax of the logits) and whether it is in the top 5. The
    pictures must come in the order of the split. No sync but in `read` and `findings`.

    num_mistakes: how many mistakes `findings` lists, at most.
    """

    num_mistakes: int = 16
    _seen: list[tuple[Tensor, Tensor, Tensor, Tensor]] = field(default_factory=list)
    _num_classes: int = 0

    def add(self, loss: Tensor, logits: Tensor, targets: Tensor) -> None:
        super().add(loss, logits, targets)
        logits = logits.detach().float()
        labels = targets if targets.ndim == 1 else targets.argmax(dim=1)
        said = logits.argmax(dim=1)
        probability = logits.softmax(dim=1).gather(1, said[:, None]).squeeze(1)
        first = logits.topk(min(TOP, logits.shape[1])).indices
        self._seen.append((labels, said, probability, (first == labels[:, None]).any(dim=1)))
        self._num_classes = logits.shape[1]

    def findings(self) -> Findings:
        """Of everything added so far. Waits for the device."""
        labels, said, probability, in_top = (
            torch.cat(column).cpu() for column in zip(*self._seen, strict=True)
        )
        wrong = (said != labels).nonzero().squeeze(1)
        surest = probability[wrong].nan_to_num(-1).argsort(descending=True, stable=True)
        return Findings(
            count_confusion(labels, said, self._num_classes),
            in_top.double().mean().item(),
            calibration_error(probability, said == labels),
            [
                Mistake(i, int(labels[i]), int(said[i]), probability[i].item())
                for i in wrong[surest[: self.num_mistakes]].tolist()
            ],
        )

    def reset(self) -> None:
        super().reset()
        self._seen, self._num_classes = [], 0


def count_confusion(labels: Tensor, said: Tensor, num_classes: int) -> Tensor:
    """(K, K) int64: how many pictures of each class (row) were taken for each (column). Both
    arguments: (N,) int64."""
    cells = torch.bincount(labels * num_classes + said, minlength=num_classes**2)
    return cells.view(num_classes, num_classes)


def calibration_error(
    probability: Tensor, right: Tensor, num_bins: int = CALIBRATION_BINS
) -> float:
    """How far the probabilities of the predicted classes are from the share that is right: the
    expected calibration error of Guo et al. 2017, eq. 3, sum_m |B_m|/n |acc(B_m) - conf(B_m)| over
    bins of equal width, of which bin m holds the probabilities in ((m-1)/M, m/M].

    Args:
        probability: (N,) of the predicted class, 0..1. right: (N,) bool.

    Returns:
        0 (as sure as it is right) to 1; NaN if a probability is.
    """
    probability = probability.double()
    bins = (probability * num_bins).ceil().sub(1).clamp(0, num_bins - 1).nan_to_num(0).long()
    # |B_m| * (acc - conf) is the difference of the two sums over the bin.
    gaps = torch.zeros(num_bins, dtype=torch.float64)
    gaps.index_add_(0, bins, right.double() - probability)
    return gaps.abs().sum().item() / max(1, len(probability))


def finite(value: float) -> float | None:
    """None for NaN and infinities, which JSON has no words for."""
    return value if math.isfinite(value) else None


def per_class(confusion: Tensor) -> list[dict[str, float]]:
    """count, precision, recall and F1 of each class; 0 where a denominator is 0."""
    right = confusion.diagonal().tolist()
    true, said = confusion.sum(dim=1).tolist(), confusion.sum(dim=0).tolist()
    return [
        {
            "count": true[k],
            "precision": right[k] / said[k] if said[k] else 0.0,
            "recall": right[k] / true[k] if true[k] else 0.0,
            "f1": 2 * right[k] / (true[k] + said[k]) if true[k] + said[k] else 0.0,
        }
        for k in range(len(right))
    ]

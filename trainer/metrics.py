"""Loss and accuracy over batches, without waiting for the device at every step."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Metrics:
    """loss: mean per picture. accuracy: share of right pictures, 0..1. num_images: how many.
    seconds: what it took. confusion: (K, K) int64, rows the true class, columns the predicted;
    None if not asked for."""

    loss: float
    accuracy: float
    num_images: int
    seconds: float = 0.0
    confusion: Tensor | None = None

    @property
    def images_per_s(self) -> float:
        return self.num_images / self.seconds if self.seconds > 0 else 0.0


@dataclass
class Meter:
    """Collects references to what each batch gave; `read` turns them into numbers.

    Sums are exact (`math.fsum` over the batches), so that a result does not depend on how often
    the meter was read.
    """

    with_confusion: bool = False
    losses: list[float] = field(default_factory=list)  # per batch: mean loss * pictures
    num_images: int = 0
    num_correct: int = 0
    confusion: Tensor | None = None
    _waiting: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)

    def add(self, loss: Tensor, logits: Tensor, targets: Tensor) -> None:
        """loss: 0-dim, the batch's mean. logits: (N, K). targets: (N,) int64, or (N, K)
        probabilities, whose largest is the label."""
        self._waiting.append((loss.detach(), logits.detach(), targets))

    def read(self, seconds: float = 0.0) -> Metrics:
        """Everything added so far, and how long it took. Waits for the device."""
        if self._waiting:
            losses, logits, targets = zip(*self._waiting, strict=True)
            self._waiting = []
            counts = [len(batch) for batch in logits]
            means = torch.stack(losses).tolist()  # the sync
            self.losses += [mean * count for mean, count in zip(means, counts, strict=True)]
            self.num_images += sum(counts)
            labels = torch.cat([t if t.ndim == 1 else t.argmax(dim=1) for t in targets])
            predicted = torch.cat([batch.argmax(dim=1) for batch in logits])
            self.num_correct += int((predicted == labels).sum())
            if self.with_confusion:
                self._count(labels, predicted, logits[0].shape[1])
        count = max(1, self.num_images)
        loss = math.fsum(self.losses) / count if all(map(math.isfinite, self.losses)) else math.nan
        return Metrics(loss, self.num_correct / count, self.num_images, seconds, self.confusion)

    def _count(self, labels: Tensor, predicted: Tensor, num_classes: int) -> None:
        cells = torch.bincount(labels * num_classes + predicted, minlength=num_classes**2)
        counts = cells.view(num_classes, num_classes).cpu()
        self.confusion = counts if self.confusion is None else self.confusion + counts

    def reset(self) -> None:
        self.losses, self.num_images, self.num_correct = [], 0, 0
        self.confusion, self._waiting = None, []

    def state_dict(self) -> dict[str, Any]:
        self.read()
        return {
            "losses": list(self.losses),
            "num_images": self.num_images,
            "num_correct": self.num_correct,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.reset()
        self.losses = list(state["losses"])
        self.num_images, self.num_correct = state["num_images"], state["num_correct"]


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

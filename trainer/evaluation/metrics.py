"""Loss and accuracy over batches, without waiting for the device at every step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

MAX_PENDING_BATCHES = 50  # whose logits are held
MAX_PENDING_LOGITS = 2**24  # numbers in them, about: 64 MB
BLOCK = 2**14  # numbers for which `TensorBuffer` takes memory at once


@dataclass(frozen=True)
class Metrics:
    """Result of a pass. loss: mean per image. accuracy: share of right images, 0..1.
    seconds: what it took. balanced_accuracy: mean over the classes that have images of the share of
    them that is right. macro_f1: mean of F1 over the classes that have images or were predicted.
    Both None where the classes were not counted."""

    loss: float
    accuracy: float
    num_images: int
    seconds: float = 0.0
    balanced_accuracy: float | None = None
    macro_f1: float | None = None

    @property
    def images_per_s(self) -> float:
        return self.num_images / self.seconds if self.seconds > 0 else 0.0


def no_better_than_guessing(labels: Tensor, classes: Sequence[str], accuracy: float) -> str:
    """Line that says so if always predicting the largest class is right as often; else nothing.

    Args:
        labels: (N,) int64, of the images that were measured.
        accuracy: 0..1.
    """
    counts = labels.bincount(minlength=len(classes))
    largest, share = int(counts.argmax()), float(counts.max()) / max(1, len(labels))
    if accuracy > share:
        return ""
    return (
        f"no better than always predicting {classes[largest]}, which is right for {share:.4f} of "
        "these images"
    )


def count_by_class(labels: Tensor, predicted: Tensor, num_classes: int) -> Tensor:
    """(3, K) int64: images of each class, those predicted as it, and those of both.

    Args:
        labels, predicted: (N,) int64.
    """
    # Not torch.bincount, which waits for the device.
    counts = torch.zeros(3, num_classes, dtype=torch.int64, device=labels.device)
    ones = torch.ones_like(labels)
    counts[0].index_add_(0, labels, ones)
    counts[1].index_add_(0, predicted, ones)
    counts[2].index_add_(0, labels, (labels == predicted).long())
    return counts


def averages_of(counts: Tensor) -> tuple[float, float]:
    """Balanced accuracy and macro F1 of counts as of `count_by_class`, in float64."""
    true, predicted, right = counts
    recalls = (right / true)[true > 0]
    f1 = (2 * right / (true + predicted))[true + predicted > 0]
    return tuple(float(x.mean()) if len(x) else 0.0 for x in (recalls, f1))  # type: ignore[return-value]


@dataclass
class TensorBuffer:
    """Numbers from one batch after another, on their device, in blocks of memory that are taken at
    their full size. Many small tensors that stay, among the large ones of each step that come and
    go, would break the C library's memory into pieces that the next large one does not fit."""

    blocks: list[Tensor] = field(default_factory=list)
    used: int = 0  # of the last block

    def add(self, values: Tensor) -> None:
        """values: (N,)."""
        last = self.blocks[-1] if self.blocks else values[:0]
        if self.used + len(values) > len(last) or values.dtype != last.dtype:
            if self.blocks:
                self.blocks[-1] = last[: self.used]
            with torch.inference_mode(False):  # can be written to in both modes
                last = values.new_empty(max(BLOCK, len(values)))
            self.blocks.append(last)
            self.used = 0
        last[self.used : self.used + len(values)] = values
        self.used += len(values)

    def all(self) -> Tensor:
        """(M,), of what has been added, in order; there must be something."""
        return torch.cat([*self.blocks[:-1], self.blocks[-1][: self.used]])

    def clear(self) -> None:
        self.blocks, self.used = self.blocks[-1:], 0


class Gathering(Protocol):
    """Interface of several processes, each of which has a part of the batches."""

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, in order."""

    def send_to_main(self, value: Any) -> list[Any] | None:
        """The same for the first process; None for the others."""


@dataclass
class Meter:
    """Mean loss and accuracy over batches; `read` turns what was collected into numbers.

    The losses are summed in float64, in the order of the batches, so that a result does not depend
    on how often the meter was read. Each term, a float32 times a count of images, is exact; after n
    batches the rounding of the sum is below n * 2**-53 of it, far below what float32 can show.
    """

    num_classes: int = 0  # whose images are counted one by one; 0: they are not
    loss_sum: float = 0.0  # of the images' losses
    num_images: int = 0
    num_correct: int = 0
    _pending: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)
    _num_logits: int = 0  # in the pending batches
    # Of some batches after others: their losses, then how many images were right.
    _folded: TensorBuffer = field(default_factory=TensorBuffer)
    _sizes: list[list[int]] = field(default_factory=list)  # of those batches
    # Images of each class, those predicted as it, and those of both: (3, K) int64 on the device.
    _by_class: Tensor | None = None

    def add(self, loss: Tensor, logits: Tensor, targets: Tensor) -> None:
        """loss: 0-dim, the batch's mean. logits: (N, K). targets: (N,) int64, or (N, K)
        probabilities, whose largest is the label."""
        self._pending.append((loss.detach(), logits.detach(), targets))
        self._num_logits += logits.numel()
        if len(self._pending) == MAX_PENDING_BATCHES or self._num_logits >= MAX_PENDING_LOGITS:
            self._fold()

    def _fold(self) -> None:
        """Logits to a count, on the device and without waiting for it: of a large split with many
        classes they would not all fit."""
        losses, logits, targets = zip(*self._pending, strict=True)
        if self._num_logits < MAX_PENDING_LOGITS:
            predicted = torch.cat(logits).argmax(dim=1)
        else:  # a copy would cost more than a call for each
            predicted = torch.cat([x.argmax(dim=1) for x in logits])
        self._pending, self._num_logits = [], 0
        labels = torch.cat([t if t.ndim == 1 else t.argmax(dim=1) for t in targets])
        if self.num_classes:
            counts = count_by_class(labels, predicted, self.num_classes)
            self._by_class = counts if self._by_class is None else self._by_class + counts
        # With the losses, so that there is one sync. On MPS, which has no float64, float32 holds
        # the losses as they are, and counts up to 2**24 of right images in one fold.
        dtype = torch.float32 if labels.device.type == "mps" else torch.float64
        num_correct = (predicted == labels).sum()
        self._folded.add(torch.cat([torch.stack(losses).to(dtype), num_correct.to(dtype)[None]]))
        self._sizes.append([len(x) for x in logits])

    def read(self, seconds: float = 0.0) -> Metrics:
        """Everything added so far, and how long it took. Waits for the device."""
        if self._pending:
            self._fold()
        values = iter(self._folded.all().tolist() if self._sizes else ())  # the sync
        for counts in self._sizes:
            for count in counts:
                self.loss_sum += next(values) * count
            self.num_images += sum(counts)
            self.num_correct += int(next(values))
        self._folded.clear()
        self._sizes = []
        count = max(1, self.num_images)
        loss = self.loss_sum / count if math.isfinite(self.loss_sum) else math.nan
        balanced, f1 = None, None
        if self._by_class is not None:
            balanced, f1 = averages_of(self._by_class.cpu().double())
        return Metrics(loss, self.num_correct / count, self.num_images, seconds, balanced, f1)

    def merge(self, processes: Gathering) -> None:
        """Add what the other processes have collected. Each of them must call it."""
        parts = processes.gather(self.state_dict())
        self.loss_sum = sum(part["loss_sum"] for part in parts)
        self.num_images = sum(part["num_images"] for part in parts)
        self.num_correct = sum(part["num_correct"] for part in parts)
        if self.num_classes:
            counts = processes.gather(None if self._by_class is None else self._by_class.cpu())
            self._by_class = torch.stack([one for one in counts if one is not None]).sum(0)

    def reset(self) -> None:
        self.loss_sum, self.num_images, self.num_correct = 0.0, 0, 0
        self._pending, self._num_logits, self._sizes, self._by_class = [], 0, [], None
        self._folded.clear()

    def state_dict(self) -> dict[str, Any]:
        self.read()
        return {
            "loss_sum": self.loss_sum,
            "num_images": self.num_images,
            "num_correct": self.num_correct,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """State of this version or an earlier one, whose sum was a list of terms, or a whole number
        of the smallest float in hexadecimal."""
        self.reset()
        loss_sum = state["loss_sum"] if "loss_sum" in state else sum(state["losses"])
        if isinstance(loss_sum, str):
            loss_sum = int(loss_sum, 16) / 2**1074 if state["is_finite"] else math.nan
        self.loss_sum = loss_sum
        self.num_images, self.num_correct = state["num_images"], state["num_correct"]

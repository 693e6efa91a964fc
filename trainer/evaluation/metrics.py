"""Loss and accuracy over batches, without waiting for the device at every step."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

MOST_WAITING = 50  # batches whose logits are held
MOST_LOGITS = 2**24  # numbers in them, about: 64 MB
COUNT_BITS = 24  # whole numbers below 2**24 are exact in float32
BLOCK = 2**14  # numbers for which `Gathered` takes memory at once
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


def no_better_than_guessing(labels: Tensor, classes: Sequence[str], accuracy: float) -> str:
    """A line if always saying the largest class would be right as often; else nothing.

    Args:
        labels: (N,) int64, of the images that were measured.
        accuracy: 0..1.
    """
    counts = labels.bincount(minlength=len(classes))
    largest, share = int(counts.argmax()), float(counts.max()) / max(1, len(labels))
    if accuracy > share:
        return ""
    return (
        f"no better than always saying {classes[largest]}, which is right for {share:.4f} of these "
        "images"
    )


@dataclass
class Gathered:
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
    _num_logits: int = 0  # that wait
    # Of some batches after others: their losses, then how many pictures were right, as the high
    # and the low bits of that.
    _folded: Gathered = field(default_factory=Gathered)
    _sizes: list[list[int]] = field(default_factory=list)  # of those batches

    def add(self, loss: Tensor, logits: Tensor, targets: Tensor) -> None:
        """loss: 0-dim, the batch's mean. logits: (N, K). targets: (N,) int64, or (N, K)
        probabilities, whose largest is the label."""
        self._waiting.append((loss.detach(), logits.detach(), targets))
        self._num_logits += logits.numel()
        if len(self._waiting) == MOST_WAITING or self._num_logits >= MOST_LOGITS:
            self._fold()

    def _fold(self) -> None:
        """Logits to a count, on the device and without waiting for it: of a large split with many
        classes they would not all fit."""
        losses, logits, targets = zip(*self._waiting, strict=True)
        if self._num_logits < MOST_LOGITS:
            said = torch.cat(logits).argmax(dim=1)
        else:  # a copy would cost more than a call for each
            said = torch.cat([x.argmax(dim=1) for x in logits])
        self._waiting, self._num_logits = [], 0
        labels = torch.cat([t if t.ndim == 1 else t.argmax(dim=1) for t in targets])
        num_correct = (said == labels).sum()
        means = torch.stack(losses)
        means = means.to(torch.promote_types(means.dtype, torch.float32))
        # With the losses, so that there is one sync; in two parts, for float32 may be all there is.
        parts = torch.stack([num_correct >> COUNT_BITS, num_correct & ((1 << COUNT_BITS) - 1)])
        self._folded.add(torch.cat([means, parts]))
        self._sizes.append([len(x) for x in logits])

    def read(self, seconds: float = 0.0) -> Metrics:
        """Everything added so far, and how long it took. Waits for the device."""
        if self._waiting:
            self._fold()
        values = iter(self._folded.all().tolist() if self._sizes else ())  # the sync
        for counts in self._sizes:
            for count in counts:
                self._add_loss(next(values) * count)
            self.num_images += sum(counts)
            self.num_correct += (int(next(values)) << COUNT_BITS) + int(next(values))
        self._folded.clear()
        self._sizes = []
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
        self._waiting, self._num_logits, self._sizes = [], 0, []
        self._folded.clear()

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


def finite(value: float) -> float | None:
    """None for NaN and infinities, which JSON has no words for."""
    return value if math.isfinite(value) else None


def json_of(value: Any, **options: Any) -> str:
    """Any nest of values as JSON that every reader takes: null for what is no finite number, where
    Python's own writes NaN."""
    return json.dumps(_finite_nest(value), allow_nan=False, **options)


def _finite_nest(value: Any) -> Any:
    if isinstance(value, float):
        return finite(value)
    if isinstance(value, dict):
        return {key: _finite_nest(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite_nest(item) for item in value]
    return value

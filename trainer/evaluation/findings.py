"""A close look at a split: each image's prediction, the confusion of its classes, the
calibration, the worst mistakes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from trainer.evaluation.metrics import Gathering, Meter, TensorBuffer
from trainer.losses import probabilities
from trainer.text.json_text import finite

CALIBRATION_BINS = 15  # as Guo et al. 2017 have them, section 5
TOP = 5


@dataclass(frozen=True)
class Mistake:
    """An image whose most probable class is not its own.

    index: its position in the split. label: its class. predicted: the most probable class.
    probability: of `predicted`, 0..1.
    """

    index: int
    label: int
    predicted: int
    probability: float


@dataclass(frozen=True)
class Confusion:
    """Confusion of K classes: how many images of each were predicted as each. It grows with the
    number of images, not with K**2: a model may have fifty thousand classes.

    cells: (M, 3) int64, on the CPU: true class, most probable class, count (never 0), in the order
    of the first two.
    """

    cells: Tensor
    num_classes: int

    def dense(self) -> Tensor:
        """(K, K) int64, rows the true class, columns the most probable one."""
        true, predicted, counts = self.cells.unbind(1)
        matrix = counts.new_zeros(self.num_classes, self.num_classes)
        matrix[true, predicted] = counts
        return matrix


@dataclass(frozen=True)
class Findings:
    """Findings of the evaluation of a split.

    confusion: see `Confusion`.
    top5: share of images whose class is among the min(5, K) most probable.
    calibration_error: see `calibration_error`, 0..1.
    mistakes: the most confident first; equal ones in the order of the split.
    """

    confusion: Confusion
    top5: float
    calibration_error: float
    mistakes: list[Mistake]


@dataclass(frozen=True)
class ImagePredictions:
    """Prediction for each image of a split, in its order, on the CPU.

    labels, predicted: (N,) int64, the class and the most probable one.
    top: (N, min(5, K)) int64, the most probable classes, in order, `predicted` first.
    probabilities: (N, min(5, K)) float32 of these, 0..1.
    losses: (N,) float32, -ln of the label's probability.
    """

    labels: Tensor
    predicted: Tensor
    top: Tensor
    probabilities: Tensor
    losses: Tensor


@dataclass
class Examiner(Meter):
    """A meter that also keeps, of each image, its class, the five most probable ones with their
    probabilities, and that of its class. The images must come in the order of the split. No sync
    but in `read`, `findings` and `predictions`.

    num_mistakes: how many mistakes `findings` lists, at most.
    probabilities: how they follow from the logits, see `losses.probabilities`.
    """

    num_mistakes: int = 16
    probabilities: str = "softmax"
    _seen: tuple[TensorBuffer, ...] = field(default_factory=lambda: _columns())
    _num_classes: int = 0
    _sizes_seen: list[int] = field(default_factory=list)  # of the batches

    def add(self, loss: Tensor, logits: Tensor, targets: Tensor) -> None:
        super().add(loss, logits, targets)
        finite = logits.detach().isfinite().all(dim=1)
        logits = logits.detach().float()
        labels = targets if targets.ndim == 1 else targets.argmax(dim=1)
        predicted = logits.argmax(dim=1)
        top = with_first(logits.topk(min(TOP, logits.shape[1])).indices, predicted)
        of_top = probabilities(logits, self.probabilities).gather(1, top)
        losses = image_losses(logits, labels, self.probabilities)
        columns = (labels, predicted, top.flatten(), of_top.flatten(), losses, finite)
        for column, values in zip(self._seen, columns, strict=True):
            column.add(values)
        self._num_classes = logits.shape[1]
        self._sizes_seen.append(len(logits))

    def merge(self, processes: Gathering) -> None:
        """The first process then has the images of all, in the order of the split, of whose batches
        each took one in turn."""
        super().merge(processes)
        parts = processes.send_to_main((self._by_batch(), self._num_classes))
        if parts is None:
            return
        batches = itertools.zip_longest(*(columns for columns, _ in parts))
        self._seen, self._sizes_seen = _columns(), []
        for turn in batches:
            for columns in turn:
                for column, values in zip(self._seen, columns or (), strict=False):
                    column.add(values)
        self._num_classes = max(num_classes for _, num_classes in parts)

    def _by_batch(self) -> list[tuple[Tensor, ...]]:
        """Columns of each batch, on the CPU."""
        if not self._sizes_seen:
            return []
        columns = [column.all().cpu() for column in self._seen]
        num_images = sum(self._sizes_seen)
        parts = [
            column.split([size * len(column) // num_images for size in self._sizes_seen])
            for column in columns
        ]
        return list(zip(*parts, strict=True))

    def predictions(self) -> ImagePredictions:
        """Of everything added so far. Waits for the device."""
        labels, predicted, top, of_top, losses, _ = (column.all().cpu() for column in self._seen)
        return ImagePredictions(
            labels, predicted, top.view(len(labels), -1), of_top.view(len(labels), -1), losses
        )

    def findings(self) -> Findings:
        """Of everything added so far. Waits for the device."""
        found = self.predictions()
        labels, predicted, probability = found.labels, found.predicted, found.probabilities[:, 0]
        in_top = (found.top == labels[:, None]).any(dim=1)
        wrong = (predicted != labels).nonzero().squeeze(1)
        surest = probability[wrong].nan_to_num(-1).argsort(descending=True, stable=True)
        return Findings(
            count_confusion(labels, predicted, self._num_classes),
            in_top.double().mean().item(),
            calibration_error(probability, predicted == labels),
            [
                Mistake(i, int(labels[i]), int(predicted[i]), probability[i].item())
                for i in wrong[surest[: self.num_mistakes]].tolist()
            ],
        )

    def num_not_finite(self) -> int:
        """Images for which the model gave NaN or infinity. Waits for the device."""
        return int((~self._seen[-1].all()).sum())

    def reset(self) -> None:
        super().reset()
        self._seen, self._num_classes, self._sizes_seen = _columns(), 0, []


def image_losses(logits: Tensor, labels: Tensor, how: str) -> Tensor:
    """-ln of the label's probability, (N,): the cross-entropy of each image.

    Args:
        logits: (N, K) float. labels: (N,) int64. how: see `losses.probabilities`.
    """
    if how == "softmax":  # of the logits: a probability may be too small for a float
        return F.cross_entropy(logits, labels, reduction="none")
    return -probabilities(logits, how).gather(1, labels[:, None]).squeeze(1).log()


def _columns() -> tuple[TensorBuffer, ...]:
    return tuple(TensorBuffer() for _ in range(6))


def with_first(top: Tensor, predicted: Tensor) -> Tensor:
    """The most probable classes with the predicted one in front: of equal ones `topk` and `argmax`
    may take different ones first.

    Args:
        top: (N, k) int64. predicted: (N,) int64.
    """
    first = predicted[:, None]
    others = (top != first).long().argsort(dim=1, descending=True, stable=True)
    return torch.cat([first, top.gather(1, others)[:, : top.shape[1] - 1]], dim=1)


def count_confusion(labels: Tensor, predicted: Tensor, num_classes: int) -> Confusion:
    """labels, predicted: (N,) int64, 0..num_classes-1."""
    places, counts = torch.unique(labels * num_classes + predicted, return_counts=True)
    return Confusion(
        torch.stack([places // num_classes, places % num_classes, counts], dim=1), num_classes
    )


def calibration_error(
    probability: Tensor, right: Tensor, num_bins: int = CALIBRATION_BINS
) -> float:
    """Expected calibration error of Guo et al. 2017, eq. 3: distance of the probabilities of the
    predicted classes from the share that is right, sum_m |B_m|/n |acc(B_m) - conf(B_m)| over
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


def mistakes_as_json(
    mistakes: Sequence[Mistake],
    classes: Sequence[str],
    index_at: Callable[[int], int],
    file_at: Callable[[int], str | None],
) -> list[dict[str, Any]]:
    """`index` in the dataset's own files, as in predictions.csv, `file` below the dataset's root
    (None without files), `label` and `predicted` by name, `probability` (None if it is not finite);
    `label_index` and `predicted_index` are the same classes by position, for two may have the same
    name.

    Args:
        index_at, file_at: from a position in the split to its place and its file.
    """
    return [
        {
            "index": index_at(m.index), "file": file_at(m.index), "label": classes[m.label],
            "predicted": classes[m.predicted], "probability": finite(m.probability),
            "label_index": m.label, "predicted_index": m.predicted,
        }
        for m in mistakes
    ]  # fmt: skip

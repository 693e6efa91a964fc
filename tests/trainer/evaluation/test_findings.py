"""Figures of a split against scikit-learn's, and against tables by hand."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics
from torch import Tensor
from torch.nn import functional as F

from data.types import Split
from tests.helpers.commands import ROOT
from trainer.evaluation.confusion import averages, per_class
from trainer.evaluation.findings import (
    Confusion,
    Examiner,
    Findings,
    Mistake,
    calibration_error,
    count_confusion,
    mistakes_as_json,
)
from trainer.evaluation.metrics import Meter

K = 8


def some_logits(num_images: int = 300, num_classes: int = K) -> tuple[Tensor, Tensor]:
    """Logits that are right about half of the time, and labels: class 0 has no images, class 1
    is never predicted."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(1, num_classes, (num_images,), generator=generator)
    logits = torch.randn(num_images, num_classes, generator=generator)
    logits += 2 * F.one_hot(labels, num_classes)
    logits[:, 1] = -9
    return logits, labels


def examined(logits: Tensor, labels: Tensor, batch_size: int = 64, **options: int) -> Findings:
    examiner = Examiner(**options)
    for x, y in zip(logits.split(batch_size), labels.split(batch_size), strict=True):
        examiner.add(F.cross_entropy(x, y), x, y)
    return examiner.findings()


def figures_of(confusion: Confusion) -> list[dict[str, float]]:
    return per_class(confusion.cells.tolist(), confusion.num_classes)


def num_in(confusion: Confusion) -> int:
    return int(confusion.cells[:, 2].sum())


def test_confusion_precision_recall_and_f1_are_scikit_learns() -> None:
    logits, labels = some_logits()
    said = logits.argmax(1)
    confusion = examined(logits, labels).confusion
    truth = sklearn_metrics.confusion_matrix(labels, said, labels=range(K))
    np.testing.assert_array_equal(confusion.dense(), truth)
    rows = figures_of(confusion)
    expected = sklearn_metrics.precision_recall_fscore_support(
        labels, said, labels=range(K), zero_division=0.0
    )
    for key, column in zip(("precision", "recall", "f1", "count"), expected, strict=True):
        np.testing.assert_allclose([row[key] for row in rows], column, rtol=1e-12)
    assert rows[0]["count"] == 0
    assert rows[0]["recall"] == 0
    assert rows[1]["precision"] == 0


@pytest.mark.parametrize("num_classes", [K, 3 * K])
def test_averages_are_scikit_learns(num_classes: int) -> None:
    """Over the classes that occur: class 0 has no images and class 1 is never predicted; of the
    others, some of many neither occur nor are predicted."""
    logits, labels = some_logits(60 if num_classes > K else 300, num_classes)
    logits[:, 5::7] = -9
    keep = torch.isin(labels % 7, torch.tensor([5]), invert=True)
    logits, labels = logits[keep], labels[keep]
    confusion = examined(logits, labels).confusion
    found = averages(confusion.cells.tolist(), num_classes)
    for kind in ("macro", "weighted"):
        expected = sklearn_metrics.precision_recall_fscore_support(
            labels, logits.argmax(1), average=kind, zero_division=0.0
        )
        values = [found[kind][key] for key in ("precision", "recall", "f1")]
        assert values == pytest.approx(expected[:3], rel=1e-12)
        assert 0.2 < values[0] < 1
    assert found["macro"] != found["weighted"]
    whole = sum(row["f1"] for row in figures_of(confusion)) / num_classes
    assert found["macro"]["f1"] > whole  # classes that do not occur are no mistakes


def test_mistakes_by_name_and_file() -> None:
    split = Split(
        torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1]), torch.tensor([3, 1]),
        ["a/0.png", "b/1.png", "a/2.png", "a/3.png"],
        torch.tensor([30, 10]),
    )  # fmt: skip
    rows = mistakes_as_json(
        [Mistake(0, 0, 1, 0.5), Mistake(1, 1, 0, math.nan)], "ab", split.index_at, split.file_at
    )
    assert rows[0] == {
        "index": 30, "file": "a/3.png", "label": "a", "predicted": "b", "probability": 0.5,
        "label_index": 0, "predicted_index": 1,
    }  # fmt: skip
    assert (rows[1]["file"], rows[1]["probability"]) == ("b/1.png", None)
    assert Split(split.images, split.labels).file_at(0) is None


def test_top_5_is_scikit_learns() -> None:
    logits, labels = some_logits()
    expected = sklearn_metrics.top_k_accuracy_score(labels, logits, k=5, labels=range(K))
    assert examined(logits, labels).top5 == pytest.approx(expected, abs=1e-12)
    assert 0.5 < expected < 0.99
    assert examined(*some_logits(num_classes=4)).top5 == 1  # any of four is among the first five


def test_calibration_error_by_hand() -> None:
    """Of 15 bins: two images in the last, a right and a wrong one; one in the ninth."""
    probability = torch.tensor([0.95, 0.97, 0.55], dtype=torch.float64)
    right = torch.tensor([True, False, True])
    last, ninth = abs(1 / 2 - 0.96), abs(1 - 0.55)
    expected = 2 / 3 * last + 1 / 3 * ninth
    assert calibration_error(probability, right) == pytest.approx(expected, abs=1e-12)


def test_calibration_error_as_its_paper_has_it() -> None:
    """Guo et al. 2017, eq. 3, bin by bin; the upper border of a bin belongs to it."""
    generator = torch.Generator().manual_seed(1)
    probability = torch.rand(1000, generator=generator, dtype=torch.float64)
    probability[:15] = torch.arange(1, 16) / 15
    right = torch.rand(1000, generator=generator) < probability**2
    p, r, expected = probability.numpy(), right.numpy(), 0.0
    for m in range(15):
        inside = (p > m / 15) & (p <= (m + 1) / 15)
        if inside.any():
            expected += inside.sum() / 1000 * abs(r[inside].mean() - p[inside].mean())
    assert calibration_error(probability, right) == pytest.approx(expected, abs=1e-12)
    assert expected > 0.1


@pytest.mark.parametrize(("p", "expected"), [(1.0, 0.25), (0.75, 0.0), (0.5, 0.25)])
def test_who_is_as_sure_as_right_is_calibrated(p: float, expected: float) -> None:
    right = torch.tensor([True, True, True, False])
    assert calibration_error(torch.full((4,), p), right) == pytest.approx(expected, abs=1e-7)


def test_the_surest_mistakes_come_first() -> None:
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0])
    logits = torch.zeros(7, 3)
    said = [(0, 9.0), (2, 2.0), (1, 5.0), (2, 2.0), (1, 0.1), (0, 7.0), (2, 2.0)]
    for i, (k, logit) in enumerate(said):
        logits[i, k] = logit

    def sure(logit: float) -> float:
        return math.exp(logit) / (math.exp(logit) + 2)

    mistakes = examined(logits, labels, batch_size=2, num_mistakes=4).mistakes
    assert [(m.index, m.label, m.predicted) for m in mistakes] == [
        (5, 2, 0), (2, 2, 1), (1, 1, 2), (3, 0, 2),  # 1, 3 and 6 are equally sure
    ]  # fmt: skip
    assert mistakes[0] == Mistake(5, 2, 0, pytest.approx(sure(7), abs=1e-6))
    assert len(examined(logits, labels).mistakes) == 5


def test_findings_know_no_batches() -> None:
    logits, labels = some_logits()
    whole, pieces = examined(logits, labels, 300), examined(logits, labels, 7)
    assert torch.equal(whole.confusion.cells, pieces.confusion.cells)
    assert whole.mistakes == pieces.mistakes
    assert (whole.top5, whole.calibration_error) == (pieces.top5, pieces.calibration_error)


def test_probabilities_as_targets_count_by_the_largest() -> None:
    logits, labels = some_logits()
    soft = 0.6 * F.one_hot(labels, K) + 0.05
    hard, mixed = Examiner(), Examiner()
    hard.add(F.cross_entropy(logits, labels), logits, labels)
    mixed.add(F.cross_entropy(logits, soft), logits, soft)
    assert torch.equal(hard.findings().confusion.cells, mixed.findings().confusion.cells)
    assert hard.read().accuracy == mixed.read().accuracy


def test_an_examiner_measures_as_a_meter_does() -> None:
    logits, labels = some_logits()
    meter, examiner = Meter(), Examiner()
    for x, y in zip(logits.split(50), labels.split(50), strict=True):
        for each in (meter, examiner):
            each.add(F.cross_entropy(x, y), x, y)
    assert meter.read(seconds=2.0) == examiner.read(seconds=2.0)
    truth = F.cross_entropy(logits, labels).item()
    assert meter.read().loss == pytest.approx(truth, rel=1e-5)
    assert meter.read().accuracy == (logits.argmax(1) == labels).double().mean().item()
    before = examiner.findings()
    examiner.reset()
    examiner.add(F.cross_entropy(logits[:9], labels[:9]), logits[:9], labels[:9])
    assert num_in(examiner.findings().confusion) == 9
    assert num_in(before.confusion) == 300


def test_logits_of_half_precision_and_not_finite_ones() -> None:
    logits, labels = some_logits()
    half = examined(logits.bfloat16(), labels)
    assert half.calibration_error == pytest.approx(
        examined(logits, labels).calibration_error, abs=0.02
    )
    logits[labels != 2] = torch.nan
    broken = examined(logits, labels)
    assert math.isnan(broken.calibration_error)
    assert num_in(broken.confusion) == 300
    assert not math.isnan(broken.mistakes[0].probability)  # what is sure comes before what is not


def test_counts_are_whole_numbers() -> None:
    labels, said = torch.tensor([0, 0, 2]), torch.tensor([1, 1, 2])
    confusion = count_confusion(labels, said, 3)
    assert confusion.cells.tolist() == [[0, 1, 2], [2, 2, 1]]
    assert confusion.dense().tolist() == [[0, 2, 0], [0, 0, 0], [0, 0, 1]]
    assert confusion.cells.dtype == confusion.dense().dtype == torch.int64
    assert [row["count"] for row in figures_of(confusion)] == [2, 0, 1]


def test_no_images_are_no_confusion() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    confusion = count_confusion(none, none, 2)
    assert confusion.cells.shape == (0, 3)
    assert confusion.dense().tolist() == [[0, 0], [0, 0]]
    assert [row["f1"] for row in figures_of(confusion)] == [0, 0]


PROBE = """
import resource, sys
import torch
from torch.nn import functional as F
from trainer.evaluation.confusion import per_class
from trainer.evaluation.findings import Confusion, Examiner
from trainer.system import memory

memory.keep_freed_memory()
many, batch_size, num_batches = 50_000, 64, 40
examiner, generator = Examiner(), torch.Generator().manual_seed(0)
if "dense" in sys.argv:
    Confusion(torch.tensor([[0, 0, 1]]), many).dense()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for n in range(num_batches):
    labels = torch.randint(0, many, (batch_size,), generator=generator)
    logits = torch.zeros(batch_size, many).scatter_(1, (labels + n % 2)[:, None] % many, 9.0)
    examiner.add(F.cross_entropy(logits, labels), logits, labels)
accuracy, findings = examiner.read().accuracy, examiner.findings()
rows = per_class(findings.confusion.cells.tolist(), many)
assert int(findings.confusion.cells[:, 2].sum()) == batch_size * num_batches
assert sum(row["count"] for row in rows) == batch_size * num_batches
assert accuracy == 0.5 and len(rows) == many
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_square_of_the_classes() -> None:
    """A process of its own tells what it took, in MiB, and may have no more than 4 GiB: a matrix
    of 50,000 classes would have 20 GB, which the twin asks for. All the logits are 512 MB."""

    def probe(*argv: str) -> subprocess.CompletedProcess[str]:
        limited = "import resource; resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))\n"
        return subprocess.run(
            [sys.executable, "-c", limited + PROBE, *argv],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip

    done = probe()
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 300
    dense = probe("dense")
    assert dense.returncode != 0
    assert "allocate" in dense.stderr

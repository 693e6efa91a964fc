"""Parts of several processes: together they are the batch that one process would have."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from data.augment.policy import Augment
from data.loading.batches import Batches
from data.loading.part import Part
from tests.helpers.batches_parts import CPU, plain, split

CHANGES = {"none": None, "flips": Augment(4, True, flip=0.5, crop_padding=0.2, rotation=10),
           "turns": Augment(4, True, flip=0.5, alternate=True, crop_padding=0.2),
           "mixing": Augment(23, True, flip=0.5, cutout=0.3, mixup=1.0, cutmix=1.0)}  # fmt: skip


def batches(part: Part | None, size: int, **options: object) -> list[tuple[Tensor, Tensor]]:
    source = Batches(split(), size, plain(), CPU, seed=3, part=part, **options)  # type: ignore[arg-type]
    return list(source.epoch(2))


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("number", [2, 3])
def test_the_parts_of_a_training_batch(number: int, change: str, resident: bool) -> None:
    """23 images in batches of 9, 9 and 5; the last is too small for three processes."""
    options = {"shuffle": True, "augment": CHANGES[change], "resident": resident}
    whole = batches(None, 9, **options)
    parts = [batches(Part(rank, number), 9, **options) for rank in range(number)]
    for wanted, *found in zip(whole, *parts, strict=True):
        if len(wanted[0]) < 2 * number:
            for images, targets in found:
                assert torch.equal(images, wanted[0])
                assert torch.equal(targets, wanted[1])
            continue
        for i in range(2):
            torch.testing.assert_close(torch.cat([part[i] for part in found]), wanted[i])
        assert max(len(part[0]) for part in found) - min(len(part[0]) for part in found) <= 1


def test_shares() -> None:
    for number in range(1, 40):
        parts = [Part(rank, 4) for rank in range(4)]
        for part in parts:
            part.begin(number)
        assert sum(part.share for part in parts) == pytest.approx(1)
        assert {part.is_whole for part in parts} == {number < 8}


def test_the_parts_of_an_evaluation_are_whole_batches() -> None:
    whole = batches(None, 5)
    parts = [batches(Part(rank, 3), 5) for rank in range(3)]
    assert [len(part) for part in parts] == [2, 2, 1]
    for number, (images, labels) in enumerate(whole):
        found = parts[number % 3][number // 3]
        assert torch.equal(found[0], images)
        assert torch.equal(found[1], labels)
    lengths = [Batches(split(), 5, plain(), CPU, part=Part(rank, 3)) for rank in range(3)]
    assert [(len(one), one.num_rounds, one.num_images) for one in lengths] == [
        (2, 2, 23), (2, 2, 23), (1, 2, 23)
    ]  # fmt: skip

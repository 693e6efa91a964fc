"""TrivialAugment and random resized crop against torchvision's."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision.transforms import RandomResizedCrop, v2
from torchvision.transforms.v2 import functional as F

from data.augment import Augment
from data.augment.resized_crop import cropped, drawn_boxes, random_resized_crop
from data.augment.trivial import LEVELS, OPERATIONS, trivial_augment
from tests.helpers import results, several
from tests.helpers.commands import run_trainer, train
from tests.helpers.small_sweeps import SMALL

SPACE = v2.TrivialAugmentWide._AUGMENTATION_SPACE


def pictures(number: int, channels: int = 3, height: int = 40, width: int = 48) -> Tensor:
    """Smooth images over the whole range, with some noise."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(number, channels, 5, 6, generator=generator) * 300 - 20
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    noise = 10 * torch.randn(fine.shape, generator=generator)
    return (fine + noise).clamp(0, 255).to(torch.uint8)


def of_torchvision(image: Tensor, name: str, level: int, sign: int) -> Tensor:
    make, signed = SPACE[name]
    magnitudes = make(LEVELS, *image.shape[-2:])
    # In float32 half of the largest translation, 16 pixels, is a little less, and would be 15.
    magnitude = 0.0 if magnitudes is None else round(float(magnitudes[level]), 5)
    transform = v2.TrivialAugmentWide()
    changed: Tensor = transform._apply_image_or_video_transform(
        image, name, magnitude * (sign if signed else 1), transform.interpolation, transform._fill
    )
    return changed


def test_the_same_operations() -> None:
    assert list(OPERATIONS) == list(SPACE)
    assert v2.TrivialAugmentWide().num_magnitude_bins == LEVELS


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_at_all_levels_is_torchvisions(name: str, channels: int) -> None:
    images = pictures(2 * LEVELS, channels)
    amounts = torch.cat((torch.arange(LEVELS), -torch.arange(LEVELS))) / (LEVELS - 1)
    ours = OPERATIONS[name](images, amounts)
    theirs = torch.stack([
        of_torchvision(image, name, i % LEVELS, 1 if i < LEVELS else -1)
        for i, image in enumerate(images)
    ])  # fmt: skip
    assert ours.dtype == torch.uint8
    apart = (ours.int() - theirs.int()).abs()
    # Rounded and not cut off, and so is the grey that colour blends with. A pixel's centre between
    # two pixels may go to either, and a value on a threshold that float32 moves lies below it.
    far = (apart > (2 if name == "Color" else 1)).flatten(1).float().mean(1)
    near = name in ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Solarize")
    assert far.max() <= (0.02 if near else 0.0)
    changes = name != "Identity" and (channels == 3 or name != "Color")
    assert ((theirs != images).any() == changes).item()


def test_operations_levels_and_signs_are_equally_frequent() -> None:
    image = pictures(1, height=16, width=16)
    known = {}
    for name, operation in OPERATIONS.items():
        for amount in (-1.0, 1.0):
            changed = operation(image, torch.tensor([amount]))
            known[changed.numpy().tobytes()] = name
    number = 4000
    after = trivial_augment(image.expand(number, -1, -1, -1), torch.Generator().manual_seed(3), 1.0)
    same = (after == image).flatten(1).all(1).float().mean()
    # Identity, a level of nothing, and small levels of some.
    assert 1 / 14 + 9 / 14 / 31 - 0.02 < same < 0.35
    autocontrast = OPERATIONS["AutoContrast"](image, torch.ones(1))
    share = (after == autocontrast).flatten(1).all(1).float().mean().item()
    if (autocontrast != image).any():
        assert share == pytest.approx(1 / 14, abs=0.02)


def test_probability_strength_and_seed() -> None:
    images = pictures(64)

    def changed(probability: float, strength: float = 1.0, seed: int = 0) -> Tensor:
        return trivial_augment(images, torch.Generator().manual_seed(seed), probability, strength)

    assert torch.equal(changed(0.0), images)
    assert torch.equal(changed(1.0), changed(1.0))
    assert not torch.equal(changed(1.0), changed(1.0, seed=1))
    assert torch.equal(images, pictures(64)), "the batch itself stays"
    full, half = (
        (changed(1.0, strength).float() - images.float()).abs().mean() for strength in (1.0, 0.3)
    )
    assert half < 0.7 * full
    strong, mild = Augment(4, True, rotation=20.0, strength=0.5), Augment(4, True, rotation=10.0)
    both = [a.apply_uint8(images, torch.Generator().manual_seed(1)) for a in (strong, mild)]
    assert torch.equal(*both)
    off = Augment(4, False, rotation=20.0, trivial=1.0, random_resized_crop=0.3, strength=0.0)
    assert off.is_identity
    assert Augment(4, False, random_resized_crop=1.0).is_identity


def test_boxes_are_brought_to_size_as_torchvision_does() -> None:
    images = pictures(50)
    boxes = drawn_boxes(50, 40, 48, 0.08, torch.Generator().manual_seed(0))
    ours = cropped(images, boxes.float())
    for image, box, mine in zip(images, boxes.tolist(), ours, strict=True):
        theirs = F.resized_crop(image, *box, [40, 48], antialias=True)
        assert (mine.int() - theirs.int()).abs().max() <= 1
    assert not torch.equal(ours, images)


@pytest.mark.parametrize(("height", "width", "smallest"), [(40, 48, 0.08), (20, 60, 0.5)])
def test_boxes_are_drawn_as_torchvisions(height: int, width: int, smallest: float) -> None:
    ours = drawn_boxes(4000, height, width, smallest, torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    image = torch.zeros(1, height, width)
    theirs = torch.tensor([
        RandomResizedCrop.get_params(image, [smallest, 1.0], [3 / 4, 4 / 3]) for _ in range(4000)
    ])  # fmt: skip
    for boxes in (ours, theirs):
        top, left, h, w = boxes.unbind(1)
        assert ((top >= 0) & (left >= 0) & (top + h <= height) & (left + w <= width)).all()
    for quantile in (0.05, 0.25, 0.5, 0.75, 0.95):
        a, b = (torch.quantile(boxes.float(), quantile, dim=0) for boxes in (ours, theirs))
        assert (a - b).abs().max() <= 0.05 * max(height, width), quantile
    area = [(b[:, 2] * b[:, 3]).float().mean().item() / (height * width) for b in (ours, theirs)]
    assert area[0] == pytest.approx(area[1], abs=0.02)


def test_one_in_which_no_box_fits_gives_its_middle() -> None:
    boxes = drawn_boxes(9, 4, 400, 0.99, torch.Generator().manual_seed(0))
    image = torch.zeros(1, 4, 400)
    theirs = RandomResizedCrop.get_params(image, [0.99, 1.0], [3 / 4, 4 / 3])
    assert {tuple(box) for box in boxes.tolist()} == {tuple(theirs)}
    images = pictures(9, 1, 4, 400)
    assert random_resized_crop(images, torch.Generator(), 0.99).shape == images.shape
    assert math.prod(boxes[0, 2:].tolist()) == 4 * 5


WORDS = [*SMALL, "data.shape=[3,12,12]", "augment=trivial", "augment.random_resized_crop=0.4",
         "data.hflip=true", "epochs=3", "num_threads=1"]  # fmt: skip


@pytest.mark.slow
def test_resumed_to_the_same_bits_and_on_numpy_layers(tmp_path: Path) -> None:
    whole = train(tmp_path, *WORDS, "layers=numpy", folder="whole")
    train(tmp_path, *WORDS, "layers=numpy", "stop_epoch=1")
    later = run_trainer("resume", "run", cwd=tmp_path)
    assert later.returncode == 0, later.output
    results.assert_same(tmp_path / "run", tmp_path / "whole")
    other = train(tmp_path, *WORDS, "layers=numpy", "augment.strength=0.2", folder="other")
    assert other.summary["weights_sha256"] != whole.summary["weights_sha256"]


def test_two_processes_see_the_same_images(tmp_path: Path) -> None:
    words = [*WORDS, "precision=fp64", "augment.mixup=0.2"]
    alone = train(tmp_path, *words, folder="alone")
    ended = several.run(tmp_path, *words, "processes=2", "hydra.run.dir=run")
    assert [one.code for one in ended] == [0, 0], ended
    losses = [[row["loss"] for row in results.rows(f)] for f in (alone.folder, tmp_path / "run")]
    assert losses[0] == pytest.approx(losses[1], abs=1e-12)


def test_strength_of_nothing_is_refused(tmp_path: Path) -> None:
    refused = run_trainer("augment.strength=0.5", cwd=tmp_path)
    assert refused.returncode == 2
    assert "augment.strength=0.5: has no effect" in refused.output

"""The choices of augmentation: what each turns on, its contract, values that are refused."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from scipy import stats

from data.augment.policy import Augment
from tests.helpers.augment_images import constant, random_images, seeded
from tests.helpers.commands import ROOT

CHOICES = sorted((ROOT / "configs" / "augment").glob("*.yaml"))
SUPPLIED = {"num_classes", "hflip"}
OPTIONS = [f.name for f in dataclasses.fields(Augment) if f.init and f.name not in SUPPLIED]


@functools.cache
def composed(choice: str) -> Any:
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        return compose("config", overrides=[f"augment={choice}"]).augment


def made(choice: str, **options: Any) -> Augment:
    augment: Augment = instantiate(composed(choice), **options)
    return augment


def test_there_are_four_choices_and_none_says_all() -> None:
    assert [file.stem for file in CHOICES] == ["basic", "none", "strong", "trivial"]
    text = (ROOT / "configs" / "augment" / "none.yaml").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert [line.partition(":")[0] for line in lines] == ["_target_", *OPTIONS]
    assert all("0 = off" in line or "false = off" in line for line in lines[1:])


@pytest.mark.parametrize("choice", [file.stem for file in CHOICES])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(28, 28), (64, 64), (20, 50)])
@pytest.mark.parametrize("number", [1, 5])
def test_contract(choice: str, channels: int, size: tuple[int, int], number: int) -> None:
    augment = made(choice, num_classes=6, hflip=True)
    images, labels = random_images(number, channels, *size), torch.arange(number)
    for seed in range(6):
        generator = seeded(seed)
        changed = augment.apply_uint8(images, generator)
        assert (changed.shape, changed.dtype) == (images.shape, torch.uint8)
        assert torch.equal(changed, images) == (choice == "none")
        inputs, targets = augment.apply_float(changed / 255, labels, generator)
        assert inputs.shape == images.shape
        assert inputs.isfinite().all()
        if choice != "strong":
            assert torch.equal(targets, labels)
            assert torch.equal(inputs, changed / 255)
            continue
        assert (targets.shape, targets.dtype) == ((number, 6), inputs.dtype)
        allowed = torch.eye(6)[labels] + torch.eye(6)[labels.roll(1)]
        assert (targets[allowed == 0] == 0).all()
        assert (targets >= 0).all()
        torch.testing.assert_close(targets.sum(dim=1), torch.ones(number))


def test_what_the_choices_turn_on() -> None:
    assert made("none", num_classes=2, hflip=True).is_identity
    on = {c: {o for o in OPTIONS if getattr(made(c, num_classes=2, hflip=True), o)}
          for c in ("none", "basic", "strong", "trivial")}  # fmt: skip
    assert on["none"] == {"mix_probability", "strength"}
    assert on["basic"] == {*on["none"], "flip", "crop_padding"}
    assert on["trivial"] == {*on["basic"], "trivial"}
    assert on["strong"] == set(OPTIONS) - {"trivial", "random_resized_crop", "alternate"}


def test_no_image_is_mirrored_where_that_changes_its_label() -> None:
    images = random_images()
    allowed, forbidden = (Augment(10, hflip=flag, flip=1.0) for flag in (True, False))
    assert torch.equal(allowed.apply_uint8(images, seeded()), images.flip(-1))
    assert forbidden.is_identity
    assert len(made("basic", num_classes=10, hflip=False).on_bytes) == 1


def test_a_share_of_the_batches_is_mixed_either_way() -> None:
    both = Augment(8, hflip=False, mixup=1.0, cutmix=1.0, mix_probability=0.6)
    images, labels, seen = constant(8), torch.arange(8), {"as it was": 0, "mixup": 0, "cutmix": 0}
    for seed in range(600):
        mixed, targets = both.apply_float(images, labels, seeded(seed))
        if torch.equal(mixed, images):
            assert torch.equal(targets, torch.eye(8))
            seen["as it was"] += 1
        else:
            seen["cutmix" if torch.equal(mixed, mixed.round()) else "mixup"] += 1
    assert stats.chisquare(list(seen.values()), [240, 180, 180]).pvalue > 0.01
    assert Augment(8, hflip=False, mixup=1.0, mix_probability=0.0).is_identity


def test_nothing_waits_for_the_device() -> None:
    """Tensors of the meta device have no values, so reading one (a wait, on a GPU) raises."""
    augment = made("strong", num_classes=10, hflip=True)
    for seed in range(8):
        generator = seeded(seed)
        images = augment.apply_uint8(random_images().to("meta"), generator)
        labels = torch.arange(8, device="meta")
        inputs, targets = augment.apply_float(images.float(), labels, generator)
        assert inputs.device.type == targets.device.type == "meta"
    with pytest.raises(RuntimeError):
        inputs.sum().item()

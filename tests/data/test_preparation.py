from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import data.resizing
from data.preparation import Preparation, fit_channels
from data.resizing import to_shape
from data.splits import validation_counts
from data.types import DataError, Split
from tests.helpers.splits import choose_validation

KEYS: dict[str, Any] = {
    "shape": [1, 4, 4],
    "num_classes": 3,
    "mean": [0.5],
    "std": [0.25],
    "hflip": True,
    "val_size": 0.25,
    "split_seed": 0,
}


def split(per_class: int, channels: int = 1, side: int = 4) -> Split:
    """Images that carry their own number, labels 0, 1, 2 in turn."""
    count = 3 * per_class
    images = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1)
    return Split(images.expand(count, channels, side, side).contiguous(), torch.arange(count) % 3)


def test_dataset_has_every_image_once_with_its_label_in_its_order() -> None:
    train, test = split(8), split(2)
    done = Preparation(**KEYS).dataset(train, test, "abc")
    numbers = {part: getattr(done, part).images[:, 0, 0, 0].tolist() for part in ("train", "val")}
    assert sorted(numbers["train"] + numbers["val"]) == list(range(24))
    for part in ("train", "val"):
        assert numbers[part] == sorted(numbers[part])
        assert getattr(done, part).labels.tolist() == [n % 3 for n in numbers[part]]
    assert done.val.labels.bincount().tolist() == [2, 2, 2]  # a quarter of 8 each
    assert torch.equal(done.test.images, test.images)
    assert (done.classes, done.mean, done.std, done.hflip) == (
        ("a", "b", "c"),
        (0.5,),
        (0.25,),
        True,
    )
    assert done.shape == (1, 4, 4)


@pytest.mark.parametrize(
    ("counts", "val_size", "expected"),
    [
        ([10, 10, 10], 0.1, [1, 1, 1]),
        ([10, 5, 5], 0.3, [3, 2, 1]),  # 6 in all: 3, 1.5, 1.5; the first of equals is rounded up
        ([100, 100], 0.29, [29, 29]),  # 0.29 * 100 is 28.999999999999996
        ([97, 3], 0.1, [9, 1]),  # 10 in all: 9.7, 0.3; nobody goes without
        ([100, 5], 0.02, [1, 1]),  # 2 in all: 2, 0.1
        ([97, 3], 0.9, [88, 2]),  # 90 in all: 87.3, 2.7, but one stays in train
        ([2, 2], 0.5, [1, 1]),
    ],
)
def test_validation_counts_by_hand(counts: list[int], val_size: float, expected: list[int]) -> None:
    assert validation_counts(np.array(counts), val_size, "abc"[: len(counts)]).tolist() == expected


@given(
    counts=st.lists(st.integers(2, 500), min_size=1, max_size=30),
    val_size=st.floats(0.01, 0.99),
)
def test_validation_counts_hold_for_any_counts(counts: list[int], val_size: float) -> None:
    total = round(val_size * sum(counts))
    names = [str(i) for i in range(len(counts))]
    if not len(counts) <= total <= sum(counts) - len(counts):
        with pytest.raises(DataError, match=r"data\.val_size") as caught:
            validation_counts(np.array(counts), val_size, names)
        bounds = re.findall(r"from (.+) to (.+)\.$", str(caught.value))[0]
        taken = [validation_counts(np.array(counts), float(size), names).sum() for size in bounds]
        assert taken == [len(counts), sum(counts) - len(counts)]
        return
    taken = validation_counts(np.array(counts), val_size, names)
    assert taken.sum() == total
    assert all(1 <= t < count for t, count in zip(taken, counts, strict=True))
    shares = [val_size * count for count in counts]
    if all(1 <= share <= count - 1 for share, count in zip(shares, counts, strict=True)):
        # Nobody at a limit: each share is rounded down or up.
        assert all(abs(t - share) < 1 for t, share in zip(taken, shares, strict=True))


def test_some_stay_for_another_split() -> None:
    counts = np.array([100, 3])
    assert validation_counts(counts, 0.9, "ab").tolist() == [91, 2]
    assert validation_counts(counts, 0.9, "ab", num_left=2).tolist() == [92, 1]
    with pytest.raises(DataError, match=r"data\.test_size=0\.97: 100 of 103.* to 0\.9612\."):
        validation_counts(counts, 0.97, "ab", "data.test_size", 2)
    assert validation_counts(counts, 0.9612, "ab", "data.test_size", 2).tolist() == [98, 1]


def test_a_class_with_one_image_is_refused_by_name() -> None:
    assert validation_counts(np.array([5, 2]), 0.4, ["cat", "dog"]).tolist() == [2, 1]
    with pytest.raises(DataError, match=r"'dog' has too few training images, 1"):
        validation_counts(np.array([5, 1]), 0.4, ["cat", "dog"])


def test_split_is_the_same_everywhere() -> None:
    """Fixed by hand from the definition: the smallest of PCG64's raw keys within each class."""
    labels = np.arange(20) % 2
    chosen = np.flatnonzero(choose_validation(labels, 0.3, 0, "ab"))
    expected = []
    for label in (0, 1):
        keys = [int(k) for k in np.random.PCG64([0, label]).random_raw(10)]
        expected += [2 * keys.index(key) + label for key in sorted(keys)[:3]]
    assert chosen.tolist() == sorted(expected) == [2, 4, 6, 9, 11, 15]


def test_split_depends_on_split_seed_alone() -> None:
    labels = np.arange(300) % 3
    torch.manual_seed(1)
    np.random.seed(1)
    first = choose_validation(labels, 0.1, 0, "abc")
    torch.manual_seed(2)
    np.random.seed(2)
    assert np.array_equal(first, choose_validation(labels, 0.1, 0, "abc"))
    assert not np.array_equal(first, choose_validation(labels, 0.1, 1, "abc"))


@pytest.mark.parametrize("size", [(32, 32), (20, 37), (9, 9)])
def test_resize_agrees_with_pil(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 3, 28, 28)).astype(np.uint8)
    ours = to_shape(torch.from_numpy(images), (3, *size)).permute(0, 2, 3, 1).numpy()
    for image, mine in zip(images, ours, strict=True):
        picture = Image.fromarray(image.transpose(1, 2, 0))
        theirs = np.asarray(picture.resize(size[::-1], Image.Resampling.BILINEAR))
        # PIL computes with 8-bit fixed point and rounds after each direction.
        assert np.abs(mine.astype(int) - theirs.astype(int)).max() <= 1


def test_resize_in_chunks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.randint(0, 256, (23, 1, 28, 28), dtype=torch.uint8)
    whole = to_shape(images, (3, 32, 32))
    monkeypatch.setattr(data.resizing, "_CHUNK", 7)
    assert torch.equal(to_shape(images, (3, 32, 32)), whole)


def test_grey_agrees_with_pil_and_with_the_definition() -> None:
    images = torch.randint(0, 256, (50, 3, 8, 8), dtype=torch.uint8)
    grey = to_shape(images, (1, 8, 8))
    red, green, blue = images.double().unbind(1)
    exact = (0.299 * red + 0.587 * green + 0.114 * blue).unsqueeze(1)
    assert (grey.double() - exact).abs().max() <= 0.5 + 1e-4
    for image, mine in zip(images, grey, strict=True):
        theirs = np.asarray(Image.fromarray(image.permute(1, 2, 0).numpy()).convert("L"))
        assert np.abs(mine[0].numpy().astype(int) - theirs.astype(int)).max() <= 1


def test_colour_from_grey_repeats_it_and_equal_shapes_are_left_alone() -> None:
    images = torch.randint(0, 256, (4, 1, 6, 5), dtype=torch.uint8)
    assert torch.equal(to_shape(images, (3, 6, 5)), images.expand(4, 3, 6, 5))
    assert to_shape(images, (1, 6, 5)) is images
    white = torch.full((2, 3, 10, 10), 255, dtype=torch.uint8)
    assert to_shape(white, (1, 7, 7)).unique().tolist() == [255]  # no overflow to 0


@pytest.mark.parametrize(("own", "wanted"), [(1, 2), (3, 4), (2, 1), (4, 3)])
def test_other_channel_counts_are_refused(own: int, wanted: int) -> None:
    with pytest.raises(DataError, match=r"data\.shape=.*" + f"have {own} channels"):
        to_shape(torch.zeros(2, own, 8, 8, dtype=torch.uint8), (wanted, 8, 8))
    to_shape(torch.zeros(2, own, 8, 8, dtype=torch.uint8), (own, 9, 9))


def test_mean_and_std_follow_the_channels() -> None:
    assert fit_channels("data.mean", [0.3], 1, 1) == (0.3,)
    assert fit_channels("data.mean", [0.3], 1, 3) == (0.3, 0.3, 0.3)
    assert fit_channels("data.mean", [0.1, 0.2, 0.3], 1, 3) == (0.1, 0.2, 0.3)
    images = torch.rand(10, 3, 9, 9, dtype=torch.float64)
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
    grey = torch.einsum("nchw,c->nhw", images, weights)
    averaged = fit_channels("data.mean", images.mean((0, 2, 3)).tolist(), 3, 1)
    assert averaged == pytest.approx((grey.mean().item(),), rel=1e-12)
    for values, own, channels in (
        ([0.1, 0.2], 1, 1),
        ([0.1, 0.2], 3, 3),
        ([0.1] * 3, 1, 1),
        ([], 1, 1),
    ):
        with pytest.raises(DataError, match=rf"data\.std=.* has {len(values)} values"):
            fit_channels("data.std", values, own, channels)


@pytest.mark.parametrize(
    ("key", "bad", "good"),
    [
        ("val_size", 2, 0.5),
        ("val_size", 0, 0.3),
        ("val_size", 1.0, 0.9),
        ("val_size", -0.1, 0.1),
        ("split_seed", -1, 7),
        ("num_classes", 42, 3),
        ("shape", [28, 28], [1, 28, 28]),
        ("shape", [1, 0, 28], [1, 1, 28]),
        ("shape", [1, 2.5, 28], [3, 2, 28]),
        ("std", [0.0], [0.1]),
        ("mean", [0.1, 0.2], [0.1]),
    ],
)
def test_wrong_values_are_refused_by_key_and_right_ones_taken(
    key: str, bad: Any, good: Any
) -> None:
    with pytest.raises(DataError) as caught:
        Preparation(**{**KEYS, key: bad}).dataset(split(10), split(2), "abc")
    assert str(caught.value).startswith(f"data.{key}={bad}")
    Preparation(**{**KEYS, key: good}).dataset(split(10), split(2), "abc")

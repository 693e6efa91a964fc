"""Which images of a dataset are in which split, and where in its files they stand."""

from __future__ import annotations

from pathlib import Path

import hydra
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data.splits import carve, fold_of, random_keys
from data.types import DataError, Dataset, Split
from tests.data.test_datasets import YAMLS, small_config

# As made by the version before folds, groups and listed test files: at the defaults of those keys
# each dataset stays the one that older checkpoints know.
FINGERPRINTS = {
    "cifar10": "2:7b4bdbbc8615f15a02340d8ccbedab85300159e941b1f701e22e3ac326fbc8f4",
    "cifar100": "2:02a9d50b597ee66799e5edb27c2af1cc42f3992ffc65cf3069badce7054e9d17",
    "fashion_mnist": "2:8c4481520cd93bb0117463aa02c5574f3b034e78d31fd9c39960d3cc2f0c107a",
    "image_folder": "2:677c0d00db3c0356b2216d43352ad20c071062791dc571bbd2472ae649b96623",
    "mnist": "2:83465eb93a8f887d071b63c33767afe9fc5f6eee249de8a942f8ad29f0120574",
    "mnist_5k": "2:cc4cffba58d6e505f18c88325ddaa807bec3952430ef20bd116c90cab82f592b",
    "synthetic": "2:617ee06c0a194decf765293c0828ff24ece3ebb75dc020ea31ad4e923bb1060a",
}


def loaded(path: Path, root: Path, **keys: object) -> Dataset:
    made: Dataset = hydra.utils.instantiate(small_config(path, root), **keys)
    return made


def yaml_of(name: str) -> Path:
    return YAMLS[0].with_name(f"{name}.yaml")


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_each_dataset_stays_what_it_was(path: Path, tmp_path: Path) -> None:
    made = loaded(path, tmp_path)
    assert made.fingerprint == FINGERPRINTS[path.stem]


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_each_image_knows_its_place_in_the_files(path: Path, tmp_path: Path) -> None:
    made = loaded(path, tmp_path)
    splits = (made.train, made.val, made.test)
    train, val, test = ([split.index_at(i) for i in range(len(split))] for split in splits)
    if path.stem == "image_folder":  # its images have files of their own
        places = dict(
            zip(train + val + test, [x for s in splits for x in s.own_files()], strict=True)
        )
        assert sorted(places) == list(range(len(places)))
        assert [places[i] for i in range(len(places))] == sorted(places.values())
        return
    assert train == sorted(train)
    assert val == sorted(val)
    assert sorted(train + val) == list(range(len(train) + len(val)))
    assert test == list(range(len(test)))


def test_the_place_in_the_files_is_that_of_the_image() -> None:
    made = loaded(yaml_of("mnist_5k"), Path())
    with np.load(YAMLS[0].parents[2] / "data" / "mnist_5k.npz") as file:
        for part, split in (("train", made.train), ("train", made.val), ("test", made.test)):
            assert split.indices is not None
            images, labels = file[f"{part}_images"], file[f"{part}_labels"]
            np.testing.assert_array_equal(split.images[:, 0].numpy(), images[split.indices])
            np.testing.assert_array_equal(split.labels.numpy(), labels[split.indices])


def test_a_subset_of_a_subset_keeps_the_places() -> None:
    whole = Split(torch.zeros(6, 1, 2, 2, dtype=torch.uint8), torch.arange(6))
    assert whole.index_at(2) == 2
    mask = torch.tensor([True, False, True, True, False, True])
    part = whole.subset(mask).subset(torch.tensor([False, True, False, True]))
    assert part.indices is not None
    assert part.indices.tolist() == part.labels.tolist() == [2, 5]


# Folds


@given(
    counts=st.lists(st.integers(0, 60), min_size=1, max_size=8),
    folds=st.integers(2, 12),
    seed=st.integers(0, 2**31 - 1),
)
def test_every_image_is_in_one_fold_and_each_class_is_shared_out(
    counts: list[int], folds: int, seed: int
) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    found = fold_of(random_keys(labels, len(counts), seed), labels, folds)
    assert len(found) == sum(counts)
    for label, count in enumerate(counts):
        sizes = np.bincount(found[labels == label], minlength=folds)
        assert len(sizes) == folds
        assert sizes.sum() == count
        assert sizes.max() - sizes.min() <= 1


def test_folds_of_many_equal_classes_are_of_one_size() -> None:
    labels = np.repeat(np.arange(100), 11)  # one more in some fold of each class
    sizes = np.bincount(fold_of(random_keys(labels, 100, 0), labels, 5))
    assert sizes.tolist() == [220] * 5


def test_the_folds_are_the_same_everywhere() -> None:
    """By hand from the definition: blocks of PCG64's raw keys in order."""
    labels = np.zeros(7, dtype=np.int64)
    keys = [int(k) for k in np.random.PCG64([4, 0]).random_raw(7)]
    in_order = sorted(range(7), key=keys.__getitem__)
    found = fold_of(random_keys(labels, 1, 4), labels, 3)
    assert [found[i] for i in in_order] == [0, 0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("folds", [2, 5, 10])
def test_an_image_more_moves_at_most_one_from_fold_to_neighbouring_fold(folds: int) -> None:
    num_moved = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, 3, 90)
        keys = rng.integers(0, 2**63, 91, dtype=np.uint64)
        added = int(rng.integers(0, 3))
        before = fold_of(keys[:90], labels, folds)
        after = fold_of(keys, np.append(labels, added), folds)[:90]
        assert np.array_equal(before[labels != added], after[labels != added])
        borders = np.sort([before, after], axis=0)[:, before != after].T.tolist()
        assert all(high - low == 1 for low, high in borders)
        assert len({low for low, _ in borders}) == len(borders)  # one over each border
        num_moved.append(len(borders))
    assert max(num_moved) <= folds - 1
    assert np.mean(num_moved) > 0  # the twin: it is no constant


def test_by_turns_it_would_all_move() -> None:
    """The twin: images dealt to the folds one by one, in order of their keys."""
    keys = np.random.default_rng(0).permutation(91).tolist()
    dealt = {key: place % 5 for place, key in enumerate(sorted(keys))}
    num_moved = []
    for added in keys:
        before = sorted(key for key in keys if key != added)
        num_moved.append(sum(dealt[key] != place % 5 for place, key in enumerate(before)))
    assert np.mean(num_moved) > 40


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_each_dataset_is_divided_into_folds(path: Path, tmp_path: Path) -> None:
    whole = loaded(path, tmp_path)
    num_left = len(whole.train) + len(whole.val)
    all_pixels, own_test = sorted(pixels(whole.train) + pixels(whole.val)), pixels(whole.test)
    held_out: list[bytes] = []
    for fold in range(4):
        made = loaded(path, tmp_path, folds=4, fold=fold, val_size=0.25)
        assert made.held_out == f"fold {fold} of 4"
        assert any("data.folds=4" in note for note in made.notes)
        parts = [pixels(split) for split in (made.train, made.val, made.test)]
        assert sum(map(len, parts)) == num_left
        assert sorted([*parts[0], *parts[1], *parts[2]]) == all_pixels
        if path.stem in ("image_folder", "mnist_5k", "synthetic"):  # whose images all differ
            assert not {*parts[2]} & {*parts[0], *parts[1], *own_test}
        assert len(made.val) == round(0.25 * (num_left - len(made.test)))
        counts = [split.labels.bincount(minlength=len(made.classes)) for split in
                  (made.train, made.val, made.test)]  # fmt: skip
        assert all(bool((count > 0).all()) for count in counts)
        shares = sum(counts).double() / 4  # type: ignore[arg-type]
        assert float((counts[2] - shares).abs().max()) < 1
        held_out += parts[2]
        if path.stem != "image_folder":
            places = torch.cat([split.indices for split in (made.train, made.val, made.test)
                                if split.indices is not None])  # fmt: skip
            assert sorted(places.tolist()) == list(range(num_left))
    assert sorted(held_out) == all_pixels
    assert whole.held_out == "test"
    assert not any("fold" in note for note in whole.notes if "--fix-test" not in note)


def pixels(split: Split) -> list[bytes]:
    return [image.numpy().tobytes() for image in split.images_at(torch.arange(len(split)))]


def test_the_held_out_images_are_those_at_their_places() -> None:
    made = loaded(yaml_of("mnist_5k"), Path(), folds=5, fold=3)
    with np.load(YAMLS[0].parents[2] / "data" / "mnist_5k.npz") as file:
        for split in (made.train, made.val, made.test):
            assert split.indices is not None
            own = file["train_images"][split.indices]
            np.testing.assert_array_equal(split.images[:, 0].numpy(), own)
    assert made.test.index_at(7) == int(made.test.indices[7])  # type: ignore[index]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"folds": 1}, "data.folds=1: must be 2 or more, or 0 for none."),
        ({"folds": -2}, "data.folds=-2: must be 2 or more, or 0 for none."),
        ({"folds": 3, "fold": 3}, "data.fold=3: must be 0 to 2 with data.folds=3."),
        ({"folds": 3, "fold": -1}, "data.fold=-1: must be 0 to 2 with data.folds=3."),
        ({"fold": 1}, "data.fold=1: must be 0 without data.folds."),
        ({"folds": 401}, "class '0' has too few images to train on, 400; it needs 401 or more"),
        ({"folds": 401}, "folds=400 is the most that works"),
    ],
)
def test_wrong_folds_are_named(keys: dict[str, int], message: str) -> None:
    with pytest.raises(hydra.errors.InstantiationException) as caught:
        loaded(yaml_of("mnist_5k"), Path(), **keys)
    assert isinstance(caught.value.__cause__, DataError)
    assert message in str(caught.value.__cause__)
    loaded(yaml_of("mnist_5k"), Path(), folds=400, fold=399, val_size=0.1)  # the twin


@pytest.mark.parametrize(("folds", "least"), [(2, 4), (3, 3), (7, 7)])
def test_as_many_images_as_folds_need_suffice(folds: int, least: int) -> None:
    """And one fewer does not: each fold has one of each class, and so have train and val."""

    def parts(count: int, fold: int) -> tuple[Split, Split, Split | None]:
        images = torch.zeros(2 * count, 1, 2, 2, dtype=torch.uint8)
        return carve(Split(images, torch.arange(2 * count) % 2), 0.5, 0, "ab", folds, fold)

    for fold in range(folds):
        for split in parts(least, fold):
            assert split is not None
            assert set(split.labels.tolist()) == {0, 1}
        with pytest.raises(DataError, match=f"too few images to train on, {least - 1};"):
            parts(least - 1, fold)

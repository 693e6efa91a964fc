"""Which images of a dataset are in which split, and where in its files they stand."""

from __future__ import annotations

from pathlib import Path

import hydra
import numpy as np
import pytest
import torch

from data.types import Dataset, Split
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
    if path.stem == "image_folder":  # its images have files of their own
        assert all(split.indices is None and split.index_at(0) is None for split in splits)
        return
    train, val, test = ([split.index_at(i) for i in range(len(split))] for split in splits)
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
    assert whole.index_at(2) is None
    mask = torch.tensor([True, False, True, True, False, True])
    part = whole.subset(mask).subset(torch.tensor([False, True, False, True]))
    assert part.indices is not None
    assert part.indices.tolist() == part.labels.tolist() == [2, 5]

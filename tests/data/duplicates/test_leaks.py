"""data.on_leak of every dataset: what is planted is told, refused, or left out of train alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytest

from data.cifar.load import CIFAR10, CIFAR100
from data.types import DataError, Dataset, Split
from tests.data.test_datasets import YAMLS, small_config
from tests.helpers.image_files import images_of

NAMES = ["mnist", "fashion_mnist", "cifar10", "cifar100", "synthetic", "image_folder"]


def replaced(path: Path, part: bytes, other: bytes) -> None:
    content = path.read_bytes()
    assert content.count(part) == 1
    path.write_bytes(content.replace(part, other))


def planted(name: str, root: Path) -> dict[str, Any]:
    """A small dataset of this name, in which images of test are in train, too. Its keys."""
    keys: dict[str, Any] = small_config(YAMLS[0].with_name(f"{name}.yaml"), root)
    if name in ("mnist", "fashion_mnist"):
        train, test = (root / f"{part}-images-idx3-ubyte" for part in ("train", "t10k"))
        for i in (0, 3):
            first, last = 16 + i * 784, 16 + (i + 1) * 784
            replaced(test, test.read_bytes()[first:last], train.read_bytes()[first:last])
    elif name.startswith("cifar"):
        layout = CIFAR10 if name == "cifar10" else CIFAR100
        made: Dataset = hydra.utils.instantiate(keys)
        for i in (0, 3):
            own, other = made.test.images[i], made.train.images[2 * i + 1]
            replaced(
                root / layout.folder / layout.test, own.numpy().tobytes(), other.numpy().tobytes()
            )
        return {**keys, "verify": False}
    elif name == "image_folder":
        made = hydra.utils.instantiate(keys)
        for i in (0, 3):
            (root / str(made.test.file_at(i))).write_bytes(
                (root / str(made.train.file_at(5 * i))).read_bytes()
            )
    else:
        return {**keys, "noise": 0.0, "num_train": 400, "num_test": 100}
    return keys


def load(keys: dict[str, Any], on_leak: str) -> Dataset:
    try:
        made: Dataset = hydra.utils.instantiate({**keys, "on_leak": on_leak})
    except hydra.errors.InstantiationException as error:
        raise (error.__cause__ or error) from None
    return made


def bytes_of(split: Split) -> list[bytes]:
    return [image.numpy().tobytes() for image in images_of(split)]


@pytest.mark.parametrize("name", NAMES)
def test_what_becomes_of_images_in_two_splits(name: str, tmp_path: Path) -> None:
    keys = planted(name, tmp_path)
    warned = load(keys, "warn")
    test, val, train = (bytes_of(s) for s in (warned.test, warned.val, warned.train))
    of_val = [image for image in val if image not in test]
    of_train = [image for image in train if image not in test and image not in val]
    twice = [image for image in test if image in train]
    assert twice
    assert any(note.startswith(f"exact copies: {len(twice)} test images") for note in warned.notes)

    with pytest.raises(DataError, match=r"data.on_leak=error: .* test images are in train"):
        load(keys, "error")

    dropped = load(keys, "drop")
    assert bytes_of(dropped.test) == test
    assert bytes_of(dropped.val) == of_val
    assert bytes_of(dropped.train) == of_train
    left_out = len(train) + len(val) - len(of_train) - len(of_val)
    assert len(dropped.leaks.left_out) == left_out
    assert any(note.startswith("data.on_leak=drop: ") for note in dropped.notes)
    assert dropped.fingerprint != warned.fingerprint
    places = [str(dropped.train.place_at(i, "train")) for i in range(len(dropped.train))]
    assert [p for p in (str(warned.train.place_at(i, "train")) for i in range(len(train)))
            if p not in {str(a) for a, _ in dropped.leaks.left_out}] == places  # fmt: skip


def test_where_there_is_none_nothing_changes() -> None:
    """The twin of all of the above."""
    keys: dict[str, Any] = small_config(YAMLS[0].with_name("mnist_5k.yaml"), Path())
    made = [load(keys, on_leak) for on_leak in ("warn", "error", "drop")]
    assert len({dataset.fingerprint for dataset in made}) == 1
    assert not any(dataset.leaks.copies or dataset.notes for dataset in made)


def test_another_word_is_refused() -> None:
    keys: dict[str, Any] = small_config(YAMLS[0].with_name("mnist_5k.yaml"), Path())
    with pytest.raises(DataError, match=r"data.on_leak=maybe: must be warn, error or drop"):
        load(keys, "maybe")


def test_a_class_that_would_be_gone_is_named(tmp_path: Path) -> None:
    keys = planted("mnist", tmp_path)
    images = np.frombuffer((tmp_path / "t10k-images-idx3-ubyte").read_bytes(), np.uint8)
    train = tmp_path / "train-images-idx3-ubyte"
    pixels = bytearray(train.read_bytes())
    for i in range(2, 100, 10):  # all twos of train are the first two of test
        pixels[16 + i * 784 : 16 + (i + 1) * 784] = images[16 + 2 * 784 : 16 + 3 * 784].tobytes()
    train.write_bytes(pixels)
    with pytest.raises(DataError, match="leaves no train image of 2: equal ones"):
        load(keys, "drop")
    assert len(load(keys, "warn").train) == 90

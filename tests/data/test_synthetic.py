from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data.synthetic import load_synthetic, make_patterns
from data.types import DataError, Dataset

KEYS: dict[str, Any] = {
    "num_train": 40,
    "num_test": 20,
    "noise": 0.6,
    "seed": 0,
    "shape": [1, 28, 28],
    "num_classes": 10,
    "mean": [0.5],
    "std": [0.2],
    "hflip": False,
    "val_size": 0.5,
    "split_seed": 0,
}


def load(**changes: Any) -> Dataset:
    return load_synthetic(**{**KEYS, **changes})


def whole_train(made: Dataset) -> Tensor:
    """Train and validation images as a set, in an order of their own."""
    return torch.cat([made.train.images, made.val.images]).flatten(1).unique(dim=0)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 7, 50), (2, 1, 1), (4, 64, 9)])
def test_any_shape_and_number_of_classes(shape: tuple[int, int, int]) -> None:
    made = load(shape=shape, num_classes=7, num_train=70, num_test=21, val_size=0.2)
    assert made.shape == shape
    for split, per_class in ((made.train, 8), (made.val, 2), (made.test, 3)):
        assert split.images.shape == (7 * per_class, *shape)
        assert split.images.dtype == torch.uint8
        assert split.labels.bincount().tolist() == [per_class] * 7
    assert len(made.classes) == 7
    assert made.mean == (0.5,) * shape[0]


def test_images_depend_on_seed_and_index_alone() -> None:
    torch.manual_seed(1)
    few, again = load(num_test=300), load(num_test=300)
    torch.manual_seed(2)
    many = load(num_test=1000, num_train=2000)  # several blocks, the last of them short
    assert torch.equal(few.test.images, again.test.images)
    assert torch.equal(few.test.images, many.test.images[:300])
    assert torch.equal(few.test.labels, many.test.labels[:300])
    assert not torch.equal(few.test.images, load(num_test=300, seed=1).test.images)


def test_no_image_comes_twice() -> None:
    made = load(num_train=600, num_test=300)
    images = torch.cat([whole_train(made), made.test.images.flatten(1)])
    assert len(images.unique(dim=0)) == 900


def test_without_noise_an_image_is_its_pattern_moved() -> None:
    made = load(noise=0.0, shape=[3, 12, 20])
    patterns = torch.from_numpy(make_patterns(0, 10, [3, 12, 20]))
    for image, label in zip(made.test.images, made.test.labels, strict=True):
        moved = (patterns[label].roll((-y, -x), (1, 2)) for y in range(7) for x in range(11))
        assert any(torch.equal(image, candidate) for candidate in moved)
    assert patterns.amin((2, 3)).max() == 0
    assert patterns.amax((2, 3)).min() == 255


def test_noise_alone_is_uniform_and_holds_no_class() -> None:
    made = load(noise=1.0, num_test=200)
    counts = made.test.images.flatten().bincount(minlength=256).float()
    expected = counts.sum() / 256
    # 255 degrees of freedom: mean 255, standard deviation 22.6
    assert ((counts - expected) ** 2 / expected).sum() < 255 + 5 * 22.6


def train(model: nn.Module, made: Dataset, epochs: int) -> float:
    """Test accuracy after Adam at 1e-3, batch 64."""

    def scale(images: Tensor) -> Tensor:
        return (images.float() / 255 - 0.5) / 0.2

    images, labels = scale(made.train.images), made.train.labels
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
    with torch.no_grad():
        correct = model(scale(made.test.images)).argmax(1) == made.test.labels
    return correct.float().mean().item()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """So small a net gains nothing from two, and on a busy machine they wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_convolutions_learn_it_and_a_linear_model_falls_short() -> None:
    made = load(num_train=4000, num_test=1000, val_size=0.1)
    torch.manual_seed(0)
    conv = nn.Sequential(
        *(nn.Conv2d(1, 8, 5, 2, 2), nn.ReLU(), nn.Conv2d(8, 16, 5, 2, 2), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10)),
    )
    assert train(conv, made, epochs=8) > 0.9
    assert train(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), made, epochs=8) < 0.7


@pytest.mark.parametrize(
    ("key", "bad", "good"),
    [
        ("num_train", 19, 20),
        ("num_test", 9, 10),
        ("noise", 1.5, 1.0),
        ("noise", -0.1, 0.0),
        ("seed", -1, 3),
        ("num_classes", 1, 2),
        ("shape", [28, 28], [1, 28, 28]),
        ("mean", [0.5, 0.5], [0.5]),
    ],
)
def test_wrong_values_are_refused_by_key_and_right_ones_taken(
    key: str, bad: Any, good: Any
) -> None:
    with pytest.raises(DataError) as caught:
        load(**{key: bad})
    assert str(caught.value).startswith(f"data.{key}={bad}")
    load(**{key: good})

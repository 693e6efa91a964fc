"""Which images are carved out of a folder: of each class its share, by names, so that a file more
or less moves hardly any."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from data.image_folder.packing import File
from data.image_folder.split import carved
from data.splits import validation_counts
from tests.helpers.image_files import PARTS, load, paths_of, splits_of, write_classes, write_image

SIZES = {"test": 0.1, "val": 0.1}
Found = dict[str, list[File]]


def found(counts: list[int], start: int = 0) -> Found:
    """Files of so many classes, none of which is there."""
    return {
        "train": [
            File(f"{label}/{i:04}.png", label, 1, 1, 1)
            for label, count in enumerate(counts)
            for i in range(start, start + count)
        ]
    }


def carve(files: Found, split_seed: int = 0, sizes: dict[str, float] = SIZES) -> dict[str, str]:
    """Name -> split."""
    num_classes = len({file.label for own in files.values() for file in own})
    split_of = carved(files, sizes, split_seed, [str(label) for label in range(num_classes)])
    names = [file.name for own in files.values() for file in own]
    return dict(zip(names, split_of.tolist(), strict=True))


def test_each_split_has_its_share_of_each_class() -> None:
    counts = [40, 3, 77, 200]
    split_of = carve(found(counts), sizes={"test": 0.3, "val": 0.2})
    in_test = validation_counts(np.array(counts), 0.3, "abcd", num_left=2)
    in_val = validation_counts(np.array(counts) - in_test, 0.2, "abcd")
    taken = Counter((split, name.partition("/")[0]) for name, split in split_of.items())
    for label in range(4):
        assert taken["test", str(label)] == in_test[label]
        assert taken["val", str(label)] == in_val[label]


def test_every_name_is_as_likely_and_every_seed_another_split() -> None:
    files = found([1000])
    splits = [carve(files, seed) for seed in range(50)]
    drawn = Counter(name for split in splits for name, part in split.items() if part == "test")
    assert len(splits[0]) == 1000
    assert sum(drawn.values()) == 50 * 100
    # Binomial(50, 0.1): 21 times or more has a chance of 3e-9 a name.
    assert max(drawn.values()) <= 20
    overlap = [
        sum(a[name] == b[name] == "test" for name in a) for a, b in itertools.pairwise(splits)
    ]
    assert np.mean(overlap) == pytest.approx(10, abs=2)  # of 100, as of two random tenths


def test_the_split_is_the_same_on_every_machine_for_good() -> None:
    in_test = [name for name, part in carve(found([20, 20])).items() if part == "test"]
    assert in_test == ["0/0006.png", "0/0010.png", "1/0005.png", "1/0013.png"]


def moves(before: dict[str, str], after: dict[str, str]) -> Counter[tuple[str, str, str]]:
    """How many images of each class went from one split to another."""
    return Counter(
        (name.partition("/")[0], before[name], after[name])
        for name in before.keys() & after.keys()
        if before[name] != after[name]
    )


@pytest.mark.parametrize("sizes", [SIZES, {"test": 0.34, "val": 0.25}], ids=["tenths", "large"])
def test_a_file_more_or_less_moves_hardly_any(sizes: dict[str, float]) -> None:
    """None from train to test or back; of a class at most one each way between neighbours. Two only
    where the rounding of both shares falls to another class at once."""
    rng, num_moved, most = np.random.default_rng(0), 0, []
    for seed in range(200):
        counts = rng.integers(8, 60, 3).tolist()
        files = found(counts)
        label = int(rng.integers(3))
        place = sum(counts[:label])
        more = {"train": [*files["train"][:place], File(f"{label}/-new{seed}.png", label, 1, 1, 1),
                          *files["train"][place:]]}  # fmt: skip
        before, after = carve(files, seed, sizes), carve(more, seed, sizes)
        moved = moves(before, after)
        assert all({a, b} != {"train", "test"} for _, a, b in moved), (counts, moved)
        most.append(max(moved.values(), default=0))
        num_moved += moved.total()
    assert max(most) <= 2
    assert most.count(2) <= 4  # of 200
    assert num_moved < 200 * 3  # of 24 to 180 images


def test_by_position_it_would_all_move() -> None:
    """The twin: the first file of a class taken away, as the sets of fixed files are carved."""
    from tests.helpers.splits import choose_validation

    before, after = (choose_validation(np.zeros(n, int), 0.1, 0, "a") for n in (200, 201))
    by_position = (before != after[1:]).sum()
    files = found([201])
    fewer = {"train": files["train"][1:]}
    assert moves(carve(files), carve(fewer)).total() <= 2
    assert by_position > 20


def test_a_larger_test_split_holds_the_smaller() -> None:
    small, large = (carve(found([90, 60]), sizes={"test": size, "val": 0.1}) for size in (0.1, 0.3))
    assert {n for n, part in small.items() if part == "test"} < {
        n for n, part in large.items() if part == "test"
    }


def test_adding_a_file_to_a_folder_leaves_the_others_where_they_are(tmp_path: Path) -> None:
    root = write_classes(tmp_path, per_class=20)
    files = sorted(root.glob("*/*.png"))
    before = {part: paths_of(split, files) for part, split in splits_of(load(root)).items()}
    files.append(write_image(root / "cat" / "-first.png", seed=77))
    after = {part: paths_of(split, files) for part, split in splits_of(load(root)).items()}
    assert not set(before["train"]) & set(after["test"])
    assert not set(before["test"]) & set(after["train"])
    for part in PARTS:
        assert len(set(after[part]) - set(before[part])) <= 2  # the new one, and one in its place
    assert sum(map(len, after.values())) == 61
    other = {p: paths_of(s, files) for p, s in splits_of(load(root, split_seed=1)).items()}
    assert other["test"] != after["test"]


def test_names_that_are_no_utf8_are_carved_too() -> None:
    files = {"train": [File(f"a/\udcff{i}.png", 0, 1, 1, 1) for i in range(30)]}
    assert Counter(carve(files).values()) == {"test": 3, "val": 3, "train": 24}

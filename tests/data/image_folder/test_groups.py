"""Images that belong together, by a part of their path or a table, stay on one side of a split."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.image_folder.groups import class_of_groups, groups_of
from data.image_folder.packing import File
from data.image_folder.split import carved
from data.types import DataError
from tests.helpers.image_files import PARTS, load, refused, splits_of, write_image

Image = tuple[str, int]  # its group and its class


def carve(
    images: Sequence[Image], seed: int = 0, test: float = 0.2, val: float = 0.2, **folds: int
) -> dict[str, str]:
    """Group -> split. No group may be in two."""
    files = [File(f"{label}/{group}-{i}", label, 1, 1, 1) for i, (group, label) in
             enumerate(images)]  # fmt: skip
    classes = [str(label) for label in range(1 + max(label for _, label in images))]
    split_of = carved({"train": files}, {"test": test, "val": val}, seed, classes,
                      [group for group, _ in images], **folds)  # fmt: skip
    found: dict[str, str] = {}
    for (group, _), part in zip(images, split_of.tolist(), strict=True):
        assert found.setdefault(group, part) == part
    return found


def pure(seed: int, num_classes: int = 3, least: int = 8, most: int = 20) -> list[Image]:
    """Groups of one class each, of any size."""
    rng = np.random.default_rng(seed)
    return [
        (f"{label}g{number}", label)
        for label in range(num_classes)
        for number in range(int(rng.integers(least, most + 1)))
        for _ in range(int(rng.integers(1, 9)))
    ]


def mixed(seed: int, num_groups: int = 40, num_classes: int = 3) -> list[Image]:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 12, num_groups)
    return [
        (f"g{number}", int(label))
        for number, size in enumerate(sizes)
        for label in rng.integers(0, num_classes, size)
    ]


@pytest.mark.parametrize("seed", range(100))
def test_groups_of_one_class_are_drawn_as_images_are(seed: int) -> None:
    """Of each class its share of groups, to one; the same ones as if each were an image."""
    images = pure(seed)
    split_of = carve(images, seed)
    labels = dict(images)
    counts = Counter(labels.values())
    names = sorted(labels)
    as_images = carved(
        {"train": [File(name, labels[name], 1, 1, 1) for name in names]},
        {"test": 0.2, "val": 0.2}, seed, "abc",
    )  # fmt: skip
    assert split_of == dict(zip(names, as_images.tolist(), strict=True))
    for label, count in counts.items():
        in_test = sum(split_of[g] == "test" for g in names if labels[g] == label)
        assert abs(in_test - 0.2 * count) < 1
        assert {split_of[g] for g in names if labels[g] == label} == set(PARTS)


@given(
    images=st.lists(
        st.tuples(st.integers(0, 15).map("g{}".format), st.integers(0, 2)), min_size=1, max_size=80
    ),
    seed=st.integers(0, 1000),
    folds=st.sampled_from([0, 2, 3]),
)
def test_no_group_is_divided_whatever_it_holds(images: list[Image], seed: int, folds: int) -> None:
    try:
        split_of = carve(images, seed, folds=folds)
    except DataError as error:
        assert "Too few groups with images of" in str(error)  # noqa: PT017
        return
    assert {"train", "val", "test"} <= set(split_of.values())
    num_groups = len(set(split_of))
    num_test = round(0.2 * num_groups)
    part = "unused" if folds else "test"
    assert Counter(split_of.values())[part] == max(num_test, 1)


def moved(before: dict[str, str], after: dict[str, str]) -> list[tuple[str, str]]:
    return [(before[g], after[g]) for g in before.keys() & after.keys() if before[g] != after[g]]


def test_a_group_more_moves_at_most_one_over_each_border() -> None:
    """As of images: of a class one over each border (two where the rounding of both shares falls to
    it), none from train to test or back."""
    most, num_moved = [], 0
    for seed in range(200):
        images = pure(seed)
        label = int(np.random.default_rng(seed).integers(3))
        more = [*images, *[("another", label)] * 5]
        moves = moved(carve(images, seed), carve(more, seed))
        assert all({*move} != {"train", "test"} for move in moves)
        labels = dict(images)
        before, after = carve(images, seed), carve(more, seed)
        of_class = Counter(
            (labels[g], before[g], after[g]) for g in before if before[g] != after[g]
        )
        most.append(max(of_class.values(), default=0))
        num_moved += len(moves)
    assert max(most) <= 2
    assert most.count(2) <= 4
    assert 0 < num_moved < 200 * 3  # of 24 to 60 groups


def test_an_image_more_in_a_group_moves_nothing() -> None:
    for seed in range(100):
        images = pure(seed)
        assert carve([*images, images[seed]], seed) == carve(images, seed)


def test_where_groups_mix_classes_hardly_any_moves() -> None:
    """The group that an image joins may then count as of another class; then it may move itself."""
    num_moved, num_across = [], 0
    for seed in range(200):
        images = mixed(seed)
        more = [*images, *[("another", seed % 3)] * 4]
        moves = moved(carve(images, seed), carve(more, seed))
        num_moved.append(len(moves))
        num_across += any({*move} == {"train", "test"} for move in moves)
    assert np.mean(num_moved) < 2  # of 40
    assert num_across <= 2  # of 200


def test_if_each_draw_were_anew_most_would_move() -> None:
    """The twin."""
    moves = [len(moved(carve(mixed(1), seed), carve(mixed(1), seed + 1))) for seed in range(50)]
    assert np.mean(moves) > 10


def test_classes_stay_in_proportion_where_groups_mix_them() -> None:
    shares = []
    for seed in range(200):
        images = mixed(seed, num_groups=60)
        split_of = carve(images, seed)
        for label in range(3):
            own = [split_of[group] for group, own_label in images if own_label == label]
            shares.append(own.count("test") / len(own))
    assert np.mean(shares) == pytest.approx(0.2, abs=0.01)
    assert np.std(shares) < 0.06  # of 600; groups are of 1 to 11 images


def test_what_is_rare_is_shared_out() -> None:
    """Six of fifty patients have one image in ten of what is looked for, nobody more of it than
    of the other: by the class of most images alone, chance would leave a split without any."""
    images = [(f"p{number}", int(number < 6 and i == 0)) for number in range(50) for i in range(10)]
    for seed in range(100):
        split_of = carve(images, seed)
        assert {split_of[f"p{number}"] for number in range(6)} == set(PARTS)
    alone = [carve([(group, 0) for group, _ in images], seed) for seed in range(100)]
    covered = [len({split_of[f"p{n}"] for n in range(6)}) == 3 for split_of in alone]
    assert 10 < sum(covered) < 90  # the twin


def test_the_class_that_a_group_counts_as() -> None:
    counts = np.array([[9, 0, 0], [5, 4, 0], [3, 3, 0], [2, 0, 1], [9, 0, 1], [40, 38, 2]])
    assert counts.sum(axis=0).tolist() == [68, 45, 4]  # the third weighs 16 times
    assert class_of_groups(counts).tolist() == [0, 0, 0, 2, 2, 0]


def test_folds_by_group() -> None:
    images = pure(3)
    labels = dict(images)
    held_out: list[str] = []
    for fold in range(4):
        split_of = carve(images, folds=4, fold=fold)
        assert set(split_of.values()) == {"train", "val", "test", "unused"}
        held_out += [group for group, part in split_of.items() if part == "test"]
        for label in range(3):
            rest = [g for g in split_of if labels[g] == label and split_of[g] != "unused"]
            own = sum(split_of[g] == "test" for g in rest)
            assert abs(own - len(rest) / 4) < 1
    unused = [group for group, part in split_of.items() if part == "unused"]
    assert sorted([*held_out, *unused]) == sorted(labels)
    assert [g for g, part in carve(images).items() if part == "test"] == unused


# From the key to the groups


def write_groups(root: Path, groups: int = 12, part: str = "", first: int = 0) -> Path:
    """`root/<part>/<class>/p<group>_<i>.png`: the same groups in both classes."""
    for label, name in enumerate(("cat", "dog")):
        for group, i in itertools.product(range(first, first + groups), range(2)):
            seed = 10_000 * label + 10 * group + i
            write_image(root / part / name / f"p{group:02}_{i}.png", seed, (8, 8))
    return root


def table(path: Path, rows: Sequence[tuple[str, str]], head: str = "file,group") -> str:
    path.write_text("\n".join([head, *(f"{name},{group}" for name, group in rows)]))
    return str(path)


def test_an_expression_and_a_table_give_the_same_groups(tmp_path: Path) -> None:
    root = write_groups(tmp_path / "set")
    made = load(root, group=r"(p\d+)_")
    assert made.groups is not None
    assert {part: len(names) for part, names in made.groups.items()} == {
        "train": 10, "val": 1, "test": 1
    }  # fmt: skip
    assert sorted(itertools.chain(*made.groups.values())) == [f"p{g:02}" for g in range(12)]
    for part, split in splits_of(made).items():
        names = [split.file_at(i) or "" for i in range(len(split))]
        assert {name[4:7] for name in names} == set(made.groups[part])
    assert made.notes[0] == "groups: 10 in train, 1 in val, 1 in test"
    rows = [(path.relative_to(root).as_posix(), path.name[:3]) for path in root.rglob("*.png")]
    by_table = load(root, group=table(tmp_path / "Groups.CSV", [*rows, ("not/there.png", "x")]))
    assert by_table.fingerprint == made.fingerprint
    assert by_table.groups == made.groups
    dotted = [(f"./{name}", group) for name, group in rows]
    other = table(tmp_path / "other.csv", [(f"{n},7", g) for n, g in dotted], "file, size, group")
    assert load(root, group=other).fingerprint == made.fingerprint
    without = load(root)  # the twin
    assert without.groups is None
    assert without.fingerprint != made.fingerprint


def test_groups_on_two_sides_of_the_users_own_folders_are_a_leak(tmp_path: Path) -> None:
    root = write_groups(tmp_path, part="train")
    write_groups(root, groups=4, part="val", first=20)
    write_groups(root, groups=4, part="test", first=10)
    notes = load(root, group=r"(p\d+)_").notes
    assert notes[-2:] == (
        "groups: 12 in train, 4 in val, 4 in test",
        "a leak: 2 groups are in train and in test, and the test figures too good: p10, p11",
    )
    assert not any("leak" in note for note in load(root).notes)
    clean = load(root, group=r"(train.*|val.*|test.*)_").notes  # the twin
    assert not any("leak" in note for note in clean)


@pytest.mark.parametrize(
    ("group", "message"),
    [
        (r"(p\d+", "is no regular expression: missing )"),
        (r"p\d+_", r"has no part in parentheses, which names the group: data.group='(p\d+_)'?"),
        (r"(p0\d)_", "8 of 48 images have no group by it: cat/p10_0.png, cat/p10_1.png"),
        (r"(x)?p", "48 of 48 images have no group by it"),
        (r"(.*/)?p", "Too few groups with images of cat, dog: each class needs 3 or more"),
        (r"(png)", "all 48 images are in one group, png"),
        (r"([cd]..)/p0", "8 of 48 images have no group"),
        ("nowhere.csv", "nowhere.csv: does not exist"),
        (".csv", "does not exist"),
    ],
)  # fmt: skip
def test_what_gives_no_groups_is_refused(tmp_path: Path, group: str, message: str) -> None:
    root = write_groups(tmp_path)
    found = refused(root, group=group)
    assert found.startswith("data.group=") or "Too few groups" in found
    assert message in found
    assert load(root, group=r"(p\d+)_").groups  # the twin


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "must name the columns file and group, with a comma between them, and is ''."),
        ("file;group\na;b", "and is 'file;group'."),
        ("name,group\na,b", "and is 'name,group'."),
        ("file,group\ncat/p00_0.png,a\ncat/p00_0.png,b", "cat/p00_0.png is in two groups, a and b"),
        ("file,group\ncat/p00_0.png,a", "47 of 48 images have no group by it: cat/p00_1.png"),
        ("file,group\n" + "a" * 200_000, "is no CSV file: field larger than field limit"),
    ],
    ids=["empty", "semicolon", "name", "two", "most", "long"],
)  # fmt: skip
def test_tables_that_are_wrong_are_refused(tmp_path: Path, content: str, message: str) -> None:
    root = write_groups(tmp_path / "set")
    (tmp_path / "g.csv").write_text(content)
    found = refused(root, group=str(tmp_path / "g.csv"))
    assert found.startswith(f"data.group={tmp_path / 'g.csv'}: ")
    assert message in found


def test_a_class_that_no_drawn_group_has_is_named(tmp_path: Path) -> None:
    """Five classes of six videos each, of which a tenth are three."""
    for label, group in itertools.product(range(5), range(6)):
        write_image(tmp_path / f"c{label}" / f"v{label}{group}.png", 10 * label + group, (4, 4))
    message = refused(tmp_path, group=r"(v\d+)")
    assert re.match(r".*: none of the groups drawn for test has an image of c\d, c\d", message)
    message = refused(tmp_path, group=r"(v\d+)", test_size=0.2)
    assert message.startswith("data.group=(v\\d+): none of the groups drawn for val has an image")
    made = load(tmp_path, group=r"(v\d+)", test_size=0.2, val_size=0.21)  # the twin
    assert len(made.test) == len(made.val) + 1 == 6


@pytest.mark.parametrize("given", [{}, {"test_size": 0.2}, {"val_size": 0.3}, {"split_seed": 3}])
def test_the_least_fractions_are_those_that_work(tmp_path: Path, given: dict[str, float]) -> None:
    """Against trying them: as told it works, and with a hundredth less of either it does not."""
    for label, group in itertools.product(range(5), range(6)):
        write_image(tmp_path / f"c{label}" / f"v{label}{group}.png", 10 * label + group, (4, 4))
    message = refused(tmp_path, group=r"(v\d+)", **given)
    told = {name: float(size) for name, size in re.findall(r"data\.(\w+_size)=([\d.]+)", message)}
    assert told
    keys = {"group": r"(v\d+)", **given, **told}
    made = load(tmp_path, **keys)
    assert all(len(set(split.labels.tolist())) == 5 for split in splits_of(made).values())
    for name, size in told.items():
        assert "none of the groups" in refused(tmp_path, **{**keys, name: size - 0.01})


def test_where_no_fraction_works_it_is_said(tmp_path: Path) -> None:
    """All images of a class are of three videos, which show another class as well."""
    for group in range(30):
        for label in range(1 + (group < 3)):
            write_image(tmp_path / f"c{label}" / f"v{group}.png", 100 * label + group, (4, 4))
    keys = {"group": r"(v\d+)", "test_size": 0.9}
    assert "No larger fractions work." in refused(tmp_path, **keys)


def test_every_fold_is_looked_at_before_one_is_trained(tmp_path: Path) -> None:
    """Patients who all have both classes but for three, of whom a fold has none."""
    for group in range(20):
        for label in range(1 + (group < 3)):
            path = tmp_path / f"c{label}" / f"p{group}.png"
            write_image(path, 100 * label + group, (4, 4))
    keys = {"group": r"(p\d+)", "test_size": 0, "val_size": 0.2}
    messages = {refused(tmp_path, folds=4, fold=fold, **keys) for fold in range(4)}
    assert len(messages) == 1
    message = messages.pop()
    assert "Too few groups with images of c1: each class needs 4 or more" in message
    assert message.endswith("folds=3 is the most that works.")
    assert "works" not in refused(tmp_path, folds=0, **{**keys, "test_size": 0.9})
    for fold in range(3):
        load(tmp_path, folds=3, fold=fold, **keys)  # the twin


def test_names_that_are_no_utf8_have_groups() -> None:
    names = [f"a/\udcff{i}_{j}" for i in range(4) for j in range(2)]
    found = groups_of("/(.+)_", names)
    assert found == [name[2:4] for name in names]
    images = [(group, i % 2) for i, group in enumerate(found)]
    assert set(carve(images).values()) == set(PARTS)

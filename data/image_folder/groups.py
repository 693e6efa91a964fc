"""Groups of images, such as those of a patient or a video, which belong on one side of a split."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from data.image_folder.lists import read_groups
from data.image_folder.names import join_first_ten
from data.types import DataError, count, printable

TABLE = ".csv"  # how the name of a file ends that data.group may name instead of an expression
WAY_OUT = "or list all images in a CSV file with the columns file,group: data.group=FILE.csv."


def groups_of(group: str, names: Sequence[str]) -> list[str]:
    """The group of each file.

    Args:
        group: a regular expression, whose first group is searched in the names, or a CSV file.
        names: the files' paths below the dataset's folder, with slashes.

    Raises:
        DataError: it is neither, a file has no group, or all have the same.
    """
    if group.lower().endswith(TABLE):
        table = read_groups("data.group", group)
        found = [table.get(name, "") for name in names]
        way_out = "Add a line for each, with its path as counted from data.root."
    else:
        found = _by_expression(group, names)
        way_out = f"Let the expression match them, too, by an alternative (...|...), {WAY_OUT}"
    if without := [name for name, own in zip(names, found, strict=True) if not own]:
        raise DataError(
            f"data.group={printable(group)}: {len(without):,} of {count(len(names), 'image')} "
            f"{'has' if len(without) == 1 else 'have'} no group by it: {join_first_ten(without)}. "
            f"{way_out}"
        )
    if len(set(found)) == 1:
        raise DataError(
            f"data.group={printable(group)}: all {len(names):,} images are in one group, "
            f"{printable(found[0])}. A split needs several; leave the key out if there is only one."
        )
    return found


def _by_expression(group: str, names: Sequence[str]) -> list[str]:
    try:
        expression = re.compile(group)
    except (re.error, OverflowError, RecursionError) as error:
        raise DataError(
            f"data.group={printable(group)}: is no regular expression: {error}. For example, "
            f"data.group='(patient\\d+)_'; {WAY_OUT}"
        ) from error
    if not expression.groups:
        raise DataError(
            f"data.group={printable(group)}: has no part in parentheses, which names the group: "
            f"data.group='({printable(group)})'?"
        )
    found = map(expression.search, names)
    return [(match[1] or "") if match else "" for match in found]


def class_of_groups(counts: np.ndarray) -> np.ndarray:
    """The class that each group counts as, where it is drawn: (G,) int64.

    It is that of most of its images, where an image of a class that has less than a half (an
    eighth, a thirty-second, ...) of the images of the largest class counts four (16, 64, ...)
    times: so that patients who have what is rare are shared out.

    Args:
        counts: (G, K) images of each class in each group.
    """
    totals = np.maximum(counts.sum(axis=0), 1)
    weights = 4.0 ** np.round(np.log2(totals.max() / totals) / 2)
    labels: np.ndarray = np.argmax(counts * weights, axis=1)
    return labels


def by_split(groups: Sequence[str], split_of: np.ndarray) -> dict[str, tuple[str, ...]]:
    """The names of the groups in each split, sorted."""
    found: dict[str, set[str]] = {part: set() for part in ("train", "val", "test")}
    for group, part in zip(groups, split_of.tolist(), strict=True):
        if part in found:
            found[part].add(group)
    return {part: tuple(sorted(own)) for part, own in found.items()}


def on_two_sides(groups: Mapping[str, Sequence[str]]) -> dict[tuple[str, str], list[str]]:
    """The groups that are in two splits, by the later and the earlier of these: what is learned or
    chosen by one of them is measured by the other."""
    pairs = (("test", "train"), ("val", "train"), ("test", "val"))
    shared = {(a, b): sorted({*groups[a]} & {*groups[b]}) for a, b in pairs}
    return {pair: names for pair, names in shared.items() if names}


def notes_on_groups(groups: Mapping[str, Sequence[str]], has_folds: bool = False) -> Iterator[str]:
    called = {"test": "the held-out fold"} if has_folds else {}
    yield "groups: " + ", ".join(
        f"{len(own):,} in {called.get(part, part)}" for part, own in groups.items()
    )
    for (later, earlier), names in on_two_sides(groups).items():
        yield (
            f"a leak: {count(len(names), 'group is', 'groups are')} in {earlier} and in {later}, "
            f"and the {later} figures too good: {join_first_ten(names)}"
        )

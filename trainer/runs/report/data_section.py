"""Equal images of a run's dataset, as its page shows them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.runs.side_files import LARGEST_COUNT, read_json

MOST_NAMED = 20
COUNTS = {
    "test_in_train": "test images that are in train, too",
    "val_in_train": "validation images that are in train, too",
    "test_in_val": "test images that are in validation, too, and not in train",
    "label_conflicts": "images under more than one label",
    "left_out_of_train": "images left out of train, since validation or test has them",
    "left_out_of_val": "images left out of validation, since test has them",
}


@dataclass(frozen=True)
class Data:
    """Content of data.html. counts: what, how many. groups: equal images, each by place and
    label."""

    counts: list[tuple[str, str]]
    groups: list[list[str]]
    num_more: int
    known: str


def data(folder: Path) -> Data:
    """Of leaks.json, which runs have where there is something to tell. Raises one of
    UNREADABLE."""
    found = read_json(folder / "leaks.json")
    numbers = {key: found["counts"][key] for key in COUNTS}
    if any(type(n) is not int or not 0 <= n < LARGEST_COUNT for n in numbers.values()):
        raise ValueError("a count is no count")
    groups = [[said(place) for place in group] for group in found["copies"] + found["left_out"]]
    return Data(
        [(what, f"{numbers[key]:,}") for key, what in COUNTS.items() if numbers[key]],
        groups[:MOST_NAMED],
        max(0, len(groups) - MOST_NAMED),
        str(found["known"]),
    )


def counts(folder: Path) -> list[str]:
    """As "test images that are in train, too: 3", for the top of the page. Raises as `data`."""
    return [f"{what}: {number}" for what, number in data(folder).counts]


def said(place: dict[str, Any]) -> str:
    name = place["file"] if "file" in place else f"image {int(place['index']):,}"
    return f"{name} ({place['split']}, {place['label']})"

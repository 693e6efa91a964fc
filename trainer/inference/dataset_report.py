"""Report of a dataset without training: findings with what to do, then tables."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from data.duplicates.exact import equal_images
from data.duplicates.leaks import leaking, plain_place
from data.duplicates.near import LEAST_SIDE, MOST_IMAGES, near_copies
from data.image_folder.groups import on_two_sides
from data.inspection import flat_images, notes_on_counts
from data.types import Dataset, Leaks, Place
from trainer.builders.datasets import load_data
from trainer.text.printable import printable
from trainer.text.tables import align
from trainer.text.values import count

FIRST, MOST_ROWS = 3, 20  # that a finding names; of a table
MOST_CLASSES = 100  # in the table
PARTS = ("train", "val", "test")
REMOVE = "data.on_leak=drop leaves them out of train (and of val); better, remove them"


@dataclass(frozen=True)
class Report:
    """What a dataset holds.

    Attributes:
        near: groups of nearly equal images.
        unsearched: why near copies were not looked for, or empty.
        flat: images that are nearly one colour.
    """

    dataset: Dataset
    near: Leaks
    unsearched: str
    flat: tuple[Place, ...]


def inspect(options: Mapping[str, Any]) -> Report:
    """Report of the dataset of the options data.*. Raises UserError."""
    options = {**options, "on_leak": "warn"}
    if "on_bad_image" in options:
        options["on_bad_image"] = "skip"
    dataset = load_data(options)
    splits = {part: getattr(dataset, part) for part in PARTS}
    places = [(part, i) for part, split in splits.items() for i in range(len(split))]
    why, near = unsearched(dataset, len(places)), []
    if not why:
        copies = [number for group in equal_images(list(splits.values())) for number in group[1:]]
        with tqdm(total=len(places), desc="comparing images", unit=" images", disable=None,
                  file=sys.__stderr__) as bar:  # fmt: skip
            near = near_copies(list(splits.values()), copies, bar.update)
    groups = (tuple(splits[p].place_at(i, p) for p, i in map(places.__getitem__, g)) for g in near)
    flat = (split.place_at(i, p) for p, split in splits.items() for i in flat_images(split))
    return Report(dataset, Leaks(tuple(groups)), why, tuple(flat))


def unsearched(dataset: Dataset, num_images: int) -> str:
    side = max(dataset.shape[1:])
    if side < LEAST_SIDE:
        return f"images of {side} pixels are too small; {LEAST_SIDE} are needed"
    if num_images > MOST_IMAGES:
        return f"{count(num_images, 'image')} are too many; up to {MOST_IMAGES:,} are compared"
    return ""


def counts(dataset: Dataset) -> dict[str, dict[str, int]]:
    """Number of images of each class in each split."""
    found = {
        part: getattr(dataset, part).labels.bincount(minlength=len(dataset.classes)).tolist()
        for part in PARTS
    }
    return {
        name: {part: found[part][label] for part in PARTS}
        for label, name in enumerate(dataset.classes)
    }


def as_plain(report: Report) -> dict[str, Any]:
    """Report as plain data, for --json."""
    dataset = report.dataset

    def listed(groups: Sequence[Sequence[Place]]) -> list[list[dict[str, Any]]]:
        return [[plain_place(place, dataset.classes) for place in group] for group in groups]

    return {
        "num_images": sum(len(getattr(dataset, part)) for part in PARTS),
        "classes": counts(dataset),
        "damaged": [{"file": name, "reason": reason} for name, reason in dataset.damaged],
        "exact_copies": listed(dataset.leaks.copies),
        "near_copies": listed(report.near.copies),
        "label_conflicts": listed(dataset.leaks.contradictions),
        "groups": [
            {"group": name, "splits": [part for part in PARTS if name in own[part]]}
            for own in [dataset.groups or dict.fromkeys(PARTS, ())]
            for name in sorted({name for names in own.values() for name in names})
        ],
    }


def as_text(report: Report) -> str:
    """Report for the terminal."""
    found = list(findings(report))
    blocks = ["\n".join(f"- {printable(what)}\n  {printable(do)}" for what, do in found)]
    if not found:
        blocks = ["Nothing was found that would spoil a training or its figures."]
    if report.unsearched:
        blocks.append(f"Near copies were not looked for: {report.unsearched}.")
    blocks.append(class_table(report.dataset))
    lists = (
        ("damaged files", [f"{name}: {reason}" for name, reason in report.dataset.damaged]),
        ("exact copies", spelled(report.dataset.leaks.copies, report.dataset.classes)),
        ("near copies", spelled(report.near.copies, report.dataset.classes)),
        ("nearly one colour", [str(place) for place in report.flat]),
    )
    for title, lines in lists:
        if lines:
            rest = [f"and {len(lines) - MOST_ROWS:,} more; --json lists all"]
            shown = [*lines[:MOST_ROWS], *(rest if len(lines) > MOST_ROWS else [])]
            blocks.append("\n".join([title, *(f"  {printable(line)}" for line in shown)]))
    return "\n\n".join(blocks)


def spelled(groups: Sequence[Sequence[Place]], classes: Sequence[str]) -> list[str]:
    """Groups that lie in several splits first."""
    order = sorted(groups, key=lambda group: len({place.split for place in group}) == 1)
    return [" = ".join(f"{p} ({p.split}, {classes[p.label]})" for p in group) for group in order]


def class_table(dataset: Dataset) -> str:
    rows = [
        [name, *(f"{own[part]:,}" for part in PARTS), f"{sum(own.values()):,}"]
        for name, own in counts(dataset).items()
    ]
    sums = [f"{len(getattr(dataset, part)):,}" for part in PARTS]
    total = f"{sum(len(getattr(dataset, part)) for part in PARTS):,}"
    lines = [["class", *PARTS, "all"], *rows[:MOST_CLASSES], ["all", *sums, total]]
    rest = f"\nand {len(rows) - MOST_CLASSES:,} more classes; --json lists all"
    return align(lines, left=(0,)) + (rest if len(rows) > MOST_CLASSES else "")


def findings(report: Report) -> Iterator[tuple[str, str]]:
    """What is wrong or doubtful, the gravest first, each with what to do."""
    dataset, near = report.dataset, report.near
    if dataset.damaged:
        names = named([name for name, _ in dataset.damaged])
        yield (
            f"damaged: {count(len(dataset.damaged), 'file')} cannot be used: {names}",
            "Repair or remove them; data.on_bad_image=skip leaves them out of a training.",
        )
    for part, other, pairs in leaking(dataset.leaks):
        yield (
            f"exact copies: {images(len(pairs), part, 'is', 'are')} in {other}, too: "
            f"{in_pairs(pairs)}",
            f"The {part} figures come out too good. {REMOVE}.",
        )
    for part, other, pairs in leaking(near):
        yield (
            f"near copies: {images(len(pairs), part, 'has', 'have')} near copies in {other}: "
            f"{in_pairs(pairs)}",
            f"Look at them. If they are of one thing, the {part} figures come out too good: keep "
            "them in one split, or remove one of each.",
        )
    for (part, other), shared in split_groups(dataset).items():
        yield (
            f"groups: {count(len(shared), 'has', 'have')} images in {part} and in {other}: "
            f"{named(shared)}",
            f"The {part} figures come out too good: keep all images of a group in one folder.",
        )
    yield from contradictions(dataset)
    if torn := near.contradictions:
        yield (
            f"labels: {count(len(torn), 'group')} of near copies "
            f"{'stands' if len(torn) == 1 else 'stand'} under more than one label: "
            f"{in_pairs(torn)}",
            "Look at them, and decide for one label each.",
        )
    yield from lesser(report)


def split_groups(dataset: Dataset) -> dict[tuple[str, str], list[str]]:
    return {} if dataset.groups is None else on_two_sides(dataset.groups)


def contradictions(dataset: Dataset) -> Iterator[tuple[str, str]]:
    if torn := dataset.leaks.contradictions:
        yield (
            f"labels: {count(len(torn), 'image stands', 'images stand')} under more than one "
            f"label: {in_pairs(torn)}",
            "No network can be right on both: decide for one label and remove the others.",
        )


def lesser(report: Report) -> Iterator[tuple[str, str]]:
    """What spoils no figure by itself."""
    dataset = report.dataset
    for kind, groups in (("exact", dataset.leaks.copies), ("near", report.near.copies)):
        if within := [group for group in groups if len({place.split for place in group}) == 1]:
            yield (
                f"{kind} copies within a split: {count(len(within), 'group')}: {in_pairs(within)}",
                "They count several times; remove what is not meant.",
            )
    if report.flat:
        yield (
            f"nearly one colour: {count(len(report.flat), 'image')}: "
            f"{named(list(map(str, report.flat)))}",
            "Look whether they show what they should.",
        )
    for note in notes_on_counts(dataset.train.labels, dataset.classes):
        what, _, do = note.partition("; ")
        yield what, f"{do[:1].upper()}{do[1:]}."
    if dataset.leaks.known:
        yield dataset.leaks.known, "Say so beside the figures, or test on ciFAIR's test images."


def images(number: int, part: str, one: str, several: str) -> str:
    """As "1 test image is" or "3 test images are"."""
    return count(number, f"{part} image {one}", f"{part} images {several}")


def in_pairs(groups: Sequence[Sequence[Place]]) -> str:
    return named([" = ".join(map(str, group[:FIRST])) for group in groups])


def named(names: Sequence[str]) -> str:
    rest = f" and {len(names) - FIRST:,} more" if len(names) > FIRST else ""
    return ", ".join(names[:FIRST]) + rest

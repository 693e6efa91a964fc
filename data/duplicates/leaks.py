"""Equal images in several splits and under several labels: told, refused, or left out of train."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data.duplicates.exact import equal_images
from data.types import DataError, Leaks, Place, Split, count, printable

ON_LEAK = ("warn", "error", "drop")
_RANK = {"train": 0, "val": 1, "test": 2}  # an image stays in the split of the highest rank
_FIRST, _MOST_NAMED = 3, 20  # that are named in a line of the log; in an error
_MOST_KEPT = 1000  # groups in a run's leaks.json


def check_on_leak(on_leak: str) -> None:
    if on_leak not in ON_LEAK:
        raise DataError(f"data.on_leak={on_leak}: must be warn, error or drop.")


def without_leaks(
    splits: Mapping[str, Split], on_leak: str, classes: Sequence[str]
) -> tuple[Leaks, list[Split]]:
    """Equal images of splits that share none, and the splits that `on_leak` leaves of them."""
    parts = [(name, i) for name, split in splits.items() for i in range(len(split))]
    leaks, kept = judged(
        equal_images(list(splits.values())),
        lambda number: splits[parts[number][0]].place_at(parts[number][1], parts[number][0]),
        len(parts), on_leak,
    )  # fmt: skip
    if kept.all():
        return leaks, list(splits.values())
    masks = torch.from_numpy(kept).split([len(split) for split in splits.values()])
    left = [split.subset(mask) for split, mask in zip(splits.values(), masks, strict=True)]
    for name, split in zip(splits, left, strict=True):
        check_none_is_bare(name, split.labels.numpy(), classes)
    return leaks, left


def judged(
    groups: Sequence[Sequence[int]],
    place_of: Callable[[int], Place | None],
    num_images: int,
    on_leak: str,
) -> tuple[Leaks, NDArray[np.bool_]]:
    """What `on_leak` makes of groups of equal images: their places, and the mask of the images
    that stay, (N,).

    Args:
        groups: numbers of the images in each.
        place_of: place of the image with this number; None if it is in no split.

    Raises:
        DataError: by `on_leak=error`, if an image is in more than one split.
    """
    kept = np.ones(num_images, bool)
    copies, left_out = [], []
    for group in groups:
        found = [(number, place) for number in group if (place := place_of(number))]
        if len(found) < 2:
            continue
        copies.append(tuple(place for _, place in found))
        stays = max(copies[-1], key=lambda place: _RANK[place.split])
        for number, place in found if on_leak == "drop" else ():
            if _RANK[place.split] < _RANK[stays.split]:
                kept[number] = False
                left_out.append((place, stays))
    leaks = Leaks(tuple(copies), tuple(left_out))
    if on_leak == "error":
        _refuse(leaks)
    return leaks, kept


def _refuse(leaks: Leaks) -> None:
    lines, pairs = [], []
    for part, other, found in leaking(leaks):
        images = count(len(found), f"{part} image is", f"{part} images are")
        lines.append(f"{images} in {other}, too")
        pairs += found
    if pairs:
        named = "\n  ".join(f"{a} = {b}" for a, b in pairs[:_MOST_NAMED])
        rest = f"\n  and {len(pairs) - _MOST_NAMED:,} more" if len(pairs) > _MOST_NAMED else ""
        named = "\n  ".join(printable(line) for line in named.split("\n  "))
        raise DataError(
            f"data.on_leak=error: {', '.join(lines)}:\n  {named}{rest}\n"
            "Remove one image of each pair. data.on_leak=drop leaves them out of train (and of val "
            "where test has them), data.on_leak=warn takes all and says so in the log."
        )


def leaking(leaks: Leaks) -> Iterator[tuple[str, str, list[tuple[Place, Place]]]]:
    """Split, another split, and the pairs of equal images in them; those in train come first, and
    a test image in val is told only if it is not in train."""
    for part, other in (("test", "train"), ("val", "train"), ("test", "val")):
        pairs = leaks.pairs(part, other)
        if other == "val":
            in_train = {place for place, _ in leaks.pairs("test", "train")}
            pairs = [pair for pair in pairs if pair[0] not in in_train]
        if pairs:
            yield part, other, pairs


def notes_on_copies(leaks: Leaks, classes: Sequence[str]) -> Iterator[str]:
    """A line each for images that are in two splits or were left out for it, and for images
    under several labels, with the first names."""
    if leaks.left_out:
        parts = [place.split for place, _ in leaks.left_out]
        counts = " and ".join(f"{parts.count(p):,} {p}" for p in ("train", "val") if p in parts)
        are = "image is" if len(parts) == 1 else "images are"
        yield printable(
            f"data.on_leak=drop: {counts} {are} left out, for a split that measures has them, "
            f"too: {_named(leaks.left_out)}"
        )
    for part, other, pairs in leaking(remaining(leaks)):
        yield printable(
            f"exact copies: {count(len(pairs), f'{part} image is', f'{part} images are')} in "
            f"{other}, too, and the {part} figures too good: {_named(pairs)}"
        )
    if torn := leaks.contradictions:  # of images that were left out, too: one label is wrong
        few = ", ".join(
            " = ".join(f"{place} ({classes[place.label]})" for place in _of_two_labels(group))
            for group in torn[:_FIRST]
        )
        yield printable(
            f"contradictions: {count(len(torn), 'image stands', 'images stand')} under more than "
            "one label: "
            f"{few}{_more(torn)}"
        )


def remaining(leaks: Leaks) -> Leaks:
    """Equal images without those that were left out."""
    gone = {place for place, _ in leaks.left_out}
    groups = [tuple(place for place in group if place not in gone) for group in leaks.copies]
    return replace(leaks, copies=tuple(group for group in groups if len(group) > 1), left_out=())


def _of_two_labels(group: Sequence[Place]) -> tuple[Place, Place]:
    return group[0], next(place for place in group if place.label != group[0].label)


def _named(pairs: Sequence[tuple[Place, Place]]) -> str:
    return ", ".join(f"{a} = {b}" for a, b in pairs[:_FIRST]) + _more(pairs)


def _more(found: Sequence[object]) -> str:
    return f" and {len(found) - _FIRST:,} more" if len(found) > _FIRST else ""


def check_none_is_bare(part: str, labels: NDArray[np.int64], classes: Sequence[str]) -> None:
    """Raises DataError if a split has no image left of a class."""
    counts = np.bincount(labels, minlength=len(classes))
    if bare := [name for name, count in zip(classes, counts, strict=True) if not count]:
        names = ", ".join(bare[:10]) + (f" and {len(bare) - 10} more" if len(bare) > 10 else "")
        raise DataError(
            printable(
                f"data.on_leak=drop: leaves no {part} image of {names}: equal ones are in the "
                "splits that measure. Remove these copies there, add images, or take another "
                "data.split_seed."
            )
        )


def plain_place(place: Place, classes: Sequence[str]) -> dict[str, str | int | None]:
    """A place as plain data: `file`, or `index` where images have no files of their own, `split`
    and `label`."""
    where = {"index": place.index} if place.file is None else {"file": place.file}
    return {**where, "split": place.split, "label": classes[place.label]}


def plain(leaks: Leaks, classes: Sequence[str]) -> dict[str, Any]:
    """Leaks as plain data: counts, and the groups that lie in several splits or under several
    labels, as many as can be read."""
    left, torn = remaining(leaks), leaks.contradictions
    dropped = [place.split for place, _ in leaks.left_out]
    counts = {f"{a}_in_{b}": len(pairs) for a, b, pairs in leaking(left)}
    told = [*(group for group in left.copies if len({place.split for place in group}) > 1), *torn]
    telling = list(dict.fromkeys(told))
    return {
        "counts": {
            **dict.fromkeys(("test_in_train", "val_in_train", "test_in_val"), 0),
            **counts,
            "label_conflicts": len(torn),
            "groups_of_copies": len(left.copies),
            "left_out_of_train": dropped.count("train"),
            "left_out_of_val": dropped.count("val"),
        },
        "copies": [[plain_place(p, classes) for p in group] for group in telling[:_MOST_KEPT]],
        "left_out": [
            [plain_place(p, classes) for p in pair] for pair in leaks.left_out[:_MOST_KEPT]
        ],
        "known": leaks.known,
    }

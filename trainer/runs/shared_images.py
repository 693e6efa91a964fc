"""Images on which two sides of a comparison can be compared, and what forbids it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from pathlib import PurePosixPath
from typing import Any

from trainer.errors import UserError
from trainer.runs.sides import Side
from trainer.text.values import count, listed

# Keys of data= that decide which pixels a model sees of a test image.
PREPROCESSING = ("shape", "fit", "resize")


def preprocessing(data: Mapping[str, Any], key: str) -> Any:
    """Value of a key, with what null stands for."""
    value, shape = data.get(key), data.get("shape")
    if key == "resize" and value is None and data.get("fit") == "crop" and shape:
        return min(shape[1:])
    return value


def drawn_otherwise(a: Side, b: Side) -> list[str]:
    """The keys by which the splits of two sides were drawn differently, with both values."""
    return [
        f"data.{key}={a.data.get(key)} and {b.data.get(key)}"
        for key in ("split_seed", "val_size", "test_size", "group", "test_files", "folds")
        if a.data and b.data and a.data.get(key) != b.data.get(key)
    ]


def shared_images(a: Side, b: Side) -> list[str]:
    """Images that both sides predicted, in order. Raises UserError where the two cannot be
    compared: a run on both sides, other images, other labels, other preprocessing."""
    if (both := sorted(a.files & b.files)) and a.files != b.files:
        raise UserError(
            f"{a.name} and {b.name} cannot be compared: the run {both[0].parent} is on both sides. "
            "Name sides that have no run in common."
        )
    for key in ("_target_", *PREPROCESSING):
        if a.data and b.data and preprocessing(a.data, key) != preprocessing(b.data, key):
            name = "data" if key == "_target_" else f"data.{key}"
            raise UserError(
                f"{a.name} and {b.name} cannot be compared: {name} is {a.data.get(key)} for the "
                f"one and {b.data.get(key)} for the other, so they saw other pixels."
            )
    check_classes(a, b)
    runs = (*a.runs, *b.runs)
    common = set(runs[0].images).intersection(*(run.images for run in runs[1:]))
    with_files = all(run.has_files for run in runs)
    ids, pixels = (
        {str(side.data[key]) for side in (a, b) if side.data.get(key)}
        for key in ("dataset", "test_sha256")
    )
    sizes_differ = any(len(run.images) != len(common) for run in runs)
    if not sizes_differ and len(ids) < 2 and len(pixels) > 1:
        raise UserError(
            f"{a.name} and {b.name} cannot be compared: their images have the same names, but not "
            "the same pixels. Evaluate both on the same files."
        )
    is_one_set = len(ids) == 1 and all(side.data.get("dataset") for side in (a, b))
    if not common or (not with_files and (len(ids) > 1 or (sizes_differ and not is_one_set))):
        sizes = " and ".join(f"{len(side.runs[0].images):,}" for side in (a, b))
        drawn = " ".join(drawn_otherwise(a, b))
        raise UserError(
            f"{a.name} and {b.name} cannot be compared: their images are not the same ({sizes} "
            f"images{f'; {drawn}' if drawn else ''}). Evaluate both on the same split of the same "
            "dataset."
        )
    check_pixels(a, b, common)
    check_moved(a, b, common)
    labels = [dict(zip(run.images, run.label, strict=True)) for run in runs]
    for image in sorted(common):
        if len({label[image] for label in labels}) > 1:
            told = " and ".join(sorted({label[image] for label in labels}))
            raise UserError(
                f"{a.name} and {b.name} cannot be compared: image {image} is labelled {told}."
            )
    return [image for image in runs[0].images if image in common]


def check_classes(a: Side, b: Side) -> None:
    """Raises UserError where the models of two sides know other classes."""
    of_a, of_b = (set(side.runs[0].classes) for side in (a, b))
    if of_a and of_b and of_a != of_b:
        only = [
            f"{side.name} alone has {listed(sorted(own), 5)}"
            for side, own in ((a, of_a - of_b), (b, of_b - of_a))
            if own
        ]
        raise UserError(
            f"{a.name} and {b.name} cannot be compared: their classes differ: {'; '.join(only)}. "
            "Train both with the same classes."
        )


def check_pixels(a: Side, b: Side, common: Set[str]) -> None:
    """Raises UserError where images of one name, or one place, have other pixels."""
    first, *others = (*a.runs, *b.runs)
    for run in others:
        other = [
            image
            for image in sorted(common & first.keys.keys() & run.keys.keys())
            if first.keys[image] != run.keys[image]
        ]
        if other:
            raise UserError(
                f"{a.name} and {b.name} cannot be compared: "
                f"{count(len(other), 'image has', 'images have')} the same name, but not the same "
                f"pixels: {listed(other, 3)}. Evaluate both on the same files."
            )


def check_moved(a: Side, b: Side, common: Set[str]) -> None:
    """Raises UserError where a file stands under another class for the one side than for the
    other: the same name and pixels in another folder, under another label."""

    def by_pixels(side: Side) -> Iterator[tuple[tuple[str, str], tuple[str, str]]]:
        run = side.runs[0]
        for image, label in zip(run.images, run.label, strict=True):
            if run.has_files and image not in common and image in run.keys:
                yield (run.keys[image], PurePosixPath(image).name), (image, label)

    of_b = dict(by_pixels(b))
    for key, (image, label) in by_pixels(a):
        other, told = of_b.get(key, (image, label))
        if told != label:
            raise UserError(
                f"{a.name} and {b.name} cannot be compared: image {image}, labelled {label}, of "
                f"the one is {other}, labelled {told}, of the other. Evaluate both on the same "
                "files."
            )


def has_unknown_pixels(a: Side, b: Side) -> bool:
    """True where files of one name are taken for the same images, and nothing tells whether they
    are: predictions of an earlier version."""
    runs = (*a.runs, *b.runs)
    digests = {side.data.get("test_sha256") for side in (a, b)}
    are_known = len(digests) == 1 and None not in digests
    return runs[0].has_files and not are_known and not all(run.keys for run in runs)

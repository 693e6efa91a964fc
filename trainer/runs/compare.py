"""Comparison of runs, or of groups of runs, on the same images."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.errors import UserError
from trainer.evaluation import statistics
from trainer.evaluation.statistics import NORMAL, Interval
from trainer.runs import predictions
from trainer.runs.predictions import NAME, Predictions
from trainer.runs.read import Row, read_runs
from trainer.runs.selection import is_repeat
from trainer.runs.side_files import read_json, read_yaml, readable

ALPHA, POWER = 0.05, 0.8
SMALL = 0.005  # a difference that people ask for: half a point
# Keys of data= that decide which pixels a model sees of a test image.
PREPROCESSING = ("shape", "fit", "resize", "pixel_range")


@dataclass(frozen=True)
class Side:
    """A run, or several of one configuration, as it was named on the command line.

    Attributes:
        runs: predictions of each, of the same images.
        data: keys of its configuration's data group.
    """

    name: str
    runs: tuple[Predictions, ...]
    data: Mapping[str, Any]

    def right(self, images: Sequence[str]) -> NDArray[np.bool_]:
        """(runs, images), True where a run has an image right."""
        rows = []
        for run in self.runs:
            at = dict(zip(run.images, run.is_right.tolist(), strict=True))
            rows.append([at[image] for image in images])
        return np.array(rows)


def side_of(words: str, split: str) -> Side:
    """Runs that a word of the command line means. Raises UserError."""
    path, _, overrides = (words, "", "") if Path(words).exists() else words.partition(":")
    folder = Path(path)
    if folder.is_file():
        folder = folder_of(folder, split)
    if not folder.is_dir():
        raise UserError(f"{words}: there is no such run, checkpoint or sweep.")
    wanted = [word for word in overrides.split(",") if word]
    is_sweep = (folder / "multirun.yaml").is_file()
    if (folder / NAME).is_file() and not wanted and not is_sweep:
        return Side(words, (found(folder, split),), data_of(folder))
    rows = [row for row in read_runs(folder) if set(wanted) <= set(row.overrides)]
    rows = [row for row in rows if (row.folder / NAME).is_file()]
    if not rows:
        among = f" with {', '.join(wanted)}" if wanted else ""
        raise UserError(
            f"{words}: no run{among} has a {NAME} there. A finished training writes it; "
            "`evaluate CHECKPOINT` writes it for an older run."
        )
    check_one_configuration(words, folder, rows)
    return Side(words, tuple(by_seed(rows, split)), data_of(rows[0].folder))


def by_seed(rows: Sequence[Row], split: str) -> Iterator[Predictions]:
    """Predictions of each run; of a cross-validation those of all its folds together. Raises
    UserError."""
    groups: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        words = [word for word in row.overrides if not word.startswith("data.fold=")]
        groups[(str(row.folder),) if row.fold is None else tuple(words)].append(row)
    for group in groups.values():
        if split == "val" and len(group) > 1:
            raise UserError(
                "split=val: each fold has validation images of its own. Leave the key out, which "
                "compares the folds that were held out."
            )
        parts = [found(row.folder, split) for row in group]
        yield parts[0] if len(parts) == 1 else predictions.joined(parts)


def folder_of(checkpoint: Path, split: str) -> Path:
    """Folder with the predictions of a checkpoint: the run's, for its best one, else that which
    `evaluate` has left."""
    run = checkpoint.absolute().parent.parent
    in_run = checkpoint.absolute().parent.name == "checkpoints"
    if in_run and checkpoint.stem == "best" and (run / NAME).is_file():
        return run
    if in_run:
        return run / "evaluation" / (split if checkpoint.stem == "best" else
                                     f"{checkpoint.stem}_{split}")  # fmt: skip
    return checkpoint.parent / f"{checkpoint.stem}_evaluation" / split


def check_one_configuration(words: str, folder: Path, rows: Sequence[Row]) -> None:
    """Raises UserError where runs differ in more than the seed: a group is one configuration."""
    groups: dict[tuple[str, ...], int] = defaultdict(int)
    for row in rows:
        groups[tuple(sorted(w for w in row.overrides if not is_repeat(w)))] += 1
    if len(groups) > 1:
        shared = set.intersection(*(set(group) for group in groups))
        names = [",".join(w for w in group if w not in shared) or "(defaults)" for group in groups]
        raise UserError(
            f"{words}: holds {len(groups)} configurations; a side of a comparison is one. Name it: "
            + ", ".join(f"{folder}:{name}" for name in sorted(names)[:10])
        )


def found(folder: Path, split: str) -> Predictions:
    file = folder / NAME
    try:
        read = predictions.read(file, split)
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read: {error}") from error
    if read is None:
        ways = {
            "test": "the test split of this run was not read. split=val compares on the validation "
            f"split; `python -m trainer resume {folder} test=all` reads it",
            "val": "split=test may be there",
        }
        raise UserError(f"{file}: has no predictions of the {split} split: {ways[split]}.")
    return read


def data_of(folder: Path) -> Mapping[str, Any]:
    """Keys of the data group with which the predictions in a folder were made, and `dataset`, the
    id of the test split, as far as they are known."""
    evaluated = readable({}, read_json, folder / "evaluation.json")
    if isinstance(evaluated.get("data"), dict):
        return {**evaluated["data"], "dataset": evaluated.get("dataset")}
    config = readable({}, read_yaml, folder / ".hydra" / "config.yaml")
    data = config.get("data") if isinstance(config, dict) else None
    summary = readable({}, read_json, folder / "summary.json")
    return {**data, "dataset": summary.get("dataset")} if isinstance(data, dict) else {}


def shared_images(a: Side, b: Side) -> list[str]:
    """Images that both sides predicted, in order. Raises UserError where the two cannot be
    compared: other images, other labels, other preprocessing."""
    for key in ("_target_", *PREPROCESSING):
        if a.data and b.data and a.data.get(key) != b.data.get(key):
            name = "data" if key == "_target_" else f"data.{key}"
            raise UserError(
                f"{a.name} and {b.name} cannot be compared: {name} is {a.data.get(key)} for the "
                f"one and {b.data.get(key)} for the other, so they saw other pixels."
            )
    runs = (*a.runs, *b.runs)
    common = set(runs[0].images).intersection(*(run.images for run in runs[1:]))
    with_files = all(run.has_files for run in runs)
    ids = {str(side.data["dataset"]) for side in (a, b) if side.data.get("dataset")}
    differ = any(len(run.images) != len(common) for run in runs) or len(ids) > 1
    if not common or (not with_files and differ):
        sizes = " and ".join(f"{len(side.runs[0].images):,}" for side in (a, b))
        raise UserError(
            f"{a.name} and {b.name} cannot be compared: their images are not the same ({sizes} "
            "images). Evaluate both on the same split of the same dataset."
        )
    labels = [dict(zip(run.images, run.label, strict=True)) for run in runs]
    for image in sorted(common):
        if len({label[image] for label in labels}) > 1:
            told = " and ".join(sorted({label[image] for label in labels}))
            raise UserError(
                f"{a.name} and {b.name} cannot be compared: image {image} is labelled {told}."
            )
    return [image for image in runs[0].images if image in common]


@dataclass
class Comparison:
    """Two sides on the same images: accuracies, their difference (B minus A), and how sure it is.

    Attributes:
        p_value: two-sided, unadjusted; p_holm: corrected where there are several comparisons.
    """

    a: str
    b: str
    n: int
    accuracy_a: float
    accuracy_b: float
    difference: float
    interval: Interval
    p_value: float
    p_holm: float
    method: str
    advice: str

    @property
    def verdict(self) -> str:
        """In words: which is better by how much, or what it would take to tell."""
        low, high = (100 * value for value in sorted(self.interval))
        if self.p_holm < ALPHA and self.difference:
            better, other = (self.b, self.a) if self.difference > 0 else (self.a, self.b)
            low, high = (low, high) if self.difference > 0 else (-high, -low)
            return (
                f"{better} is better than {other} by {100 * abs(self.difference):.1f} points "
                f"({low:.1f} to {high:.1f}), p = {self.p_holm:.2g}"
            )
        return (
            f"{self.a} and {self.b} are not distinguishable with {self.n:,} images "
            f"(difference {100 * self.difference:+.1f} points, {low:.1f} to {high:.1f}, "
            f"p = {self.p_holm:.2g}); {self.advice}"
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "a": self.a, "b": self.b, "n": self.n, "accuracy_a": self.accuracy_a,
            "accuracy_b": self.accuracy_b, "difference": self.difference,
            "low": self.interval.low, "high": self.interval.high, "p_value": self.p_value,
            "p_holm": self.p_holm, "method": self.method, "verdict": self.verdict,
        }  # fmt: skip


def compared(sides: Sequence[Side]) -> list[Comparison]:
    """Every pair of sides, with Holm's correction for their number."""
    pairs = [compare(a, b) for a, b in itertools.combinations(sides, 2)]
    for pair, p_value in zip(pairs, statistics.holm([p.p_value for p in pairs]), strict=True):
        pair.p_holm = p_value
    return pairs


def compare(a: Side, b: Side) -> Comparison:
    images = shared_images(a, b)
    right_a, right_b = a.right(images), b.right(images)
    n, accuracies = len(images), (float(right_a.mean()), float(right_b.mean()))
    if len(right_a) == len(right_b) == 1:
        only_a, only_b = (
            int((x[0] & ~y[0]).sum()) for x, y in ((right_a, right_b), (right_b, right_a))
        )
        interval = statistics.paired_difference(only_a, only_b, n)
        p_value = statistics.mcnemar(only_a, only_b)
        method = "McNemar's exact test, Tango's interval"
        advice = images_advice((only_a + only_b) / n)
    else:
        found = statistics.seeds_and_images(right_a, right_b)
        interval, p_value = found.interval, found.p_value
        method = "t-test over seeds and images"
        advice = seeds_advice(right_a, right_b)
    difference = accuracies[1] - accuracies[0]
    return Comparison(
        a.name, b.name, n, *accuracies, difference, interval, p_value, p_value, method, advice
    )  # fmt: skip


def images_advice(discordant: float) -> str:
    """Number of images that would show half a point, if as many of them are told apart."""
    z = NORMAL.inv_cdf(1 - ALPHA / 2), NORMAL.inv_cdf(POWER)
    share = max(discordant, SMALL)
    needed = ((z[0] * math.sqrt(share) + z[1] * math.sqrt(share - SMALL**2)) / SMALL) ** 2
    return (
        f"about {round(needed, -2):,.0f} images would show a difference of {100 * SMALL:g} points "
        f"with {100 * POWER:.0f} % power"
    )


def seeds_advice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> str:
    """Number of seeds that would show half a point on images of this kind."""
    spreads = [group.mean(axis=1).std(ddof=1) for group in (a, b) if len(group) > 1]
    needed = statistics.seeds_needed(SMALL, float(np.mean(spreads)), POWER)
    return (
        f"{needed} seeds each would show a difference of {100 * SMALL:g} points with "
        f"{100 * POWER:.0f} % power on these images"
    )

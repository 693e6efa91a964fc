"""Sides of a comparison: the runs that a word of the command line means, and their predictions."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.errors import UserError
from trainer.runs import predictions
from trainer.runs.predictions import NAME, Predictions
from trainer.runs.read import Row, read_runs
from trainer.runs.selection import is_repeat
from trainer.runs.side_files import content, read_json, read_yaml, readable
from trainer.runs.sweep_file import is_sweep
from trainer.text.values import count, listed


@dataclass(frozen=True)
class Side:
    """A run, or several of one configuration, as it was named on the command line.

    Attributes:
        runs: predictions of each, of the same images.
        data: keys of its configuration's data group.
        files: where the predictions were read, whole paths.
    """

    name: str
    runs: tuple[Predictions, ...]
    data: Mapping[str, Any]
    files: frozenset[Path]

    def right(self, images: Sequence[str]) -> NDArray[np.bool_]:
        """(runs, images), True where a run has an image right."""
        rows = []
        for run in self.runs:
            at = dict(zip(run.images, run.is_right.tolist(), strict=True))
            rows.append([at[image] for image in images])
        return np.array(rows)


def side_of(words: str, split: str) -> Side:
    """Runs that a word of the command line means. Raises UserError."""
    folder, overrides = divided(words)
    if folder.is_file():
        checkpoint, folder = folder, folder_of(folder, split)
        if not folder.is_dir():
            raise UserError(
                f"{words}: there are no predictions of this checkpoint on the {split} split. "
                f"`evaluate {shlex.quote(str(checkpoint))}{'' if split == 'test' else ' split=val'}"
                "` writes them."
            )
    if not folder.is_dir():
        raise UserError(f"{words}: there is no such run, checkpoint or sweep.")
    if file_of(folder, split).is_file() and not overrides and not is_sweep(folder):
        return side(words, (found(folder, split),), [folder], split)
    every = read_runs(folder)
    rows = with_overrides(every, overrides)
    if every and not rows:
        raise UserError(
            f"{words}: no run with {overrides} is there. There are: "
            f"{listed(sorted(named(folder, every).values()), 10)}"
        )
    rows, without = (
        [row for row in rows if file_of(row.folder, split).is_file() is there]
        for there in (True, False)
    )
    if rows and without:
        raise UserError(
            f"{words}: of {len(rows) + len(without)} runs "
            f"{count(len(without), 'has', 'have')} no {NAME}: "
            f"{listed([str(row.folder) for row in without], 3)}. `evaluate` writes it."
        )
    if not rows:
        raise UserError(
            f"{words}: no run has a {NAME} there. A finished training writes it; "
            "`evaluate CHECKPOINT` writes it for an older run."
        )
    check_one_configuration(words, folder, rows, every)
    return side(words, tuple(by_seed(rows, split)), [row.folder for row in rows], split)


def divided(words: str) -> tuple[Path, str]:
    """Folder or file, and the overrides after the colon; both may have colons of their own."""
    parts = words.split(":")
    for number in range(len(parts), 1, -1):
        if (path := Path(":".join(parts[:number]))).exists():
            return path, ":".join(parts[number:])
    return Path(parts[0]), ":".join(parts[1:])


def with_overrides(rows: list[Row], text: str) -> list[Row]:
    """The runs with all of these overrides, by value. Raises UserError."""
    if not text:
        return rows
    from trainer.config import overrides  # Hydra takes a third of a second

    wanted = {overrides.parsed(word) for word in overrides.divided(text)}
    return [row for row in rows if wanted <= overrides.meaning(row.overrides)]


def side(name: str, runs: tuple[Predictions, ...], folders: Sequence[Path], split: str) -> Side:
    files = frozenset(file_of(folder, split).resolve() for folder in folders)
    return Side(name, runs, data_of(file_of(folders[0], split).parent), files)


def by_seed(rows: Sequence[Row], split: str) -> Iterator[Predictions]:
    """Predictions of each run; of a cross-validation those of all its folds together. Raises
    UserError."""
    groups: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in {row.weights_sha256 or row.folder: row for row in rows}.values():
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


def check_one_configuration(
    words: str, folder: Path, rows: Sequence[Row], every: Sequence[Row]
) -> None:
    """Raises UserError where runs differ in more than the seed: a group is one configuration.

    Args:
        every: all runs of the folder.
    """
    from trainer.config.overrides import meaning  # Hydra takes a third of a second

    names = named(folder, every)
    groups = dict.fromkeys(meaning(own(row)) for row in rows)
    if len(groups) > 1:
        raise UserError(
            f"{words}: holds {len(groups)} configurations; a side of a comparison is one. Name it: "
            + listed(sorted(names[group] for group in groups), 10)
        )


def own(row: Row) -> list[str]:
    """Overrides of a run's configuration."""
    return [word for word in row.overrides if not is_repeat(word)]


def named(folder: Path, rows: Sequence[Row]) -> dict[frozenset[tuple[str, str]], str]:
    """The words that mean each configuration in a folder, by its overrides."""
    from trainer.config.overrides import as_pasted, meaning  # Hydra takes a third of a second

    groups = {meaning(own(row)): row for row in reversed(rows)}
    shared, names = frozenset.intersection(*groups), {}
    for group, row in groups.items():
        differing = [as_pasted(word) for word in own(row) if not meaning([word]) <= shared]
        is_unique = not any(group - shared <= other for other in groups if other != group)
        side = f"{folder}:{','.join(differing)}" if differing and is_unique else str(row.folder)
        names[group] = shlex.quote(side)
    return names


def found(folder: Path, split: str) -> Predictions:
    file = file_of(folder, split)
    try:
        read = predictions.read(file, split)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{file}: cannot be read: {why}. `evaluate` writes it anew.") from error
    if read is None:
        ways = {
            "test": "the test split of this run was not read. split=val compares on the validation "
            f"split; `python -m trainer resume {folder} test=all` reads it",
            "val": "split=test may be there",
        }
        raise UserError(f"{file}: has no predictions of the {split} split: {ways[split]}.")
    return untrained(file, split, read)


def untrained(file: Path, split: str, read: Predictions) -> Predictions:
    """Without the images that the run was trained on, where `evaluate` has drawn other splits than
    the training. Raises UserError if none is left."""
    evaluated = readable({}, read_json, file.parent / "evaluation.json")
    has_folds = isinstance(evaluated.get("data"), dict) and evaluated["data"].get("folds")
    if evaluated.get("same_data") is not False:
        return read
    in_train = read.has_files or has_folds or split == "val"
    if not in_train:  # a test split of its own, which stays
        return read
    run = file.absolute().parent.parent.parent
    held_out = ("val", "test") if read.has_files or data_of(run).get("folds") else ("val",)
    try:
        own = [predictions.read(run / NAME, part) for part in held_out]
    except (OSError, ValueError):
        own = [None]
    known = [part for part in own if part is not None]
    if len(known) < len(own) or file.absolute().parent.parent.name != "evaluation":
        return replace(read, num_trained_on=None)
    unseen = {image for part in known for image in part.images}
    rows = zip(read.images, read.label, read.predicted, strict=True)
    kept = [row for row in rows if row[0] in unseen]
    if not kept:
        raise UserError(
            f"{file}: all {count(len(read.images), 'image')} are of those that the run was trained "
            "on: they were drawn otherwise (data.split_seed, data.val_size, data.test_size). "
            "Evaluate it on its own splits, or on images that it has never seen."
        )
    left = predictions.in_order(kept, read.has_files)
    return replace(
        left, num_trained_on=len(read.images) - len(kept), keys=read.keys, classes=read.classes
    )


def file_of(folder: Path, split: str) -> Path:
    """Predictions of a run: its own, or for an older one, or one whose test split was not read,
    what `evaluate` has written."""
    own, evaluated = folder / NAME, folder / "evaluation" / split / NAME
    if not evaluated.is_file():
        return own
    has_split = f"\n{split},".encode() in readable(b"", content, own)
    return own if own.is_file() and (has_split or not is_of_best(folder, split)) else evaluated


def is_of_best(folder: Path, split: str) -> bool:
    """True if `evaluate` has read a split with the weights that are the run's best now."""
    evaluated = readable({}, read_json, folder / "evaluation" / split / "evaluation.json")
    summary = readable({}, read_json, folder / "summary.json")
    return bool(evaluated) and evaluated.get("epoch") == summary.get("best_epoch")


def data_of(folder: Path) -> Mapping[str, Any]:
    """Keys of the data group with which the predictions in a folder were made, and `dataset`, the
    id of the test split, as far as they are known."""
    evaluated = readable({}, read_json, folder / "evaluation.json")
    if isinstance(evaluated.get("data"), dict):
        own = {key: evaluated.get(key) for key in ("dataset", "test_sha256")}
        return {**evaluated["data"], **own}
    config = readable({}, read_yaml, folder / ".hydra" / "config.yaml")
    data = config.get("data") if isinstance(config, dict) else None
    summary = readable({}, read_json, folder / "summary.json")
    own = {key: summary.get(key) for key in ("dataset", "test_sha256")}
    return {**data, **own} if isinstance(data, dict) else {}

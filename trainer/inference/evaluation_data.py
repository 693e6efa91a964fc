"""Data of an evaluation: whether they are those of the training, and whose class is which."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data.image_folder.names import join_first_ten
from data.types import Dataset, Split
from trainer.builders import datasets
from trainer.config import plain_yaml
from trainer.errors import UserError


def load(
    options: Mapping[str, Any], entries: Mapping[str, Any], values: Mapping[str, str] | None
) -> Dataset:
    """The dataset. A folder that the model was not trained on, without a test split of its own, is
    taken whole, for no image of it needs to be held back.

    Args:
        values: the keys that were given; None: always take the splits as training would.

    Raises UserError if its classes do not fit those of the checkpoint: before images are packed,
    where the names can be told by then."""
    names = datasets.class_names(options)
    if names is not None:
        numbers_of(names, entries["classes"])
    if values is None or not is_elsewhere(entries, options, values):
        return datasets.load_data(options)
    whole = datasets.load_whole(options)
    if whole is None:
        return datasets.load_data(options)
    with contextlib.suppress(UserError):  # too few images to draw splits from
        drawn = datasets.load_data(options)
        if drawn.has_fingerprint(entries.get("data", "")):  # the same folder, moved or copied
            return drawn
    print(f"All {len(whole.test):,} images of {options['root']} are taken: it has no test split, "
          "and is not what the model was trained on.")  # fmt: skip
    return whole


def is_elsewhere(
    entries: Mapping[str, Any], options: Mapping[str, Any], values: Mapping[str, str]
) -> bool:
    """True if another dataset was asked for than that of the training, and no part of it."""
    shares = (
        "data.test_size", "data.val_size", "data.split_seed", "data.group", "data.test_files",
        "data.folds", "data.fold",
    )  # fmt: skip
    return (
        "data" in values
        and not any(key in values for key in shares)
        and source(stored_data(entries)) != source(options)
    )


def stored_data(entries: Mapping[str, Any]) -> Mapping[str, Any]:
    return plain_yaml.parse(entries["config"])["data"]


def source(of_data: Mapping[str, Any]) -> tuple[str | None, Path]:
    """The loader, and where its files lie."""
    return of_data.get("_target_"), Path(os.path.expanduser(of_data.get("root") or "")).resolve()


def numbers_of(found: Sequence[str], known: Sequence[str]) -> list[int]:
    """For each class of the set its number in the checkpoint: by name if the names are the same;
    by position if none is. Raises UserError if that leaves a doubt."""
    is_part = len(set(found)) == len(found) and set(found) <= set(known)
    strange = sorted(set(found) - set(known))
    if len(found) != len(known) and not (is_part and len(set(known)) == len(known)):
        raise UserError(
            f"data.num_classes={len(found)}: the checkpoint has {len(known)} classes "
            f"({join_first_ten(known)}); evaluate it on a dataset with these or some of them."
            + (f" It does not know {join_first_ten(strange)}." if strange else "")
        )
    if list(found) == list(known) or set(found).isdisjoint(known):
        return list(range(len(known)))
    numbers = {name: number for number, name in enumerate(known)}
    if len(numbers) == len(known) and is_part:
        return [numbers[name] for name in found]
    differing = join_first_ten(sorted(set(found) ^ set(known)))
    raise UserError(
        f"data: its classes are {join_first_ten(found)}, those of the checkpoint "
        f"{join_first_ten(known)}; on one side only: "
        f"{differing or 'none, but a name stands twice'}. "
        "Evaluate on a dataset with the same names, in any order, or with none of them: those are "
        "compared by position."
    )


def relabelled(pictures: Split, found: Sequence[str], known: Sequence[str]) -> Split:
    """The split with the checkpoint's numbers as labels. Raises UserError, see `numbers_of`."""
    numbers = numbers_of(found, known)
    if list(found) == list(known):
        return pictures
    if set(found).isdisjoint(known):
        print("The class names below are the checkpoint's; those of this dataset differ.")
        return pictures
    if absent := sorted(set(known) - set(found)):
        print(f"There are no images here of {len(absent)} of the checkpoint's classes: "
              f"{join_first_ten(absent)}. The others are matched by name.")  # fmt: skip
    else:
        print("This dataset has the checkpoint's classes in another order: they are matched by "
              "name.")  # fmt: skip
    order = pictures.labels.new_tensor(numbers)
    return dataclasses.replace(pictures, labels=order[pictures.labels])


def is_same_data(
    dataset: Dataset,
    entries: Mapping[str, Any],
    options: Mapping[str, Any],
    values: Mapping[str, str],
) -> bool | None:
    """True if these are the splits that the model was trained with; None if another dataset was
    asked for, or the checkpoint is from before they were noted."""
    if "data" not in entries:  # older, or from import-weights, which knows no dataset
        return None
    if "data" in values and source(stored_data(entries)) != source(options):
        return None
    return dataset.has_fingerprint(entries["data"])

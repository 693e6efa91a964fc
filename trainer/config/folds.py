"""Cross-validation as a sweep: the word folds=K stands for K runs that hold out a fold each."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from typing import Any

from trainer.errors import UserError

MOST = 1000


def as_sweep(words: Sequence[str]) -> tuple[list[str], bool]:
    """The overrides with folds=K spelled out as data.folds=K data.fold=0,...,K-1, and whether it
    was among them. Raises UserError."""
    given = [word for word in words if word.partition("=")[0] == "folds"]
    if not given:
        return list(words), False
    value = given[-1].partition("=")[2]
    if not value.isascii() or not value.isdecimal() or not 2 <= int(value) <= MOST:
        raise UserError(
            f"folds={value:.100}: must be a whole number from 2 to {MOST:,}: all but the test "
            "split is divided into so many folds, and so many runs hold out one each."
        )
    if twice := [word for word in words if word.partition("=")[0] in ("data.folds", "data.fold")]:
        raise UserError(f"{twice[0]} with {given[-1]}: one of the two; folds=K runs all of them.")
    if read := [word for word in words if word.partition("=")[::2] == ("test", "all")]:
        raise UserError(
            f"{read[0]} with {given[-1]}: a cross-validation reads no test split; each run is "
            "measured on the fold that it holds out. Leave the key out, and read the test split "
            "with a training on all folds, without folds."
        )
    every = ",".join(map(str, range(int(value))))
    others = [word for word in words if word not in given]
    return [*others, f"data.folds={value}", f"data.fold={every}"], True


def is_every(values: Sequence[str], words: Container[str]) -> bool:
    """True for the values of a sweep that are all folds, of which one is composed.

    Args:
        words: overrides that all jobs have.
    """
    every = [f"data.fold={fold}" for fold in range(len(values))]
    return list(values) == every and f"data.folds={len(values)}" in words


def each(job: dict[str, Any], words: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The jobs of all folds, by that of the first, where the words of a sweep ask for all."""
    folds = job["data"].get("folds", 0)
    if f"data.fold={','.join(map(str, range(folds)))}" not in words or not folds:
        yield job
        return
    for fold in range(folds):
        yield {**job, "data": {**job["data"], "fold": fold}}

"""Cross-validation as a sweep: the word folds=K stands for K runs that hold out a fold each."""

from __future__ import annotations

from collections.abc import Sequence

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
    every = ",".join(map(str, range(int(value))))
    others = [word for word in words if word not in given]
    return [*others, f"data.folds={value}", f"data.fold={every}"], True

"""Measures of a validation, of which one says what the best epoch and the best run are. Imports no
torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

MEASURES = ("accuracy", "loss", "balanced_accuracy", "macro_f1")


def score_of(by: str, row: Mapping[str, Any]) -> float:
    """What a validation is worth by a measure, the larger the better; -infinity if the row does
    not say.

    Args:
        by: one of MEASURES.
        row: the measures by name; some may be None.
    """
    value = row.get(by)
    if value is None or row.get("loss") is None or not math.isfinite(row["loss"]):
        return -math.inf
    return -float(value) if by == "loss" else float(value)

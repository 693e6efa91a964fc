"""JSON that every reader takes: null for NaN and infinities, where Python's own writes NaN."""

from __future__ import annotations

import json
import math
from typing import Any


def finite(value: float) -> float | None:
    """The value, or None for NaN and infinities, which JSON cannot express."""
    return value if math.isfinite(value) else None


def json_of(value: Any, **options: Any) -> str:
    """Any nest of values as JSON that every reader takes: null for what is no finite number, where
    Python's own writes NaN."""
    return json.dumps(_finite_nest(value), allow_nan=False, **options)


def _finite_nest(value: Any) -> Any:
    if isinstance(value, float):
        return finite(value)
    if isinstance(value, dict):
        return {key: _finite_nest(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite_nest(item) for item in value]
    return value

"""Values that the words of a sweep's command line may take: the space of a search."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.types import Override

from trainer.config import knobs
from trainer.errors import UserError

DIGITS = 5  # of a number that is drawn


@dataclass(frozen=True)
class Values:
    """A word of the command line as typed, with the overrides that it stands for, one or several.

    Attributes:
        key: without the + of Hydra's grammar.
    """

    key: str
    typed: str
    words: tuple[str, ...]

    @property
    def is_fixed(self) -> bool:
        return len(self.words) == 1

    def at(self, share: float) -> str:
        """Override at a share from 0 to 1 of the values; their order on the command line, which
        shuffle() may change, plays no part."""
        return sorted(self.words)[min(int(share * len(self.words)), len(self.words) - 1)]


@dataclass(frozen=True)
class Interval:
    """A word KEY=interval(LOW,HIGH): numbers between two, both included.

    Attributes:
        element: the key with the + of Hydra's grammar.
        is_log: uniform in the logarithm, tag(log,interval(...)).
        is_whole: whole numbers, since the key takes no others or int(interval(...)) asks for them.
    """

    key: str
    typed: str
    element: str
    low: float
    high: float
    is_log: bool = False
    is_whole: bool = False
    is_fixed = False

    @property
    def words(self) -> tuple[str, str]:
        """Overrides of both ends."""
        return self.word(self.low), self.word(self.high)

    def at(self, share: float) -> str:
        """Override at a share from 0 to 1 of the way."""
        margin = 0.5 if self.is_whole else 0.0  # each whole number has the same room
        low, high = self.low - margin, self.high + margin
        if self.is_log:
            return self.word(math.exp(math.log(low) * (1 - share) + math.log(high) * share))
        return self.word(low * (1 - share) + high * share)

    def word(self, value: float) -> str:
        """Override with this value, rounded to what the key takes and to a readable length."""
        number = round(value) if self.is_whole else float(f"{value:.{DIGITS}g}")
        number = min(max(number, self.low), self.high)
        return f"{self.element}={int(number) if self.is_whole else float(number)!r}"


Dimension = Values | Interval


def dimension(override: Override, words: Sequence[str], default: Any) -> Dimension:
    """Dimension of a parsed word. Raises UserError.

    Args:
        words: overrides of its values, where they can be listed.
        default: value of its key without it.
    """
    element, typed = override.get_key_element(), override.input_line or ""
    key = element.lstrip("+~")
    if not words and override.is_discrete_sweep():
        raise UserError(f"{typed}: has no values.")
    if words:
        return Values(key, typed, tuple(words))
    found: Any = override.value()
    knob = knobs.KNOBS.get(key)
    kind = knob.kind if knob else type(default).__name__
    is_whole = kind == "int" or (isinstance(found.start, int) and isinstance(found.end, int))
    is_log = "log" in found.tags
    check_interval(typed, found.start, found.end, is_log, is_whole)
    low, high = float(found.start), float(found.end)
    return Interval(key, typed, element, low, high, is_log, is_whole)


def check_interval(typed: str, low: float, high: float, is_log: bool, is_whole: bool) -> None:
    """Raises UserError."""
    if not (math.isfinite(low) and math.isfinite(high)) or low >= high:
        raise UserError(f"{typed}: an interval goes from a number to a larger one.")
    if is_log and low <= 0:
        raise UserError(f"{typed}: log needs an interval of numbers greater than 0.")
    if is_whole and not (float(low).is_integer() and float(high).is_integer()):
        raise UserError(f"{typed}: the key takes whole numbers; so must the ends be.")


def value_at(config: Mapping[str, Any], key: str) -> Any:
    """Value of a dotted key; None if there is none."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value

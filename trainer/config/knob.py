"""Type and range of a key. Imports nothing heavy."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainer.text.values import format_value


@dataclass(frozen=True)
class Knob:
    """Type and range of one key.

    Attributes:
        kind: "int", "float", "bool", "str".
        low, high: inclusive bounds; above, below: exclusive ones.
        choices: the allowed values, where they can be listed.
        pattern, hint: a regular expression for strings, and how to say it to the user.
        length: the value is a list of so many (0: of any number) such values.
        nullable: null is allowed.
        by_pattern: the value is a mapping of patterns of names to such values, or a list of pairs.
        words: allowed in place of such a value.
    """

    kind: str
    low: float = -math.inf
    high: float = math.inf
    above: float = -math.inf
    below: float = math.inf
    choices: tuple[Any, ...] = ()
    pattern: str = ""
    hint: str = ""
    length: int | None = None
    nullable: bool = False
    by_pattern: bool = False
    words: tuple[str, ...] = ()

    def allows(self, value: Any) -> bool:
        if value is None:
            return self.nullable
        if self.by_pattern:
            pairs = list(value.items()) if isinstance(value, Mapping) else value
            return isinstance(pairs, list) and all(map(self._is_pair, pairs))
        if isinstance(value, str) and value in self.words:
            return True
        if self.length is not None:
            is_list = isinstance(value, list) and self.length in (0, len(value))
            return is_list and all(self._allows_one(item) for item in value)
        return self._allows_one(value)

    def _is_pair(self, pair: Any) -> bool:
        is_pair = isinstance(pair, list | tuple) and len(pair) == 2
        return is_pair and isinstance(pair[0], str) and self._allows_one(pair[1])

    def _allows_one(self, value: Any) -> bool:
        if self.choices:
            return value in self.choices and isinstance(value, bool) == (value in (True, False))
        if self.kind == "bool":
            return isinstance(value, bool)
        if self.kind == "str":
            return isinstance(value, str) and bool(re.fullmatch(self.pattern or ".*", value))
        number = int if self.kind == "int" else (int, float)
        if isinstance(value, bool) or not isinstance(value, number):
            return False
        is_open = self.kind == "float" and not math.isfinite(min(self.high, self.below))
        if is_open and not -FLOAT32_MAX <= value <= FLOAT32_MAX:
            return False
        return self.low <= value <= self.high and self.above < value < self.below

    def allowed(self, value: Any = None) -> str:
        """Allowed values, as a phrase; bounds of the machine only against a value that is beyond.

        Args:
            value: that was given.
        """
        beyond = isinstance(value, int | float) and abs(value) >= MACHINES
        if self.hint or self.choices:
            phrase = self.hint or "one of " + ", ".join(format_value(c) for c in self.choices)
        else:
            phrase = KINDS[self.kind]
            bounds = [("at least", self.low), ("greater than", self.above),
                      ("at most", self.high), ("less than", self.below)]  # fmt: skip
            if beyond and self.kind == "float" and not math.isfinite(min(self.high, self.below)):
                bounds.append(("at most", FLOAT32_MAX))
            limits = [f"{word} {bound}" for word, bound in bounds
                      if abs(bound) < MACHINES or (beyond and math.isfinite(bound))]  # fmt: skip
            phrase += (" " if limits else "") + " and ".join(limits)
        if self.length is not None:
            phrase = f"a list{f' of {self.length}' if self.length else ''}, each {phrase}"
        if self.by_pattern:
            phrase = f"pairs [[pattern,number]], each number {phrase.removeprefix('a number ')}"
        phrase = ", ".join((*self.words, "or ")) + phrase if self.words else phrase
        return phrase + (", or null" if self.nullable else "")


KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}

# Bounds from here on are the machine's and not worth a word.
MACHINES = 2**31
# What torch computes with takes no greater number.
FLOAT32_MAX = 3.4028234663852886e38

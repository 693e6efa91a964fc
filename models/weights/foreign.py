"""Content of a foreign weight file, and its comparison with a network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

if TYPE_CHECKING:  # what this file and matconvnet.py do runs where torch is not installed
    from torch import Tensor

Shape = tuple[int, ...]
Numbers = TypeVar("Numbers", "Tensor", np.ndarray)
MAX_LISTED = 10  # of each kind of mismatch; a wrong file has hundreds


class WeightsError(ValueError):
    """A weight file cannot be used. The message names the file, what was found and the way out."""


@dataclass(frozen=True)
class ForeignWeights(Generic[Numbers]):
    """A foreign file's content in PyTorch's terms. What the file does not tell is None.

    Attributes:
        state_dict: dense CPU tensors, or arrays of NumPy; floating point ones are float32 and
            finite, integer ones (batch norm's counters) keep their type.
        classes: the name of each output, in order.
        mean, std: per channel, in units of pixel / 255; an image becomes (x / 255 - mean) / std.
        resize: pixels; the shorter side is brought to it before the centre crop.
        shape: (C, H, W) of the crop.
        notes: what was changed or assumed on the way, one sentence each, for the log.
    """

    state_dict: dict[str, Numbers]
    classes: list[str] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    resize: int | None = None
    shape: tuple[int, int, int] | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Mismatch:
    """Differences between a state_dict and a network. False if there are none.

    Attributes:
        missing: names that the network has and the file lacks.
        unexpected: names that only the file has.
        misshapen: (name, shape in the file, shape in the network).
    """

    missing: list[str]
    unexpected: list[str]
    misshapen: list[tuple[str, Shape, Shape]]

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.misshapen)

    def describe(self) -> str:
        """One line for each kind of mismatch, with its count and at most ten names."""
        shapes = [f"{printable(k)} {have} -> {want}" for k, have, want in self.misshapen]
        groups = {
            "missing": list(map(printable, self.missing)),
            "unexpected": list(map(printable, self.unexpected)),
            "misshapen (have -> want)": shapes,
        }
        return "\n".join(f"{title}: {_listed(names)}" for title, names in groups.items() if names)


def compare(state_dict: Mapping[str, Numbers], target_shapes: Mapping[str, Shape]) -> Mismatch:
    """Hold names and shapes of a state_dict against those of a network; nothing is loaded.

    To be asked before `load_state_dict`, which has overwritten half the network when it fails.
    """
    return Mismatch(
        missing=[name for name in target_shapes if name not in state_dict],
        unexpected=[name for name in state_dict if name not in target_shapes],
        misshapen=[
            (name, tuple(tensor.shape), tuple(target_shapes[name]))
            for name, tensor in state_dict.items()
            if name in target_shapes and tuple(tensor.shape) != tuple(target_shapes[name])
        ],
    )


def refuse_nonfinite(path: Path, state: Mapping[str, np.ndarray]) -> None:
    bad = [name for name, array in state.items() if not np.isfinite(array).all()]
    if bad:
        names = ", ".join(printable(name) for name in bad[:10])
        raise WeightsError(
            f"{path}: NaN, infinite or too large for float32 in {len(bad)} tensors: {names}"
        )


def printable(text: str, most: int = 200) -> str:
    """Text of a foreign file on one line: no line of a message is the file's own, no page of it.
    What steers a terminal is escaped as Python writes it."""
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:most])
    return shown + "..." if len(text) > most else shown


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return f"{len(names)}: {', '.join(names[:MAX_LISTED])}{more}"

"""One file of CIFAR's: pixels and labels, or the names of the classes, each checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from data.cifar.pickle_reader import read_pickle
from data.cifar.pickled_arrays import Array, NotPlainError
from data.download.checksums import FETCH_AGAIN
from data.types import DataError, Split, printable

SIDE = 32
PIXELS = 3 * SIDE * SIDE


@dataclass(frozen=True)
class Layout:
    """Names in the archive, and of the entries of its pickled dicts.

    Attributes:
        near_copies: percentage of the test images that is known to have near copies.
    """

    num_classes: int
    archive: str
    folder: str
    train: tuple[str, ...]
    test: str
    meta: str
    near_copies: str
    labels_key: str
    names_key: str

    @property
    def files(self) -> tuple[str, ...]:
        return (*self.train, self.test, self.meta)


def _unpickle(place: str, content: bytes) -> dict[str, Any]:
    """The dict in a batch or meta file.

    Raises:
        DataError: it is no pickle, no dict, or asks for more than arrays and containers.
    """
    try:
        loaded = read_pickle(content)
    except NotPlainError as error:
        raise DataError(
            f"{place} is no CIFAR file, a pickle of arrays, lists and text: {printable(error)}. "
            f"{FETCH_AGAIN}"
        ) from error
    if not isinstance(loaded, dict):
        raise DataError(f"{place} holds a {type(loaded).__name__}, expected a dict. {FETCH_AGAIN}")
    return {_text(key): value for key, value in loaded.items()}


def _text(value: Any) -> Any:
    """Texts of Python 2 are bytes; whatever else stays."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def read_split(layout: Layout, place: str, content: bytes) -> Split:
    """One batch as (N, 3, 32, 32) uint8 and (N,) int64.

    Raises:
        DataError: pixels or labels are not there, of another kind, or do not fit together.
    """
    batch = _unpickle(place, content)
    pixels, labels = (_plain(batch.get(key)) for key in ("data", layout.labels_key))
    if not (
        isinstance(pixels, np.ndarray)
        and pixels.dtype == np.uint8
        and pixels.shape[1:] == (PIXELS,)
        and len(pixels) > 0
    ):
        raise DataError(f"{place}: 'data' is {_brief(pixels)}, expected uint8 (N, {PIXELS}).")
    if isinstance(labels, np.ndarray) and labels.ndim == 1:
        labels = labels.tolist()
    if not (isinstance(labels, list) and len(labels) == len(pixels)):
        raise DataError(
            f"{place}: {layout.labels_key!r} is {_brief(labels)}, expected {len(pixels)} labels in "
            "a list."
        )
    if bad := [x for x in labels if type(x) is not int or not 0 <= x < layout.num_classes]:
        raise DataError(
            f"{place}: {layout.labels_key!r} has {_brief(bad[0])}, expected whole numbers from 0 "
            f"to {layout.num_classes - 1}."
        )
    images = np.array(pixels, order="C").reshape(-1, 3, SIDE, SIDE)
    return Split(torch.from_numpy(images), torch.tensor(labels))


def _plain(value: Any) -> Any:
    return value.content if isinstance(value, Array) else value


def _brief(value: Any) -> str:
    """Text of what a file has in a thing's place, never at length: it may be anything."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    if isinstance(value, list | tuple | dict):
        return f"a {type(value).__name__} of {len(value)} values"
    text = printable(repr(_text(value)) if isinstance(value, str | bytes) else value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def read_class_names(layout: Layout, place: str, content: bytes) -> list[str]:
    names = _unpickle(place, content).get(layout.names_key)
    names = [_text(name) for name in names] if isinstance(names, list | tuple) else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(
            f"{place}: {layout.names_key!r} is {_brief(names)}, expected a list of text."
        )
    if len(names) != layout.num_classes or len(set(names)) != len(names):
        raise DataError(
            f"{place}: {layout.names_key!r} has {len(names)} names, {len(set(names))} of them "
            f"different; expected {layout.num_classes} different ones."
        )
    return names

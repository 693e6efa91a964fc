"""Keys of the images in a predictions.csv, by which the same ones are told, and the names of all
classes: images.json beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trainer.runs.side_files import read_json, readable
from trainer.system.files import write_bytes

NAME = "images.json"


@dataclass(frozen=True)
class ImageKeys:
    """Content of images.json; empty where it is not known.

    Attributes:
        classes: all names.
        of_index: place of an image -> key, the same for the same pixels.
    """

    classes: tuple[str, ...] = ()
    of_index: Mapping[str, str] = field(default_factory=dict)


def write(folder: Path, classes: Sequence[str], found: Mapping[str, Mapping[int, int]]) -> None:
    """Write images.json. Raises OSError.

    Args:
        found: of each split, by its name, the key of the image at each place.
    """
    content: dict[str, object] = {"classes": list(classes)}
    for name, keys in found.items():
        content[name] = {place: f"{key:016x}" for place, key in keys.items()}
    write_bytes(folder / NAME, json.dumps(content).encode("utf-8", "surrogatepass"))


def read(folder: Path, split: str) -> ImageKeys:
    """Keys of the images of a split; empty if the file is missing or damaged."""
    found = readable({}, read_json, folder / NAME)
    classes, keys = found.get("classes"), found.get(split)
    if not isinstance(classes, list) or not isinstance(keys, dict):
        return ImageKeys()
    return ImageKeys(tuple(map(str, classes)), {place: str(key) for place, key in keys.items()})

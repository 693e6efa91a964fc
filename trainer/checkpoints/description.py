"""What a checkpoint says of its net, and what the net costs."""

from __future__ import annotations

from dataclasses import dataclass, field

from trainer.system.versions import versions


@dataclass(frozen=True)
class Cost:
    """num_parameters: all of them. macs: multiply-adds of one picture's forward pass."""

    num_parameters: int
    macs: int


@dataclass
class Description:
    """What a checkpoint says of itself, so that it can be used with nothing beside it."""

    config: str  # the run's configuration as YAML text
    classes: list[str]
    shape: list[int]  # (C, H, W) as the data comes
    mean: list[float]  # per channel, in pixel / 255
    std: list[float]
    resize: int  # a picture's shorter side is brought to this before the centre is cropped
    fit: str = "crop"  # or squash: both sides are resized; see data/types.py
    probabilities: str = "softmax"  # how they follow from the outputs; see losses.py
    versions: dict[str, str] = field(default_factory=versions)
    pixel_range: list[float] | None = None  # what became 0 and 255 of grey of more than 8 bits

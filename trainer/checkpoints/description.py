"""Description of a model in a checkpoint, and the model's cost."""

from __future__ import annotations

from dataclasses import dataclass, field

from trainer.system.versions import versions


@dataclass(frozen=True)
class Cost:
    """Cost of a model.

    Attributes:
        num_parameters: number of all parameters, frozen ones included.
        macs: multiply-accumulate operations (MACs) of the forward pass of one image.
    """

    num_parameters: int
    macs: int


@dataclass
class Description:
    """Description of a model and its input, with which a checkpoint can be used on its own."""

    config: str  # the run's configuration as YAML text
    classes: list[str]
    shape: list[int]  # (C, H, W) of the dataset's images
    mean: list[float]  # per channel, in units of pixel / 255
    std: list[float]
    resize: int  # an image's shorter side is resized to this before the centre crop, in pixels
    fit: str = "crop"  # or squash: both sides are resized; see data/types.py
    probabilities: str = "softmax"  # or sigmoid or clip; see losses.py
    versions: dict[str, str] = field(default_factory=versions)
    pixel_range: list[float] | None = None  # values of >8-bit greyscale that became 0 and 255

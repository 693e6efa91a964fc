"""Weight files of other programs: read, checked, turned into state_dicts.

    foreign = read("imagenet-vgg-verydeep-19.mat", target_shapes)
    mismatch = compare(foreign.state_dict, target_shapes)
    foreign = load_official("resnet50", "IMAGENET1K_V2")

Whatever is wrong with a file ends in a `WeightsError`, whose message is written for the user.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from models.weights.foreign import ForeignWeights, Mismatch, WeightsError, compare

if TYPE_CHECKING:
    from models.weights.reader import load_official, read
    from models.weights.safe_load import safe_torch_load
    from models.weights.safetensors_files import description_in
    from models.weights.torchvision_files import Official, official

__all__ = [
    "ForeignWeights",
    "Mismatch",
    "Official",
    "WeightsError",
    "compare",
    "description_in",
    "load_official",
    "official",
    "read",
    "safe_torch_load",
]

NEED_TORCH = {
    "description_in": "safetensors_files",
    "load_official": "reader",
    "read": "reader",
    "safe_torch_load": "safe_load",
    "Official": "torchvision_files",
    "official": "torchvision_files",
}


def __getattr__(name: str) -> Any:
    """Imported when first asked for (PEP 562): matconvnet.py runs where torch is not installed."""
    if name not in NEED_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{NEED_TORCH[name]}"), name)

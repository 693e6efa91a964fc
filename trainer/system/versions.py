"""Versions of the packages on which the bits of a result depend."""

from __future__ import annotations

import platform

import PIL
import torch


def versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "pillow": PIL.__version__,
    }

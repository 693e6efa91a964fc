"""Private names of Hydra, and what it does not document, all in this file; OmegaConf's English is
in `trainer.system.error_texts`.

Checked on hydra-core 1.3.8; `tests/trainer/config/test_hydra_internals.py` uses each of them.

what Hydra has                        if it goes
ConfigLoaderImpl                      no command that composes a configuration starts
create_config_search_path             the same
get_args_parser                       the same
Hydra                                 no training starts, and no --cfg
HYDRA_FULL_ERROR                      a fault in a run ends with Hydra's exit code 1 and text
"""

from __future__ import annotations

import os

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser

__all__ = [
    "ConfigLoaderImpl", "Hydra", "create_config_search_path", "get_args_parser", "raise_errors",
]  # fmt: skip


def raise_errors() -> None:
    """Instead of printing them and exiting with 1."""
    os.environ["HYDRA_FULL_ERROR"] = "1"

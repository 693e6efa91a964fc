"""Configurations of the program's YAML files, read once a process: reading them again is a third of
a composition, of which the tests make more than a thousand. What a composition changes is its own
copy; `unchanged` tells at the end that it was so."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

from hydra._internal.config_repository import ConfigRepository
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult
from omegaconf import OmegaConf

from trainer.config.knobs import CONFIGS

Key = tuple[str, str]

OWN = (str(CONFIGS), "hydra.conf", "")  # of the program, of Hydra, and classes of Hydra's
_read: dict[Key, ConfigResult] = {}
_as_read: dict[Key, Any] = {}


def share() -> None:
    """From now on in this process."""
    read = ConfigRepository.load_config

    def load_config(self: ConfigRepository, config_path: str) -> ConfigResult | None:
        source = self._find_object_source(config_path, ObjectType.CONFIG)
        if source is None or source.path not in OWN:
            return read(self, config_path)
        key = source.path, config_path
        if key not in _read:
            found = read(self, config_path)
            assert found is not None
            _read[key], _as_read[key] = found, _content(found)
        shared = _read[key]
        # Hydra puts a group's configuration below its name, as a copy; others it takes as they are.
        if "/" in config_path and shared.header["package"] is None:
            return shared
        return dataclasses.replace(shared, config=copy.deepcopy(shared.config))

    ConfigRepository.load_config = load_config  # type: ignore[method-assign]


def unchanged() -> bool:
    return {key: _content(found) for key, found in _read.items()} == _as_read


def _content(found: ConfigResult) -> Any:
    return OmegaConf.to_container(found.config), dict(found.header), repr(found.defaults_list)

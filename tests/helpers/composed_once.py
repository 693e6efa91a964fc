"""Composes the default configuration when it is imported: for a process whose forks are commands,
which would otherwise import the rest of Hydra, and prepare its grammars, each of them anew."""

from __future__ import annotations

import PIL.Image

from trainer.config.compose import Composer, parse

PIL.Image.preinit()
Composer(parse([])).master()

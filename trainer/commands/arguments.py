"""Words of a command on files: plain words, and key=value where the key is a known one."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from trainer import config as knobs
from trainer.errors import UserError

# What may change when a checkpoint is used: where and how it computes, never what it is.
MACHINE_KEYS = (
    "device", "precision", "num_threads", "channels_last", "deterministic", "layers", "trust"
)  # fmt: skip


def parse_words(
    parser: argparse.ArgumentParser, argv: list[str], keys: Iterable[str]
) -> tuple[argparse.Namespace, dict[str, str]]:
    """The parser's own arguments, and the key=value words as raw text.

    A word with `=` is a key if the part before it is known (`data.` in keys stands for all below
    it) and no such file exists; options and keys may stand anywhere, `--` ends them.
    """
    keys = tuple(keys)
    end = argv.index("--") if "--" in argv else len(argv)
    words, values = [], {}
    for word in argv[:end]:
        key, equals, value = word.partition("=")
        if equals and not word.startswith("-") and not Path(word).exists():
            below = any(k.endswith(".") and key.startswith(k) and key != k for k in keys)
            if not below and (key not in keys or key.endswith(".")):
                names = [f"{k}<name>" if k.endswith(".") else k for k in keys]
                raise UserError(knobs.unknown("key of this command", key, names))
            values[key] = value
        else:
            words.append(word)
    return parser.parse_intermixed_args([*words, *argv[end:]]), values


def existing(checkpoint: Path) -> Path:
    """Said before torch is imported, which takes seconds."""
    if not checkpoint.is_file():
        raise UserError(
            f"{checkpoint}: there is no such file. A checkpoint is a .pth file of a run, "
            "for example outputs/<date>/<time>/checkpoints/best.pth."
        )
    return checkpoint

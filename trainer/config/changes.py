"""Keys that a resumed run may change, and the differences of two configurations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trainer.errors import UserError
from trainer.text.values import format_value

# What may change without another result being trained: where and how loudly it computes.
FREE_KEYS = (
    "device", "layers", "num_threads", "processes", "num_workers", "log_interval",
    "save_every_steps", "save_every_minutes", "stop_epoch", "test", "tensorboard", "histograms",
    "profile", "trust", "data.root", "data.download", "data.mirrors", "data.cache_dir",
    "data.verify", "data.archive_md5", "data.file_md5", "data.test_files",
)  # fmt: skip

# Limits of the training, which a resumed run may raise; 0, but for epochs, is no limit.
LIMITS = ("epochs", "patience", "max_minutes")

# Keys that change nothing that is trained.
IDLE = (
    "test", "processes", "tensorboard", "histograms", "profile", "log_interval", "num_workers",
    "save_every_steps", "save_every_minutes",
)  # fmt: skip


def is_free(key: str) -> bool:
    """True if the key, or the dict that it stands in, is one of FREE_KEYS."""
    return key in FREE_KEYS or key.startswith("data.file_md5.")


def is_raised(old: float, new: float) -> bool:
    """True if a limit becomes larger, or none; 0 is none."""
    return bool(old) and (new > old or not new)


def check_changes(stored: Mapping[str, Any], config: Mapping[str, Any], force: bool) -> None:
    """Raises UserError that lists the changes that would make it another training."""
    changed = [
        (key, old, new)
        for key, old, new in differences(stored, config)
        if not is_free(key)
        and not (key in LIMITS and is_raised(old, new))
        and not (key == "teacher" and old and new)  # another place; its state tells its weights
    ]
    if changed and not force:
        lines = [
            f"  {key}: {format_value(old)} -> {format_value(new)}" for key, old, new in changed
        ]
        raise UserError(
            "These changes would make it a different run:\n" + "\n".join(lines)
            + "\nLeave these keys out, or add --force."
        )  # fmt: skip


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    for key in {**old, **new}:
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from differences(before, after, f"{prefix}{key}.")
        elif before != after:
            yield prefix + key, before, after

"""Checkpoints: written durably, read and verified entry by entry."""

from trainer.checkpoints.digest import digest, weights_sha256
from trainer.checkpoints.file import FORMAT, is_ours, read, write
from trainer.checkpoints.folder import CheckpointFolder, states_in, step_of

__all__ = [
    "FORMAT", "CheckpointFolder", "digest", "is_ours", "read", "states_in", "step_of",
    "weights_sha256", "write",
]  # fmt: skip

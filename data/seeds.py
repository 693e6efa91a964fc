"""Seeds that are functions of where they are used, so that nothing depends on what ran before."""

from __future__ import annotations

import hashlib
import struct


def derive_seed(seed: int, purpose: str, *position: int) -> int:
    """A seed in 0..2**63-1 for one purpose ("order", "dropout") at one position (epoch, step).

    A hash rather than a sum: seed 1 at step 0 must not repeat seed 0 at step 1. Two microseconds.
    torch's CPU generator takes the low 32 bits: of a quarter of a million batches three or so draw
    what another one drew.
    """
    key = struct.pack(f"<{1 + len(position)}q", seed, *position)
    digest = hashlib.blake2b(key, digest_size=8, person=purpose.encode())
    return int.from_bytes(digest.digest(), "little") >> 1

"""Several processes on one training, as torchrun starts them, each a fork of the warm one."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from unittest import mock

from tests.helpers.processes import Command, Ended, Prepare


def start(
    cwd: Path, *argv: str, number: int = 2, prepare: Mapping[int, Prepare] | None = None,
    restarts: int = 0,
) -> list[Command]:  # fmt: skip
    """`torchrun --nproc-per-node NUMBER -m trainer ARGV` in the folder `cwd`.

    Args:
        prepare: by rank, what is called first in that process.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(number):
        words = {
            "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": number, "LOCAL_WORLD_SIZE": number,
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RESTART_COUNT": restarts,
        }  # fmt: skip
        with mock.patch.dict(os.environ, {name: str(value) for name, value in words.items()}):
            started.append(Command(cwd, argv, (prepare or {}).get(rank)))
    return started


def run(
    cwd: Path, *argv: str, number: int = 2, prepare: Mapping[int, Prepare] | None = None,
    restarts: int = 0,
) -> list[Ended]:  # fmt: skip
    """The same, from its beginning to its end."""
    commands = start(cwd, *argv, number=number, prepare=prepare, restarts=restarts)
    return [command.wait() for command in commands]

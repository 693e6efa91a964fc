"""Forged configurations in checkpoints: each is refused by one message, or harms nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.campaigns import stored_configurations
from tests.helpers.commands import ROOT


@pytest.mark.slow
def test_forged_configurations_run_no_code_and_take_no_memory() -> None:
    """In a process of its own, for its limits."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.campaigns.stored_configurations", "--copies", "340"],
        cwd=ROOT, capture_output=True, text=True, timeout=1200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith("|")]
    refused = {row[0].strip(): int(row[1]) for row in rows[2:]}
    taken = {row[0].strip(): int(row[2]) for row in rows[2:]}
    kinds = (
        len(stored_configurations.VALUES)
        + len(stored_configurations.BREAKS)
        + len(stored_configurations.VALID)
    )
    assert len(refused) == kinds + 2 == 20
    assert sum(refused.values()) > 200
    for kind in ("a call", "an interpolation", "an anchor", "an alias", "a tag", "deep", "long"):
        assert (refused[kind], taken[kind]) == (17, 0), kind
    for kind in stored_configurations.VALID:
        assert (refused[kind], taken[kind]) == (0, 17), kind

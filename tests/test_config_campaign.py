"""Forged configurations in checkpoints: each is refused by one message, or harms nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import ROOT

from benchmarks import config_campaign


@pytest.mark.slow
def test_forged_configurations_run_no_code_and_take_no_memory() -> None:
    """In a process of its own, for its limits."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.config_campaign", "--copies", "340"],
        cwd=ROOT, capture_output=True, text=True, timeout=1200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith("|")]
    counts = {row[0].strip(): int(row[1]) for row in rows[2:]}
    assert len(counts) == len(config_campaign.VALUES) + len(config_campaign.BREAKS) + 2
    assert sum(counts.values()) > 200
    assert counts["a call"] == counts["an interpolation"] == counts["an anchor"] == 20

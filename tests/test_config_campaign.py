"""Forged configurations in checkpoints: each is refused by one message, or harms nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest
import yaml
from conftest import ROOT

from benchmarks import config_campaign
from trainer import config


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


def test_every_target_of_our_yamls_is_forged() -> None:
    """By the share of copies that take another YAML of the group first."""
    groups = {group: {"_target_": "none"} for group in config.GROUPS}
    text = yaml.safe_dump(groups | {"seed": 0})
    named = set()
    for number in range(2000):
        kind, forged = config_campaign.forged(text, number, 0)
        if kind in config_campaign.VALUES:
            content = yaml.safe_load(forged)
            named |= {str(content[g].get("_target_")) for g in config.GROUPS}
    for group in config.GROUPS:
        for file in (ROOT / "configs" / group).glob("*.yaml"):
            options = yaml.safe_load(file.read_text())
            assert options.get(group, options)["_target_"] in named

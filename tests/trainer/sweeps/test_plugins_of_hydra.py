"""Launchers of Hydra's own plug-ins, by name: used as Hydra does, and told of alike."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.helpers.commands import run_trainer
from tests.helpers.small_sweeps import SMALL, summary


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("submitit") is None
                    or importlib.util.find_spec("hydra_plugins") is None
                    or importlib.util.find_spec("hydra_plugins.hydra_submitit_launcher") is None,
                    reason="hydra-submitit-launcher is not installed")  # fmt: skip
def test_submitit(tmp_path: Path) -> None:
    done = run_trainer("--multirun", *SMALL, "hydra/launcher=submitit_local", "seed=0,1",
                       "hydra.sweep.dir=outputs/mine", cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.output
    sweep = tmp_path / "outputs" / "mine"
    assert [summary(sweep / str(k))["status"] for k in (0, 1)] == ["finished"] * 2
    alone = run_trainer(*SMALL, "seed=1", "hydra.run.dir=alone", cwd=tmp_path)
    assert alone.returncode == 0, alone.output
    key = "weights_sha256"
    assert summary(tmp_path / "alone")[key] == summary(sweep / "1")[key]
    again = run_trainer("report", "outputs/mine", cwd=tmp_path)
    assert again.returncode == 0, again.output
    assert again.stdout.count("finished") >= 2

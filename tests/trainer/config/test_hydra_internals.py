"""Private names of Hydra: each is there and does what is relied on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode

from tests.helpers.commands import ROOT
from trainer.config import hydra_internals
from trainer.config.knobs import CONFIGS


def test_hydra_composes_apart_from_a_run() -> None:
    search_path = hydra_internals.create_config_search_path(str(CONFIGS))
    loader = hydra_internals.ConfigLoaderImpl(search_path)
    config = loader.load_configuration("config", ["seed=7", "model=mlp"], RunMode.RUN)
    assert config.seed == 7
    assert "run" in config.hydra
    sweep = ["seed=7,8"]
    assert "sweep" in loader.load_configuration("config", sweep, RunMode.MULTIRUN).hydra
    with pytest.raises(ConfigCompositionException):
        loader.load_configuration("config", sweep, RunMode.RUN)
    assert "model" in loader.list_groups("")
    assert "mlp" in loader.get_group_options("model")


def test_hydras_own_flags() -> None:
    args = hydra_internals.get_args_parser().parse_intermixed_args(["--cfg", "job", "a=1", "-m"])
    assert (args.cfg, args.multirun, args.overrides) == ("job", True, ["a=1"])
    assert args.experimental_rerun is None


RAISING = """
import sys
from trainer.config import hydra_internals
import hydra
if {ours}:
    hydra_internals.raise_errors()
sys.argv = ["x", "hydra.run.dir=" + sys.argv[1], "hydra.output_subdir=null"]
@hydra.main(version_base="1.3", config_path=None)
def task(config):
    raise KeyError("ours")
try:
    task()
except KeyError:
    sys.exit(77)
"""


@pytest.mark.parametrize(("ours", "code"), [(True, 77), (False, 1)])
def test_hydra_raises_what_a_run_raises(ours: bool, code: int, tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "HYDRA_FULL_ERROR"}
    done = subprocess.run(
        [sys.executable, "-c", RAISING.format(ours=ours), str(tmp_path)],
        cwd=tmp_path, capture_output=True, text=True,
        env={**environment, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == code, done.stderr

"""Sweeps on a true Ray cluster of two nodes on this host."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers import processes
from tests.helpers.commands import Finished, run_trainer
from tests.helpers.small_sweeps import (
    SMALL,
    check_one_killed_one_finished_one_diverged,
    jobs_of,
    summary,
)

pytestmark = pytest.mark.slow
WORDS = ("--multirun", *SMALL, "seed=0,1", "launcher=ray", "sweep.name=mine")

# Two nodes with a core each, in a process of its own, until its standard input is closed.
NODES = """\
import sys
from ray.cluster_utils import Cluster
common = dict(num_cpus=1, node_ip_address="127.0.0.1", object_store_memory=80 << 20)
cluster = Cluster(initialize_head=True, head_node_args={**common, "include_dashboard": False})
cluster.add_node(**common)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@pytest.fixture(scope="module")
def two_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    if importlib.util.find_spec("ray") is None:
        pytest.skip("ray is not installed: pip install -e '.[ray]'")
    # Without the first, Ray takes the address of the network for that of the loopback.
    settings = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    log = open(tmp_path_factory.mktemp("ray") / "log", "w")  # noqa: SIM115
    with pytest.MonkeyPatch.context() as patch, log:
        for name, value in settings.items():
            patch.setenv(name, value)
        nodes = subprocess.Popen([sys.executable, "-c", NODES], stdin=subprocess.PIPE,
                                 stdout=subprocess.PIPE, stderr=log, text=True)  # fmt: skip
        assert nodes.stdin
        assert nodes.stdout
        patch.setenv("RAY_ADDRESS", nodes.stdout.readline().strip())
        yield
        nodes.stdin.close()
        nodes.wait(60)
        nodes.stdout.close()


def test_jobs_that_fail_and_one_that_is_killed(two_nodes: None, tmp_path: Path) -> None:
    sweep = tmp_path / "outputs" / "mine"
    words = ("--multirun", *SMALL, "data.num_train=20000", "epochs=10", "launcher=ray",
             "optimizer.lr=0.02,0.01,1e30", "sweep.name=mine")  # fmt: skip
    command = processes.Command(tmp_path, words)
    command.wait_for(lambda: all(any(sweep.glob(f"{k}*/checkpoints/step_*.pth")) for k in (0, 1)))
    (killed,) = sweep.glob("0*/.lock")
    os.kill(int(killed.read_text().split()[1]), signal.SIGKILL)
    ended = command.wait()
    assert ended.code == 1, ended.output
    jobs = check_one_killed_one_finished_one_diverged(sweep)
    alone = run_trainer(*jobs[1]["overrides"], "hydra.run.dir=alone", cwd=tmp_path)
    assert alone.returncode == 0, alone.output
    key = "weights_sha256"
    assert summary(tmp_path / "alone")[key] == summary(sweep / jobs[1]["folder"])[key]


def test_a_signal_stops_and_saves(two_nodes: None, tmp_path: Path) -> None:
    sweep = tmp_path / "outputs" / "mine"
    command = processes.Command(tmp_path, (*WORDS, "epochs=50000"))
    command.wait_for(lambda: all(any(sweep.glob(f"{k}*/checkpoints/step_*.pth")) for k in (0, 1)))
    command.send(signal.SIGTERM)
    ended = command.wait()
    assert ended.code == 143, ended.output
    assert [job["state"] for job in jobs_of(sweep)] == ["interrupted"] * 2
    for job in jobs_of(sweep):
        assert "Stopped. Continue" in (sweep / job["folder"] / "terminal.log").read_text()


def test_an_address_without_a_cluster_is_told(
    two_nodes: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "nonsense")
    done = run_trainer(*WORDS, cwd=tmp_path)
    assert done.returncode == 2
    assert "launcher=ray: RAY_ADDRESS=nonsense: " in done.stderr
    assert "Traceback" not in done.output


def test_without_ray_it_is_told(
    dispatch: Callable[..., Finished], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *more: None if name == "ray" else find(name, *more),
    )
    done = dispatch(*WORDS)
    assert done.returncode == 2
    assert "launcher=ray needs ray: pip install -e '.[ray]'" in done.stderr
    assert not (tmp_path / "outputs").exists()

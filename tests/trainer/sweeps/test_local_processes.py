"""Processes of a sweep on this machine: what the parent of the forks must not have done."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.helpers.commands import ROOT

# In a process of its own: this one has threads.
WARM = """
import sys
from trainer.sweeps import processes
processes.warm_up(compiles={compiles})
more = {then}
print(processes.context().get_start_method(), "torch._inductor.compile_fx" in sys.modules)
"""
THREAD = "__import__('threading').Thread(target=__import__('time').sleep, args=(9,), daemon=True)"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("compiles", "then", "said"),
    [
        (False, "0", ["fork", "False"]),
        (True, "0", ["fork", "True"]),  # the compiler leaves no thread behind
        (False, f"{THREAD}.start()", ["forkserver", "False"]),
    ],
)
def test_a_warm_parent_can_be_forked(compiles: bool, then: str, said: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WARM.format(compiles=compiles, then=then)],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == said

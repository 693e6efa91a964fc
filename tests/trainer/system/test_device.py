"""What a run makes of the machine under it."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys

import pytest
import torch

from tests.helpers.commands import ROOT
from trainer.system.seeds import seed_generators

FAULTS = """
import resource, sys
import torch
from trainer.system.memory import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
def fresh_pages():
    # in a step that needs three blocks of 64 MB, and frees them
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.empty(2**24).fill_(1) for _ in range(3)]
    del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(min([fresh_pages() for _ in range(6)][1:]))
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
@pytest.mark.parametrize("what", ["kept", "handed back"])
def test_freed_memory_is_used_again(what: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, what], cwd=ROOT, capture_output=True, text=True, check=True
    )
    (num_pages,) = map(int, done.stdout.split())
    of_all = num_pages / (3 * 2**26 / resource.getpagesize())
    assert of_all < 0.1 if what == "kept" else of_all > 0.5


def test_a_gpu_is_woken_before_its_generator_is_seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.cuda.default_generators is an empty tuple until then."""
    seeds: list[int] = []

    class Generator:
        manual_seed = staticmethod(seeds.append)

    def init() -> None:
        torch.cuda.default_generators = (Generator, Generator)

    monkeypatch.setattr(torch.cuda, "default_generators", ())
    monkeypatch.setattr(torch.cuda, "init", init)
    seed_generators(7, torch.device("cuda:1"))
    assert seeds == [7]

"""Place of a process among several, its threads, and the exit code of all of them."""

from __future__ import annotations

import os

import pytest
import torch

from trainer.errors import UserError
from trainer.system import distributed, threads
from trainer.system.device import device_of
from trainer.system.distributed import Place, exit_code_of, place


@pytest.fixture
def second_of_two(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in {"RANK": 1, "WORLD_SIZE": 2, "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    return monkeypatch


def test_place(second_of_two: pytest.MonkeyPatch) -> None:
    assert place() == Place(1, 2, 1, 2, 0)
    assert distributed.is_other()
    second_of_two.setenv("WORLD_SIZE", "two")
    with pytest.raises(UserError, match="WORLD_SIZE=two"):
        place()
    second_of_two.setenv("WORLD_SIZE", "1")  # torchrun with one process
    assert place() is None
    assert not distributed.is_other()


def test_threads_of_each(second_of_two: pytest.MonkeyPatch) -> None:
    cores = len(os.sched_getaffinity(0))
    second_of_two.setenv("OMP_NUM_THREADS", "1")  # as torchrun does
    assert threads.threads_at_start.__wrapped__() == max(1, cores // 2)
    second_of_two.setenv("OMP_NUM_THREADS", "3")
    assert threads.threads_at_start.__wrapped__() == torch.get_num_threads()


def test_a_gpu_for_each() -> None:
    here = Place(5, 8, 1, 4, 0)
    gpus = [f"cuda:{i}" for i in range(4)]
    assert device_of(here, "auto", [*gpus, "cpu"]) == torch.device("cuda:1")
    assert device_of(here, "auto", ["cpu"]) == torch.device("cpu")
    for name, available in (("cuda", gpus[:3]), ("cuda:1", gpus), ("mps", ["mps"]), ("cuda", [])):
        with pytest.raises(UserError, match="processes=8: each needs a GPU"):
            device_of(here, name, available)


@pytest.mark.parametrize(
    ("codes", "code", "told"),
    [
        ({0: 2}, 2, ""),
        ({0: 2, 1: 1, 2: -15}, 2, ""),  # the others are stopped
        ({0: 1, 1: -9}, 1, "Process 1 was killed by SIGKILL.\n"),
        ({0: 130, 1: 130}, 130, ""),
        ({0: 1, 1: 143}, 1, ""),
        ({1: -15}, 143, ""),
    ],
)
def test_exit_code(
    capsys: pytest.CaptureFixture[str], codes: dict[int, int], code: int, told: str
) -> None:
    assert exit_code_of(codes) == code
    assert capsys.readouterr().err == told

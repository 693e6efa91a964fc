"""Several processes on one training: which one this is, and their start on this machine.

torchrun, or `launch` here, sets the variables that `place` reads. Imports nothing heavy.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from trainer.errors import UserError, complain

# torchrun waits 30 s for its processes to save; a large state on a slow disk takes longer.
SECONDS_TO_SAVE = 600
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Place:
    """Place of this process among those of a training.

    Attributes:
        rank, size: index of the process, and number of processes.
        local_rank, local_size: the same on this machine.
        restarts: how often torchrun has started the processes again.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int
    restarts: int


def place() -> Place | None:
    """Place of this process; None if it is the only one. Raises UserError."""
    if "RANK" not in os.environ or os.environ.get("WORLD_SIZE", "1") == "1":
        return None
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RESTART_COUNT")
    values = [os.environ.get(name, "0") for name in names]
    if not all(value.isdecimal() for value in values):
        shown = " ".join(f"{name}={value}" for name, value in zip(names, values, strict=True))
        raise UserError(f"{shown}: must be whole numbers, as torchrun sets them.")
    rank, size, local_rank, local_size, restarts = map(int, values)
    return Place(rank, size, local_rank, max(1, local_size), restarts)


def is_other() -> bool:
    """True in all but the first process, which alone writes and speaks."""
    return os.environ.get("RANK", "0") != "0" and os.environ.get("WORLD_SIZE", "1") != "1"


def end_with_parent() -> None:
    """Have the kernel send SIGTERM when the process that started this one dies, so that the state
    is saved and nothing is left behind."""
    if sys.platform == "linux":
        import ctypes  # here: it takes milliseconds that other commands need not wait for

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def begin() -> None:
    """Settings of one of several processes, before torch is imported: threads that wait sleep,
    since waiting for other processes is frequent; the process stops, saved, if the one that started
    it is killed; all but the first print nothing on stdout."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Elsewhere the one that started it may be a thread, whose end would count.
    if "TORCHELASTIC_RUN_ID" in os.environ:
        end_with_parent()
    if is_other():
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def launch(argv: Sequence[str], processes: int) -> int:
    """Run `python -m trainer ARGV` in so many processes on this machine, by torchrun's engine.
    Returns the exit code: of a signal, of wrong input, else of failure."""
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=processes, run_id=f"trainer-{os.getpid()}",
        rdzv_backend="c10d", rdzv_endpoint="localhost:0", max_restarts=0,
        shutdown_timeout=SECONDS_TO_SAVE,
    )  # fmt: skip
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # the processes tell what is to be told
    try:
        elastic_launch(config, sys.executable)("-m", "trainer", *argv)
    except SignalException as stopped:
        return 128 + int(stopped.sigval)
    except ChildFailedError as failed:
        return exit_code_of({rank: one.exitcode for rank, one in failed.failures.items()})
    finally:
        logging.disable(disabled)
    return 0


def exit_code_of(codes: dict[int, int]) -> int:
    """Exit code of all, of those of the processes that failed, by rank; tells which were killed.
    The first that ends has the others stopped by SIGTERM."""
    own = {rank: code for rank, code in codes.items() if code != -signal.SIGTERM}
    for rank, code in own.items():
        if code < 0:
            complain(f"Process {rank} was killed by {signal.Signals(-code).name}.")
    if not own:
        return 128 + signal.SIGTERM
    if min(own.values()) < 0:
        return 1
    return 2 if 2 in own.values() else min(own.values())

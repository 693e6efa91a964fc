"""Jobs of a sweep on a Ray cluster: each a task that starts the job's command. Ray finds a node
with room for it, and lets it wait until there is one.

The tasks end with the process that started them, so nothing of them is to be found again.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.errors import UserError
from trainer.sweeps import elsewhere
from trainer.sweeps.elsewhere import Needs

STOP_S = 60.0  # for cancelled jobs to save their states
STOPPED = 128 + signal.SIGTERM


class Ray:
    """Ray, as a launcher: the cluster that RAY_ADDRESS names, or that runs on this machine, else
    one that is started here.

    Args:
        needs: what the job in a folder is to be given.
    """

    def __init__(self, needs: Callable[[Path], Needs]) -> None:
        self.needs = needs
        self.tasks: dict[Any, tuple[int, Path]] = {}  # Ray's reference -> key, log
        self.ray = connected()
        # With its source, for nodes that have not imported this program, and need not.
        self.ray.cloudpickle.register_pickle_by_value(elsewhere)
        self.command = self.ray.remote(max_retries=0, max_calls=1)(elsewhere.run)

    def start(self, key: int, words: Sequence[str], log: Path, env: Mapping[str, str]) -> None:
        log = log.absolute()
        needs = self.needs(log.parent)
        task = self.command.options(
            num_cpus=needs.threads, num_gpus=needs.gpus(self.has_gpus), name=log.parent.name
        )
        reference = task.remote(list(words), str(log), needs.threads, os.getcwd())
        self.tasks[reference] = key, log

    def going(self, folders: Mapping[int, Path]) -> list[int]:
        return []

    def ended(self, timeout_s: float) -> list[tuple[int, int]]:
        """Keys and exit codes of those that have ended; waits for the first."""
        if not self.tasks:
            time.sleep(timeout_s)
            return []
        done, _ = self.ray.wait(list(self.tasks), timeout=timeout_s)
        return [self.end_of(reference) for reference in done]

    def end_of(self, reference: Any) -> tuple[int, int]:
        key, log = self.tasks.pop(reference)
        try:
            return key, self.ray.get(reference)
        except self.ray.exceptions.TaskCancelledError:
            return key, STOPPED
        except self.ray.exceptions.WorkerCrashedError:
            return key, -signal.SIGKILL
        except self.ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1]
            with contextlib.suppress(OSError), open(log, "a", encoding="utf-8") as file:
                file.write(f"{error}\nRay: {reason}\n")
            return key, 1

    def send(self, key: int, number: int) -> None:
        """Cancel one, which stops its command by SIGTERM."""
        for reference in [ref for ref, (own, _) in self.tasks.items() if own == key]:
            self.ray.cancel(reference, force=False)

    def stop(self, number: int) -> list[tuple[int, int]]:
        """Cancel all, and wait for their states."""
        for key, _ in list(self.tasks.values()):
            self.send(key, number)
        found: list[tuple[int, int]] = []
        deadline = time.monotonic() + STOP_S
        while self.tasks and time.monotonic() < deadline:
            found += self.ended(1.0)
        for reference in self.tasks:
            self.ray.cancel(reference, force=True)
        return [*found, *((key, STOPPED) for key, _ in self.tasks.values())]

    def has_gpus(self) -> bool:
        return bool(self.ray.cluster_resources().get("GPU"))


def check() -> None:
    """Raises UserError where Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise UserError("launcher=ray needs ray: pip install -e '.[ray]'.")


def connected() -> Any:
    """Module ray, connected to a cluster. Raises UserError."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Of a GPU that a task has not asked for Ray hides nothing from it with this, nor warns of it.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        ray.init(log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        address = os.environ.get("RAY_ADDRESS")
        raise UserError(f"launcher=ray: {f'RAY_ADDRESS={address}: ' if address else ''}"
                        f"{error!s:.500}") from error  # fmt: skip
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return ray

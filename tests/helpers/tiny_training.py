"""What the tests of durability share: a tiny training, and ways to spoil what a process relies on.

The functions that `prepare` a process are pickled by name, so they stand at the top of a module.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import os
import resource
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Any

from tests.helpers import processes, results
from tests.helpers.processes import Ended
from trainer import checkpoints

# Two epochs of four steps; dropout and augmentation, so that a forgotten generator would show. At
# this learning rate the first epoch is the best one, so that best and last weights are different.
TINY = ("data=synthetic", "data.num_train=48", "data.val_size=0.34", "data.num_test=20",
        "data.shape=[1,4,4]", "model.hidden=[8]", "model.dropout=0.3", "augment=strong",
        "batch_size=8", "epochs=2", "optimizer.lr=3", "tensorboard=false")  # fmt: skip


def train(folder: Path, *argv: str, prepare: processes.Prepare | None = None) -> Path:
    """A tiny training in `folder`/run, which it makes and hands back."""
    folder.mkdir(exist_ok=True)
    processes.train(folder, *TINY, *argv, prepare=prepare)
    return folder / "run"


@functools.cache
def whole_run() -> Path:
    """One that nothing happens to, for all tests of this process to compare with."""
    folder = Path(tempfile.mkdtemp(prefix="whole-"))
    atexit.register(shutil.rmtree, folder)
    run = train(folder)
    assert results.summary(run)["best_epoch"] == 1
    return run


def refused(ended: Ended, *parts: str, code: int = 2) -> None:
    """It ended with that code and a short message that holds these parts."""
    assert ended.code == code, ended.output
    assert "Traceback" not in ended.output, ended.output
    assert len(ended.output.splitlines()) < 20, ended.output
    for part in parts:
        assert part in ended.output, ended.output


def limit_memory(more: int) -> None:
    """At most so many bytes of address space beside those that are in use."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + more, used + more))


def limit_file_size(most: int) -> None:
    """No file may grow beyond so many bytes, as on a full disk, root or not."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def without_privileges() -> None:
    """Let permissions hold for root, too: no capabilities are left (capset(2))."""
    header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert ctypes.CDLL(None).capset(header, none) == 0


def signal_at(number: int, at: int, evaluating: bool, times: int = 1) -> None:
    """Send the process a signal while it works on its `at`-th batch, counted from 0, of training
    or of evaluation."""
    import torch

    from trainer.evaluation.metrics import Meter

    add, count = Meter.add, iter(range(at))

    def adding(self: Meter, *args: torch.Tensor) -> None:
        add(self, *args)
        if torch.is_inference_mode_enabled() == evaluating and next(count, None) is None:
            for _ in range(times):
                os.kill(os.getpid(), number)

    Meter.add = adding  # type: ignore[method-assign]


def as_checkpoint(**model: Any) -> dict[str, Any]:
    """What claims to be a checkpoint, for torch.save."""
    return {"model": model, "format": checkpoints.FORMAT, "digest": "0" * 64}

"""Disk and folder of a run that fail it: one message, the last good state kept, and a way on."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.helpers import processes, results
from tests.helpers.tiny_training import (
    TINY,
    limit_file_size,
    refused,
    train,
    whole_run,
    without_privileges,
)
from trainer import checkpoints
from trainer.runs import lock
from trainer.system.torch_internals import leave_compiler_unimported
from trainer.training import sizes
from trainer.training.sizes import state_bytes
from trainer.training.step import undecorated_step

IS_ROOT = os.getuid() == 0


@pytest.fixture
def whole() -> Path:
    return whole_run()


# --- the disk -------------------------------------------------------------------------------------


def disk_fills(at: int, number: int, half: bool) -> None:
    """From the `at`-th file on there is no room: for all of it, or after half of it."""
    fsync, count = os.fsync, iter(range(at))

    def full(descriptor: int) -> None:
        name = os.readlink(f"/proc/self/fd/{descriptor}")
        if ".tmp." not in name or next(count, None) is not None:
            return fsync(descriptor)
        if half:
            os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
        raise OSError(number, os.strerror(number))

    os.fsync = full


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (28, "Not enough disk space"),
        pytest.param(27, "Not enough disk space", marks=pytest.mark.slow),
        pytest.param(122, "Not enough disk space", marks=pytest.mark.slow),
        pytest.param(5, "Input/output error", marks=pytest.mark.slow),
        pytest.param(30, "Read-only file system", marks=pytest.mark.slow),
    ],
    ids=["ENOSPC", "EFBIG", "EDQUOT", "EIO", "EROFS"],
)
def test_a_full_disk_at_a_save(whole: Path, tmp_path: Path, number: int, said: str) -> None:
    words = (*TINY, "save_every_steps=3", "hydra.run.dir=run")
    prepare = functools.partial(disk_fills, 1, number, half=True)
    ended = processes.run(tmp_path, *words, prepare=prepare)
    refused(ended, said, "The state of step 3 is intact", "python -m trainer resume", code=1)
    run = tmp_path / "run"
    assert results.leftovers(run) == []
    assert results.sound_steps(run) == [3]
    resumed = processes.run(tmp_path, "resume", "run")  # there is room again
    assert resumed.code == 0, resumed.output
    results.assert_same(run, whole)


@pytest.mark.slow
@pytest.mark.parametrize("at", range(5))
def test_a_full_disk_at_any_save(whole: Path, tmp_path: Path, at: int) -> None:
    """Step 2, step 4, the end of the epoch, the best weights, step 6."""
    prepare = functools.partial(disk_fills, at, 28, half=False)
    words = (*TINY, "save_every_steps=2", "hydra.run.dir=run")
    ended = processes.run(tmp_path, *words, prepare=prepare)
    run = tmp_path / "run"
    if at == 0:
        refused(ended, "Not enough disk space", "No state was saved yet", code=1)
        return
    state = f"The state of step {[0, 2, 4, 4, 4][at]} is intact"
    refused(ended, "Not enough disk space", state, code=1)
    assert processes.run(tmp_path, "resume", "run").code == 0
    results.assert_same(run, whole)


def test_a_real_limit_on_the_size_of_files(tmp_path: Path) -> None:
    """The kernel's own, as `ulimit -f` and quotas set it; event files meet it, too."""
    prepare = functools.partial(limit_file_size, 20_000)
    words = [word for word in TINY if not word.startswith("model.hidden")]
    ended = processes.run(tmp_path, *words, "hydra.run.dir=run", prepare=prepare)
    refused(ended, "Not enough disk space", "MB are free", "No state was saved yet", code=1)
    assert results.leftovers(tmp_path / "run") == []


@pytest.mark.slow
@pytest.mark.skipif(not IS_ROOT, reason="mounting needs root")
def test_a_real_small_disk(tmp_path: Path) -> None:
    """A file system of 3 MB in a mount namespace of its own; then the same with room."""
    (tmp_path / "disk").mkdir()
    words = " ".join(f"'{word}'" for word in TINY if not word.startswith("model.hidden"))
    script = f"""
        mount -t tmpfs -o size=3m tmpfs disk || exit 77
        {sys.executable} -m trainer {words} model.hidden='[4000]' hydra.run.dir=disk/run
        echo "code $?"; ls -A disk/run/checkpoints
        mount -o remount,size=30m disk
        {sys.executable} -m trainer resume disk/run --force epochs=3; echo "code $?"
    """
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], cwd=tmp_path, capture_output=True, text=True
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("no mount namespaces here")
    told = done.stdout + done.stderr
    assert "Low disk space" in told
    assert "Not enough disk space" in told
    assert "code 1" in told
    assert "Traceback" not in told
    assert ".tmp." not in told


def test_what_a_state_will_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The estimate against files that torch.save wrote, for optimizers with 0, 1 and 2 copies."""
    leave_compiler_unimported()
    net = torch.nn.Linear(300, 200)
    for make, copies in ((functools.partial(torch.optim.SGD, lr=0.1), 0),
                         (functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9), 1),
                         (torch.optim.RMSprop, 1), (torch.optim.Adadelta, 2),
                         (torch.optim.Adagrad, 1), (torch.optim.Adam, 2), (torch.optim.AdamW, 2),
                         (functools.partial(torch.optim.Adam, amsgrad=True), 3)):  # fmt: skip
        optimizer = make(net.parameters())
        net(torch.ones(1, 300)).sum().backward()
        with torch.no_grad():
            undecorated_step(optimizer)(optimizer)  # torch's own imports its compiler
        checkpoints.write(
            tmp_path / "x.pth", {"model": net.state_dict(), "optimizer": optimizer.state_dict()}
        )
        size = (tmp_path / "x.pth").stat().st_size
        assert sizes.copies(optimizer) == copies
        assert state_bytes(net, optimizer) == pytest.approx(size, rel=0.03)


@pytest.mark.parametrize("free", [0, pytest.param(10**12, marks=pytest.mark.slow)])
def test_a_small_disk_is_a_warning(tmp_path: Path, free: int) -> None:
    ended = processes.run(
        tmp_path, *TINY, "epochs=1", "hydra.run.dir=run", prepare=functools.partial(says_free, free)
    )
    assert ended.code == 0, ended.output
    assert ("Low disk space" in ended.output) == (free == 0)


def says_free(free: int) -> None:
    shutil.disk_usage = lambda path: shutil._ntuple_diskusage(10**12, 10**12 - free, free)


# --- folders --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_folders_that_no_run_can_have(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for name, said in (("file", "is a file"), ("file/run", "is a file"),
                       ("/proc/run", "be created"), ("x" * 300, "be created")):  # fmt: skip
        refused(processes.run(tmp_path, *TINY, f"hydra.run.dir={name}"), name[:50], said)
    assert (tmp_path / "file").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    train(tmp_path / "missing parents")  # the twin: with a space


def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    for words in ((), ("hydra.run.dir=run",)):
        ended = processes.run(tmp_path, *TINY, *words, prepare=without_privileges)
        refused(ended, str(tmp_path), "Permission denied", "hydra.run.dir=")
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_may_not_be_written_is_not_resumed(whole: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    (run / "summary.json").unlink()
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for path in (run, *run.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    ended = processes.run(tmp_path, "resume", "run", prepare=without_privileges)
    refused(ended, "run: cannot be written to: Permission denied")
    (run / lock.NAME).chmod(0o644)  # the one file that is opened first
    ended = processes.run(tmp_path, "resume", "run", prepare=without_privileges)
    refused(ended, "Permission denied")
    after = {path: path.read_bytes() for path in before}
    assert after | {run / lock.NAME: before[run / lock.NAME]} == before


@pytest.mark.slow
@pytest.mark.parametrize("name", ["données,a=b", "图像 it's (1)[2]", 'say "x" {y}', "~a#b"])
def test_any_name_of_a_folder_works(tmp_path: Path, name: str) -> None:
    here = tmp_path / name
    here.mkdir()
    train(here, "epochs=1")
    moved = (here / "run").rename(here / name)
    ended = processes.run(here, "resume", name, "epochs=2")
    assert ended.code == 0, ended.output
    evaluated = processes.run(here, "evaluate", f"{name}/checkpoints/best.pth")
    assert evaluated.code == 0, evaluated.output
    quoted = name.replace("'", "\\'")
    ended = processes.run(here, *TINY, "epochs=1", f"hydra.run.dir='{quoted}2'")
    assert ended.code == 0, ended.output
    assert (here / f"{name}2" / "summary.json").is_file()
    assert moved.is_dir()

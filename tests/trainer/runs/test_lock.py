"""One process at a time in a run's folder, and a folder of its own for every run."""

from __future__ import annotations

import errno
import multiprocessing
import os
import re
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

from tests.helpers import processes, results
from tests.helpers.tiny_training import TINY, refused, whole_run, without_privileges
from trainer.errors import UserError
from trainer.runs import lock

LONG = (*TINY, "epochs=100000", "hydra.run.dir=run")


@pytest.mark.slow
def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    first = processes.Command(tmp_path, LONG)
    assert first.wait_for(lambda: results.newest_step(tmp_path / "run") > 0), first.output
    rows = len(results.rows(tmp_path / "run"))
    second = processes.run(tmp_path, "resume", "run")
    refused(second, "run: is in use by", f"process {first.pid}", socket.gethostname())
    assert re.search(r"since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d", second.output)
    refused(processes.run(tmp_path, *TINY, "hydra.run.dir=run"), "resume")
    assert first.wait_for(lambda: len(results.rows(tmp_path / "run")) > rows + 1)  # unharmed
    killed = first.kill()
    assert killed.code == -signal.SIGKILL
    assert "Traceback" not in killed.output
    # Free at once. It would train for hours; that it starts is enough.
    third = processes.Command(tmp_path, ["resume", "run"])
    assert third.wait_for(lambda: "resuming from step" in third.output), third.output
    third.kill()


@pytest.mark.slow
def test_without_a_name_a_run_that_is_going_on_is_left_alone(tmp_path: Path) -> None:
    words = [word for word in LONG if not word.startswith("hydra.run.dir")]
    going = processes.Command(tmp_path, [*words, "hydra.run.dir=outputs/going"])
    assert going.wait_for(lambda: results.newest_step(tmp_path / "outputs" / "going") > 0)
    refused(processes.run(tmp_path, "resume"), "no unfinished run", "not running now")
    going.kill()


@pytest.mark.slow
def test_two_started_in_one_second_get_two_folders(tmp_path: Path) -> None:
    at_once = [processes.Command(tmp_path, [*TINY, "epochs=1"]) for _ in range(3)]
    for command in at_once:
        ended = command.wait()
        assert ended.code == 0, ended.output
    runs = [summary.parent for summary in tmp_path.rglob("summary.json")]
    assert len(runs) == 3
    assert len({results.summary(run)["weights_sha256"] for run in runs}) == 1


def test_equal_names_get_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same without waiting for three processes to meet in one second."""
    from omegaconf import OmegaConf

    from trainer.runs.folder import claim_folder

    monkeypatch.chdir(tmp_path)
    master = OmegaConf.create({"hydra": {"job": {"chdir": False}, "run": {"dir": "out/now"}}})
    claimed = [claim_folder(master, [], "run").name for _ in range(3)]
    assert claimed == ["now", "now-2", "now-3"]


def opens(folder: str) -> None:
    """End with 0 if this process gets the lock, else with the words of the refusal."""
    try:
        with lock.locked(Path(folder)):
            sys.exit(0)
    except UserError as error:
        Path(folder, "refusal").write_text(str(error))
        sys.exit(3)


def hold_beside_a_child(folder: str) -> None:
    """Keep the lock for long, with a child such as a run may have started."""
    with lock.locked(Path(folder)):
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        Path(folder, "held").touch()
        time.sleep(60)


def elsewhere(function: Callable[[str], None], folder: Path) -> ForkServerProcess:
    process = multiprocessing.get_context("forkserver").Process(
        target=function, args=(str(folder),), daemon=True
    )
    process.start()
    return process


def tried(folder: Path) -> int | None:
    process = elsewhere(opens, folder)
    process.join()
    return process.exitcode


def test_the_lock_by_itself(tmp_path: Path) -> None:
    assert not lock.is_locked(tmp_path)
    with lock.locked(tmp_path):
        assert tried(tmp_path) == 3
        refusal = (tmp_path / "refusal").read_text()
    assert f"is in use by process {os.getpid()} on {socket.gethostname()} since " in refusal
    assert tried(tmp_path) == 0


def test_a_child_does_not_keep_the_lock_of_a_killed_parent(tmp_path: Path) -> None:
    """As a worker that a run has started would, if it outlived the run."""
    holder = elsewhere(hold_beside_a_child, tmp_path)
    deadline = time.monotonic() + 60
    while not (tmp_path / "held").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert lock.is_locked(tmp_path)
    assert tried(tmp_path) == 3
    holder.kill()
    holder.join()
    assert not lock.is_locked(tmp_path)
    assert tried(tmp_path) == 0


def test_where_there_are_no_locks_a_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some network drives."""

    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "lockf", unsupported)
    with lock.locked(tmp_path):
        pass


def test_a_finished_run_leaves_its_folder_free(tmp_path: Path) -> None:
    run = Path(shutil.copytree(whole_run(), tmp_path / "run"))
    assert not lock.is_locked(run)
    refused(processes.run(tmp_path, "resume", "run"), "already finished", "epochs=N")
    refused(processes.run(tmp_path, *TINY, "hydra.run.dir=run"), "holds a run already", "resume")


def ask_all_the_time(folder: str) -> None:
    while True:
        lock.is_locked(Path(folder))


def test_asking_takes_nothing_and_needs_no_right_to_write(tmp_path: Path) -> None:
    with lock.locked(tmp_path):
        pass
    (tmp_path / lock.NAME).chmod(0o444)
    pid = os.fork()
    if pid == 0:
        without_privileges()
        ask_all_the_time(str(tmp_path))
    try:
        (tmp_path / lock.NAME).chmod(0o644)
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            with lock.locked(tmp_path):  # never refused
                pass
        assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

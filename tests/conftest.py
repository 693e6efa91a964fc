"""Environment of the tests, and the fixtures that many of them share."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers import shared_configs
from tests.helpers.commands import Finished, TrainedRun, train

# Two test processes share two cores: one thread each, for them and for what they start. Before
# torch is imported, which reads it.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

# Compiled code is kept, whatever the environment says: to rewrite the asserts of all tests takes
# each process ten seconds, and to compile the program each of those that tests start half a one.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Packed images go to the user's cache folder: to one of these tests' own.
CACHE = Path(tempfile.mkdtemp(prefix="trainer-tests-cache-"))
for _folder in (CACHE, CACHE / "trainer", CACHE / "trainer" / "packs"):
    _folder.mkdir(exist_ok=True)
    _folder.chmod(0o777)  # some tests are another user for a while
os.environ["XDG_CACHE_HOME"] = str(CACHE)
atexit.register(shutil.rmtree, CACHE, ignore_errors=True)

# What a shell starts in the background has SIGINT ignored, and hands that on; tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers() -> int:
    """One process more than cores: many tests wait, for the disk or for a process of their own."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_finish() -> None:
    """What all imports made stays: the garbage collector need not look at it again and again."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _configurations_read_once() -> Iterator[None]:
    shared_configs.share()
    yield
    assert shared_configs.unchanged()


@pytest.fixture(scope="session")
def default_run(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """The default training, as a newcomer starts it, shared by all tests that only look at it."""
    return train(tmp_path_factory.mktemp("default"))


@pytest.fixture
def dispatch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Finished]:
    """The command line inside this process, for words that end before any training starts."""
    monkeypatch.chdir(tmp_path)
    from trainer.cli.dispatch import dispatch as run

    def call(*argv: str) -> Finished:
        capsys.readouterr()
        try:
            code = run(list(argv))
        except SystemExit as exit:
            code = exit.code if isinstance(exit.code, int) else 1
        said = capsys.readouterr()
        return Finished(code, said.out, said.err)

    return call

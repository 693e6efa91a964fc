"""Downloads as users meet them: through the command line."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from data.cifar.load import CIFAR10
from tests.helpers import dataset_files
from tests.helpers.commands import Finished, train
from tests.helpers.mirror import Mirror, serve, wait_until

Dispatch = Callable[..., Finished]


def mnist_words(mirror: Mirror, root: Path) -> list[str]:
    sums = {name[:-3]: dataset_files.md5(content) for name, content in mirror.files.items()}
    return [
        "data=mnist", "model=mlp", f"data.root={root}", f"data.mirrors=[{mirror.address}]",
        *(f"data.file_md5.{name}={md5}" for name, md5 in sums.items()),
    ]  # fmt: skip


def cifar10_words(mirror: Mirror, root: Path) -> list[str]:
    return [
        "data=cifar10", f"data.root={root}", f"data.mirrors=[{mirror.address}]",
        f"data.archive_md5={dataset_files.md5(mirror.files[CIFAR10.archive])}",
    ]  # fmt: skip


def mnist_mirror() -> Mirror:
    packed = {}
    for name, content in dataset_files.mnist_files(num_train=300).items():
        packed[f"{name}.gz"] = gzip.compress(content, mtime=0)
    return Mirror(packed)


@pytest.mark.parametrize("data", ["mnist", "fashion_mnist", "cifar10", "cifar100"])
def test_without_network_it_ends_with_2_and_one_message(
    dispatch: Dispatch, tmp_path: Path, data: str
) -> None:
    mirrors = "data.mirrors=[http://127.0.0.1:1/,http://127.0.0.1:2/]"
    done = dispatch(f"data={data}", f"data.root={tmp_path / 'new'}", mirrors)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) < 12
    for part in ("Could not download", "127.0.0.1:1/", "127.0.0.1:2/", "refused", "data=mnist_5k"):
        assert part in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_is_fetched_comes_from_the_addresses_given(dispatch: Dispatch, tmp_path: Path) -> None:
    """Up to the words: the archive arrives, and what is in it does not have CIFAR-10's sums."""
    mirror = Mirror(
        {CIFAR10.archive: dataset_files.tar_gz(CIFAR10.folder, dataset_files.cifar10_files())}
    )
    with serve(mirror):
        done = dispatch(*cifar10_words(mirror, tmp_path))
    assert done.returncode == 2
    assert "data_batch_1 has the MD5" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [CIFAR10.archive]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_a_run_that_is_stopped_in_its_download_is_followed_by_one_that_goes_on(
    tmp_path: Path, number: int, code: int
) -> None:
    mirror = mnist_mirror()
    mirror.faults = [("stall", 10_000)]
    root, name = tmp_path / "raw", "train-images-idx3-ubyte.gz"
    part = root / "MNIST" / "raw" / f"{name}.part"
    with serve(mirror):
        words = mnist_words(mirror, root)
        with subprocess.Popen(
            [sys.executable, "-m", "trainer", *words], cwd=tmp_path, env=os.environ,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as first:  # fmt: skip
            wait_until(lambda: part.exists() and part.stat().st_size == 10_000, timeout_s=60)
            first.send_signal(number)
            said, complained = first.communicate(timeout=10)
        assert (first.returncode, said) == (code, "")
        assert "Traceback" not in complained
        assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [part.name]
        train(tmp_path, *words, "epochs=1")
    assert mirror.asked[1][:2] == (name, "bytes=10000-")
    assert sorted(path.name for path in part.parent.iterdir()) == sorted(mirror.files)

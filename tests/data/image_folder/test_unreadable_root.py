"""data.root, or a file in it, that the system does not let be read: key, file, reason, way out."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from data.cifar.load import CIFAR10
from data.roots import resolve_root
from data.types import DataError
from tests.helpers import cifar_loading, dataset_files, mnist_loading
from tests.helpers.image_files import as_nobody

Load = Callable[[Path], Any]

CIFAR_FILES, MNIST_FILES = dataset_files.cifar10_files(), dataset_files.mnist_files()
ARCHIVE = dataset_files.tar_gz(CIFAR10.folder, CIFAR_FILES)

# What lies in data.root, the file among it that is to be forbidden, and how it is loaded.
SETS: dict[str, tuple[dict[str, bytes], str, Load]] = {
    "cifar": (CIFAR_FILES, "test_batch", lambda root: cifar_loading.load(root, CIFAR_FILES)),
    "archive": (
        {CIFAR10.archive: ARCHIVE},
        CIFAR10.archive,
        lambda root: cifar_loading.load(root, CIFAR_FILES, ARCHIVE),
    ),
    "mnist": (MNIST_FILES, mnist_loading.TEST_LABELS, mnist_loading.load),
}


@contextmanager
def forbidden(path: Path, above: Path) -> Iterator[None]:
    """Nobody may read `path`; root could, so that this is done as another user."""
    mode = path.stat().st_mode
    with_own = [path, *path.rglob("*")]
    for one in with_own:
        one.chmod(one.stat().st_mode | 0o055)
    path.chmod(0)
    try:
        with as_nobody(above):
            yield
    finally:
        path.chmod(mode)


def refused(load: Load, root: Path) -> str:
    with pytest.raises(DataError) as caught:
        load(root)
    message = str(caught.value)
    assert message.startswith(f"data.root={root}")
    assert "Errno" not in message
    for part in ("cannot be read: ", "data.root=FOLDER", "data=mnist_5k"):
        assert part in message
    return message


@pytest.mark.parametrize("name", SETS)
def test_what_may_not_be_read_is_named(tmp_path: Path, name: str) -> None:
    files, file, load = SETS[name]
    root = tmp_path / "outer" / "set"
    dataset_files.write(root, files)
    load(root)
    for path, named in (
        (root / file, str(root / file)), (root, str(root)), (root.parent, f"data.root={root} "),
    ):  # fmt: skip
        with forbidden(path, tmp_path):
            message = refused(load, root)
        assert named in message
        assert "cannot be read: Permission denied. Allow it to be read (chmod), or" in message
    with as_nobody(root):
        load(root)  # the twin: the same user, nothing forbidden


@pytest.mark.parametrize("name", SETS)
def test_a_name_that_is_too_long(tmp_path: Path, name: str) -> None:
    files, _, load = SETS[name]
    message = refused(load, tmp_path / ("x" * 300))
    assert "cannot be read: File name too long. Name another folder" in message
    dataset_files.write(tmp_path / ("x" * 200), files)
    load(tmp_path / ("x" * 200))


@pytest.mark.parametrize("name", SETS)
def test_a_disk_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    files, file, load = SETS[name]
    dataset_files.write(tmp_path, files)

    def failing(method: str) -> Callable[..., Any]:
        original = getattr(Path, method)

        def read(self: Path, *args: Any, **options: Any) -> Any:
            if self.name == file:
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(self))
            return original(self, *args, **options)

        return read

    with monkeypatch.context() as patch:
        for method in ("read_bytes", "open"):
            patch.setattr(Path, method, failing(method))
        message = refused(load, tmp_path)
    assert f"{tmp_path / file} cannot be read: Input/output error. Name" in message
    assert "no tar.gz" not in message
    load(tmp_path)


def test_every_set_names_the_root(tmp_path: Path) -> None:
    refused(resolve_root, tmp_path / ("x" * 300))
    assert resolve_root(tmp_path / "x") == tmp_path / "x"

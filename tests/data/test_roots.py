from __future__ import annotations

import sys
from pathlib import Path

import pytest

import data.roots
from data.download.checksums import check_md5, md5_of
from data.roots import default_root, resolve_root
from data.types import DataError
from tests.helpers.commands import ROOT
from tests.helpers.dataset_files import md5


def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As if the package lay in a folder without pyproject.toml, as site-packages is."""
    package = tmp_path / "site-packages" / "data"
    package.mkdir(parents=True)
    monkeypatch.setattr(data.roots, "__file__", str(package / "files.py"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    return package


def test_default_root_of_a_checkout_is_its_data_raw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert default_root() == ROOT / "data" / "raw"
    package = install(tmp_path, monkeypatch)
    (package.parent / "pyproject.toml").touch()
    assert default_root() == package / "raw"


@pytest.mark.parametrize(
    ("platform", "variable", "fallback"),
    [
        ("linux", "XDG_CACHE_HOME", ".cache"),
        ("win32", "LOCALAPPDATA", "AppData/Local"),
        ("darwin", None, "Library/Caches"),
    ],
)
def test_default_root_of_an_installed_package_is_the_users_cache(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    platform: str,
    variable: str | None,
    fallback: str,
) -> None:
    install(tmp_path, monkeypatch)
    monkeypatch.setattr(sys, "platform", platform)
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    assert default_root() == tmp_path / "home" / fallback / "trainer"
    if variable:
        monkeypatch.setenv(variable, str(tmp_path / "elsewhere"))
        assert default_root() == tmp_path / "elsewhere" / "trainer"


def test_root_is_absolute_and_home_expanded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert resolve_root(None) == default_root()
    assert resolve_root("~/sets") == tmp_path / "sets"
    assert resolve_root("sets") == tmp_path / "sets"
    with pytest.raises(DataError, match=r"data\.root=~nobody-of-that-name/x"):
        resolve_root("~nobody-of-that-name/x")


def test_root_that_is_a_file_is_refused(tmp_path: Path) -> None:
    assert resolve_root(tmp_path) == tmp_path
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"data\.root=.*file is a file"):
        resolve_root(tmp_path / "file")


def test_md5_is_that_of_the_standard_library_and_of_either_case(tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_000
    (tmp_path / "file").write_bytes(content)
    found = md5_of(tmp_path / "file")
    assert found == md5(content)
    check_md5("file", found, found.upper())
    with pytest.raises(DataError, match=f"file has the MD5 {found}, expected {md5(b'')}: .*Delete"):
        check_md5("file", found, md5(b""))

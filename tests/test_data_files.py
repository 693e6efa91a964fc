from __future__ import annotations

import sys
from pathlib import Path

import pytest
from data_files import md5, serve, silent_server

import data.files
from data.files import default_root, fetch, md5_of, resolve_root, scratch_folder
from data.types import DataError


def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As if the package lay in a folder without pyproject.toml, as site-packages is."""
    package = tmp_path / "site-packages" / "data"
    package.mkdir(parents=True)
    monkeypatch.setattr(data.files, "__file__", str(package / "files.py"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    return package


def test_default_root_of_a_checkout_is_its_data_raw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert default_root() == Path(__file__).resolve().parents[1] / "data" / "raw"
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


def test_scratch_folder_takes_away_what_it_made(tmp_path: Path) -> None:
    root = tmp_path / "a" / "b"
    with scratch_folder(root) as scratch:
        (scratch / "half").touch()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyboardInterrupt), scratch_folder(root) as scratch:
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    root.mkdir(parents=True)
    with scratch_folder(root):
        pass
    assert root.is_dir()  # it was there before


def test_scratch_folder_leaves_what_arrived(tmp_path: Path) -> None:
    with scratch_folder(tmp_path / "a") as scratch:
        (scratch / "whole").touch()
        (scratch / "whole").rename(tmp_path / "a" / "whole")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["whole"]


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_fetch_brings_a_verified_file(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], scheme: str
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"content" * 100_000)
    expected = md5(source.read_bytes())
    with serve(tmp_path) as server:
        url = source.as_uri() if scheme == "file" else f"{server}source"
        fetch(url, tmp_path / "new", "copy", expected)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["copy"]
    assert md5_of(tmp_path / "new" / "copy") == expected
    assert capfd.readouterr() == ("", "")  # no bar where no terminal is


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("SERVER/another", "7 bytes arrived, with the MD5"),
        ("SERVER/half.cut", "50 bytes arrived, with the MD5"),
        ("SERVER/absent", "HTTP Error 404: File not found"),
        ("SILENT", "timed out"),
        ("file:///no/such/file", "No such file"),
        ("http://127.0.0.1:1/file", "refused"),
        ("nonsense", "unknown url type"),
    ],
)
def test_failed_fetch_says_why_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, reason: str
) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "another").write_bytes(b"content")
    (tmp_path / "source" / "half.cut").write_bytes(b"c" * 100)
    monkeypatch.setattr(data.files, "TIMEOUT_S", 0.2)
    with serve(tmp_path / "source") as server, silent_server() as silent:
        url = url.replace("SERVER/", server).replace("SILENT", silent)
        with pytest.raises(DataError) as caught:
            fetch(url, tmp_path / "new", "copy", md5(b"c" * 100))
    message = str(caught.value)
    assert message.startswith(f"Could not download {url}: ")
    for part in (reason, "put copy (MD5", str(tmp_path / "new"), "data.root=", "data=mnist_5k"):
        assert part in message
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_fetch_into_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"content")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="Not a directory"):
        fetch((tmp_path / "source").as_uri(), tmp_path / "file" / "new", "copy", md5(b"content"))
    fetch((tmp_path / "source").as_uri(), tmp_path / "new", "copy", md5(b"content"))

"""Folder that the packed images lie in: the dataset's own, the user's cache, or a temporary
one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from torchvision.datasets import ImageFolder

import data.image_folder.pack
import data.image_folder.packing
from tests.helpers.image_files import (
    as_nobody,
    composed,
    load,
    notes_of,
    pack_folder,
    refused,
    write_classes,
    write_image,
)


def test_later_runs_decode_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_classes(tmp_path)
    expected = load(root)
    monkeypatch.setattr(data.image_folder.packing, "read_image", None)
    again = load(root)
    assert again.fingerprint == expected.fingerprint
    with pytest.raises(TypeError):
        load(root, shape=[3, 10, 10])


def test_packed_images_can_lie_elsewhere(tmp_path: Path) -> None:
    cache, roots = tmp_path / "cache", [write_classes(tmp_path / x / "set") for x in "ab"]
    write_image(roots[1] / "cat" / "00.png", seed=5)
    made = [load(root, cache_dir=str(cache)) for root in roots]
    assert made[0].fingerprint != made[1].fingerprint
    assert not any(pack_folder(root).exists() for root in roots)
    folders = sorted(cache.iterdir())
    assert [folder.name.rpartition("-")[0] for folder in folders] == ["set", "set"]
    assert [[p.name for p in folder.iterdir()] for folder in folders] == [["3x12x16.pack"]] * 2
    assert "lies in data.root" in refused(roots[0], cache_dir=str(roots[0] / "cache"))


def test_a_set_that_cannot_be_written_to_is_packed_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the user's cache folder; and if that cannot be written to either, in one that nobody else
    may write to, among the temporary files. Where others could, it is refused."""
    root, temporary = write_classes(tmp_path / "root"), tmp_path / "temporary"
    composed()
    with as_nobody(root):
        assert notes_of(load(root)) == ()
    assert ImageFolder(str(root)).classes == ["cat", "dog", "owl"]
    temporary.mkdir()
    temporary.chmod(0o777)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "closed"))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    (tmp_path / "closed").mkdir(mode=0o755)
    with as_nobody(root):
        own = temporary / f"trainer-{os.geteuid()}"
        (note,) = notes_of(load(root))
        assert note.startswith(f"the packed images lie in {own}/packs/root-")
        assert "data.cache_dir=FOLDER" in note
        assert own.stat().st_mode & 0o777 == 0o700
        own.chmod(0o777)
        assert "data.cache_dir=FOLDER" in refused(root)
    if os.geteuid() == 0:
        own.chmod(0o700)
        os.chown(own, 0, 0)
        with as_nobody(root):
            assert "somebody else's" in refused(root)


def test_without_a_home_the_pack_lies_among_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The home is a file, or nobody knows one."""
    root = write_classes(tmp_path / "root")
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", "")

    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for number, home in enumerate((lambda: tmp_path / "file", unknown)):
        temporary = tmp_path / f"temporary-{number}"
        temporary.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(temporary))
        monkeypatch.setattr(Path, "home", home)
        (note,) = notes_of(load(root))
        (pack,) = temporary.rglob("3x12x16.pack")
        assert str(pack.parent) in note

"""Very many images that cannot be used: so many are named, and a file has all."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

import data.image_folder.bad_images
from data.image_folder import bad_images
from tests.helpers.image_files import (
    PARTS,
    as_nobody,
    composed,
    load,
    pack_folder,
    refused,
    write_image,
    write_parts,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = write_parts(tmp_path / "root", *PARTS, per_class=12)
    for path in bad_in(root):
        Path(path).write_bytes(b"no image")
    return root


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data.image_folder.bad_images, "MOST_NAMED", 20)


def bad_in(root: Path) -> list[str]:
    return [f"{root}/train/{name}/{i:02}.png" for name in ("cat", "dog") for i in range(11)]


def names_of(lines: list[str]) -> list[str]:
    return [line.strip().partition(":")[0] for line in lines]


def test_all_are_named_if_they_are_not_very_many(root: Path) -> None:
    lines = refused(root).splitlines()
    assert lines[0] == "22 of 108 images cannot be used:"
    assert names_of(lines[1:-1]) == bad_in(root)
    assert [path.name for path in pack_folder(root).iterdir()] == ["3x12x16.pack"]


@pytest.mark.usefixtures("few")
def test_of_very_many_a_file_has_all(root: Path, tmp_path: Path) -> None:
    for cache, folder in ((None, pack_folder(root)), (tmp_path / "cache", None)):
        lines = refused(root, cache_dir=cache and str(cache)).splitlines()
        file = (folder or next(tmp_path.glob("cache/root-*"))) / "bad_pictures.txt"
        assert lines[21] == f"  and 2 more; all are listed in {file}"
        assert names_of(lines[1:21]) == bad_in(root)[:20]
        listed = file.read_text().splitlines()
        assert names_of(listed) == bad_in(root)
        assert all(": not an image" in line for line in listed)
        assert sorted(path.name for path in file.parent.iterdir()) == [
            "3x12x16.pack", "bad_pictures.txt"
        ]  # fmt: skip


@pytest.mark.usefixtures("few")
def test_notes_name_the_file_too_and_it_is_kept_up(root: Path) -> None:
    notes = load(root, on_bad_image="skip").notes
    file = pack_folder(root) / "bad_pictures.txt"
    assert notes[-1] == f"and 2 more; all are listed in {file}"
    write_image(root / "train" / "cat" / "00.png", seed=99)
    notes = load(root, on_bad_image="skip").notes
    assert notes[-1] == f"and 1 more; all are listed in {file}"
    assert names_of(file.read_text().splitlines()) == bad_in(root)[1:]


@pytest.mark.usefixtures("few")
def test_where_nothing_may_be_written_the_number_is_told(root: Path) -> None:
    refused(root)
    (pack_folder(root) / "bad_pictures.txt").unlink()
    composed()
    with as_nobody(root):
        lines = refused(root).splitlines()
    assert lines[21] == "  and 2 more"
    assert [path.name for path in pack_folder(root).iterdir()] == ["3x12x16.pack"]


def test_a_disk_that_is_only_read_gets_no_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There, even removing what is not there is an error."""
    bad = {f"{i}.png": "the file is empty." for i in range(bad_images.MOST_NAMED + 5)}
    assert "all are listed in" in bad_images.named(tmp_path, bad, tmp_path)[-1]

    def refuse(*args: object, **options: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "write_text", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    assert bad_images.named(tmp_path, bad, tmp_path)[-1] == "and 5 more"

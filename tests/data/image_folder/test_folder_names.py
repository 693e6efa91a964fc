"""Folders whose names or links are not what they seem: a drive that is not there, characters that
look the same, characters that would steer a terminal."""

from __future__ import annotations

import os
import shlex
import subprocess
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from data.image_folder.class_folders import join_first_ten
from data.types import printable
from tests.helpers.commands import Finished
from tests.helpers.image_files import (
    as_nobody,
    composed,
    load,
    pack_folder,
    refused,
    write_classes,
    write_image,
)

# A class folder that is a link to nowhere


@pytest.mark.parametrize("part", ["", "train/", "test/"])
def test_a_class_on_a_drive_that_is_not_there_is_named(tmp_path: Path, part: str) -> None:
    root, drive = tmp_path / "root", tmp_path / "drive"
    for own in [part] if not part else ["train/", "test/"]:
        write_classes(root / own)
        write_classes(drive / own, ["yak"])
        (root / own / "yak").symlink_to(drive / own / "yak")
    expected = load(root).fingerprint
    (drive / part / "yak").rename(tmp_path / "unmounted")
    message = refused(root)
    assert message.startswith(
        f"{root / part / 'yak'}: is a link to {drive / part / 'yak'}, which cannot be reached: "
        "No such file or directory. Mount"
    )
    (tmp_path / "unmounted").rename(drive / part / "yak")
    assert load(root).fingerprint == expected


def test_a_split_on_a_drive_that_is_not_there_is_named(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write_classes(root / "train")
    (root / "test").symlink_to(tmp_path / "drive")
    assert refused(root).startswith(f"{root}/test: is a link to {tmp_path}/drive")
    write_classes(tmp_path / "drive")
    assert len(load(root).test) == 30


def test_a_class_that_leads_to_itself_or_where_nobody_may_look(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "root")
    link = root / "yak"
    link.symlink_to(link)
    assert "Too many levels of symbolic links" in refused(root)
    link.unlink()
    (tmp_path / "private" / "yak").mkdir(parents=True)
    link.symlink_to(tmp_path / "private" / "yak")
    composed()
    (tmp_path / "private").chmod(0)
    with as_nobody(root):
        assert "which cannot be reached: Permission denied" in refused(root)


def test_links_to_nowhere_that_are_no_classes_harm_nothing(tmp_path: Path) -> None:
    root = write_classes(tmp_path)
    expected = load(root).fingerprint
    for name in (".hidden", "lost.png", "notes.txt", "cat/.hidden"):
        (root / name).symlink_to("nowhere")
    assert load(root).fingerprint == expected


def test_on_the_command_line(tmp_path: Path, dispatch: Callable[..., Finished]) -> None:
    root = write_classes(tmp_path / "root")
    (root / "yak").symlink_to("nowhere")
    done = dispatch("data=image_folder", f"data.root={root}")
    assert done.returncode == 2
    assert f"{root}/yak: is a link to nowhere" in done.output
    assert not pack_folder(root).exists()


# Names that look the same

COMPOSED, APART = "caf\xe9 d'or", unicodedata.normalize("NFD", "caf\xe9 d'or")


def test_classes_that_only_look_the_same_are_told_apart(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write_classes(root / "train", ["dog", COMPOSED])
    write_classes(root / "test", ["dog", APART])
    message = refused(root)
    assert "look the same" in message
    assert "NFC and NFD" in message
    assert "lacks" not in message
    line = message.splitlines()[-1]
    assert line.isascii()  # as shown, both would look the same again
    assert "$'cafe\\u0301 d\\'or' where" in line
    # The way out is taken as it stands.
    command = line.partition("Rename it: ")[2]
    subprocess.run(["bash", "-c", command], check=True, env={**os.environ, "LC_ALL": "C.UTF-8"})
    assert load(root).classes == (COMPOSED, "dog")


def test_what_differs_besides_is_named_too(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write_classes(root / "train", ["dog", "owl", COMPOSED])
    write_classes(root / "test", ["dog", "yak", APART])
    message = refused(root)
    assert f"{root}/test lacks owl: move some of their images there from {root}/train" in message
    assert f"{root}/test has besides yak: rename them" in message
    assert message.count("look the same") == 1


# Names that would steer a terminal

STEERING = "\x1b[2J\x07\n\u202eb"


def test_names_of_bad_images_are_printed_escaped(tmp_path: Path) -> None:
    root = write_classes(tmp_path)
    (root / "cat" / f"{STEERING}.png").write_bytes(b"no image")
    (root / "cat" / f"x.{STEERING}").write_bytes(b"no image")
    os.close(os.open(os.fsencode(root) + b"/cat/\xff.png", os.O_CREAT))
    line = f"{root}/cat/\\x1b[2J\\x07\\n\\u202eb.png: not an image"
    sizes = {"val_size": 0.3, "test_size": 0.3}  # of each class three or more in each
    message = refused(root, **sizes)
    notes = load(root, on_bad_image="skip", **sizes).notes
    assert line in message
    assert sum(note.startswith(line) for note in notes) == 1
    assert f"{root}/cat/\\udcff.png: the file is empty." in message
    assert len(message.splitlines()) == 4
    for text in (*message.splitlines(), *notes):
        assert text.isprintable()


def test_names_of_folders_are_printed_escaped(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write_classes(root / "train")
    (root / f"x{STEERING}").mkdir()
    assert "has x\\x1b[2J\\x07\\n\\u202eb beside train" in refused(root)
    (root / f"x{STEERING}").rmdir()
    deep = root / "train" / "cat" / f"x{STEERING}"
    write_image(deep / "x.png")
    deep.chmod(0)
    composed()
    with as_nobody(root):
        (message,) = refused(root).splitlines()
    assert message.isprintable()
    assert "this folder cannot be read" in message
    deep.chmod(0o755)
    load(root)


def test_plain_names_are_printed_as_they_are() -> None:
    for name in ("Große Katze", "g\xe2teau, rouge", "犬", "a'b\\c", shlex.quote("a b")):
        assert printable(name) == name
        assert join_first_ten([name]) == name

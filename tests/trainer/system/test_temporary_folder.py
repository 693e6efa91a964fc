"""Files of other people are parsed in a temporary folder: if there can be none, that is said."""

from __future__ import annotations

import errno
import functools
import os
import tempfile
from pathlib import Path

import pytest
import torch

from tests.campaigns import system_faults
from tests.helpers import processes
from tests.helpers.tiny_training import refused

WORDS = ("weights=theirs.pth", "model=lenet_caffe", "data=synthetic", "data.shape=[3,32,32]",
         "data.num_train=48", "data.val_size=0.34", "data.num_test=20", "epochs=1",
         "tensorboard=false", "hydra.run.dir=run")  # fmt: skip


def in_folder(name: str) -> None:
    """As a TMPDIR that is taken without a look, or that was there at the start."""
    tempfile.tempdir = os.path.abspath(name)


def failing(name: str, number: int) -> None:
    """No folder can be made in this one, for that reason."""

    def act(call: str, path: str) -> None:
        if call == "mkdir":
            raise OSError(number, os.strerror(number), path)

    in_folder(name)
    system_faults.install(os.path.abspath(name), act)


def nowhere() -> None:
    """Neither TMPDIR nor one of the system's own may be written to."""
    tempfile._candidate_tempdir_list = lambda: ["/not/there"]  # type: ignore[attr-defined]
    tempfile.tempdir = None


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    from models.lenet import LeNetCaffe

    weights = LeNetCaffe((3, 32, 32), 10).state_dict()
    torch.save(weights, tmp_path / "theirs.pth")
    (tmp_path / "tmp").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (functools.partial(in_folder, "gone"), ["gone", "No such file or directory"]),
        (functools.partial(failing, "tmp", errno.ENOSPC), ["tmp", "No space left on device"]),
        (functools.partial(failing, "tmp", errno.EDQUOT), ["tmp", "Disk quota exceeded"]),
        (functools.partial(failing, "tmp", errno.EACCES), ["tmp", "Permission denied"]),
        (nowhere, ["/not/there"]),
    ],
    ids=["not there", "no room", "no share left", "no right", "nowhere"],
)
def test_no_temporary_folder(theirs: Path, prepare: processes.Prepare, said: list[str]) -> None:
    ended = processes.run(theirs, *WORDS, prepare=prepare)
    refused(ended, "theirs.pth", "temporary folder", "TMPDIR", *said)
    assert sorted(path.name for path in theirs.iterdir()) == ["theirs.pth", "tmp"]


@pytest.mark.slow
def test_the_folder_is_taken_and_left_empty(theirs: Path) -> None:
    ended = processes.run(theirs, *WORDS, prepare=functools.partial(in_folder, "tmp"))
    assert ended.code == 0, ended.output
    assert list((theirs / "tmp").iterdir()) == []

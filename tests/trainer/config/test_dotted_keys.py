"""A key with a dot in its name, such as CIFAR-10's batches.meta: how the command line sets it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable

import pytest
import yaml

from tests.helpers.commands import Finished

Dispatch = Callable[..., Finished]

MD5 = "0123456789abcdef0123456789abcdef"


def file_md5(dispatch: Dispatch, *words: str) -> dict[str, str]:
    done = dispatch("data=cifar10", *words, "--cfg", "job")
    assert done.returncode == 0, done.output
    found: dict[str, str] = yaml.safe_load(done.stdout)["data"]["file_md5"]
    return found


@pytest.mark.parametrize("more", [(), ("--cfg", "job"), ("-m", "seed=1,2")])
def test_the_message_says_what_works(dispatch: Dispatch, more: tuple[str, ...]) -> None:
    done = dispatch("data=cifar10", f"data.file_md5.batches.meta={MD5}", *more)
    assert done.returncode == 2
    assert done.stderr.startswith("data.file_md5.batches.meta: a dot in a name, batches.meta, ")
    assert "Did you mean" not in done.stderr
    said = re.search(r"sets it: (.*)", done.stderr)
    assert said is not None
    [word] = shlex.split(said[1].replace("VALUE", MD5))  # as a shell hands it on
    assert file_md5(dispatch, word) == {**file_md5(dispatch), "batches.meta": MD5}


def test_other_keys_are_told_as_before(dispatch: Dispatch) -> None:
    done = dispatch("data=cifar10", f"data.file_md5.test_bach={MD5}")
    assert done.returncode == 2
    assert "Did you mean data.file_md5.test_batch?" in done.stderr
    changed = file_md5(dispatch, f"data.file_md5.test_batch={MD5}")
    assert changed["test_batch"] == MD5

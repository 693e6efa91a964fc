"""Python's search for garbage: put off while a command starts, and taken up again after that."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from tests.helpers.commands import ROOT
from trainer.system import garbage

# Each command's work is replaced, as what it would do takes longer than this question.
COMMANDS = """
import gc, sys
import trainer.__main__ as entry
from {module} import {name} as owner
def asked(*_, **__):
    print("searching", gc.isenabled())
    raise SystemExit(0)
owner.{work} = asked
sys.argv = ["trainer", *{words}]
entry.main()
"""


def test_put_off_and_taken_up() -> None:
    frozen = gc.get_freeze_count()
    try:
        garbage.put_off()
        assert not gc.isenabled()
        garbage.go_on()
        assert gc.isenabled()
        assert gc.get_freeze_count() > frozen
    finally:
        gc.unfreeze()
        gc.enable()


@pytest.mark.parametrize(
    ("module", "name", "work", "words"),
    [
        ("trainer.cli", "train", "claim_folder", ["data=synthetic"]),
        ("trainer.cli", "evaluate", "main", ["evaluate", "x.pth"]),
        ("trainer.cli", "compare", "main", ["compare", "x", "y"]),
    ],
)
def test_commands_work_with_the_search_on(
    module: str, name: str, work: str, words: list[str]
) -> None:
    code = COMMANDS.format(module=module, name=name, work=work, words=words)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.endswith("searching True\n"), done.stdout + done.stderr

"""Every line of README's "Use" block can be copied into a shell as it stands."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.commands import ROOT, Finished
from trainer.cli.dispatch import COMMANDS
from trainer.config import knobs
from trainer.config.compose import Composer, parse, plain

README = (ROOT / "README.md").read_text("utf-8")
BLOCK = re.search(r"^## Use\n\n```\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
assert BLOCK
LINES = BLOCK[1].splitlines()
START = ["python", "-m", "trainer"]


def words(line: str) -> list[str]:
    return shlex.split(line, comments=True)


def test_the_block_is_whole() -> None:
    commands = {words(line)[3] for line in LINES if words(line)[:3] == START}
    assert set(COMMANDS) <= commands | {"--help"}
    assert len(LINES) >= 15
    assert max(map(len, LINES)) <= 110


@pytest.mark.parametrize("line", LINES)
def test_a_shell_takes_a_line_as_it_stands(line: str) -> None:
    unquoted = re.sub(r"'[^']*'", "", line.partition(" # ")[0])
    assert not set(unquoted) & set('<>()[]{}*?!;&|`"\\'), "zsh or bash would act on it"
    assert line.startswith(("python -m trainer ", "RUN=outputs/"))
    done = subprocess.run(["bash", "-n", "-c", line], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("line", [x for x in LINES if words(x)[:3] == START])
def test_the_program_takes_a_line(line: str, dispatch: Callable[..., Finished]) -> None:
    argv = words(line)[3:]
    if argv[0] in COMMANDS and argv[0] != "summary":
        # Right words in the wrong place: what is said is about the files, which are not here.
        done = dispatch(*argv)
        assert done.returncode == 2
        assert re.search(r"there is no such (file|folder)|no unfinished run", done.stderr), (
            done.stderr
        )
        return
    if argv[0] in ("--help", "--version", "--cfg", "summary"):
        done = dispatch(*argv)
        assert done.returncode == 0, done.stderr
        assert done.stdout
        return
    composer = Composer(parse(argv))
    jobs = [plain(job) for job in composer.jobs(composer.master())]
    assert len(jobs) == (6 if "--multirun" in argv else 1)
    for job in jobs:
        knobs.check(job)


def test_a_folder_of_packages_is_no_work_of_the_projects() -> None:
    for name in ("venv", ".venv"):
        done = subprocess.run(["git", "check-ignore", "-q", f"{name}/x"], cwd=ROOT)
        assert done.returncode == 0 or not Path(ROOT / ".git").exists()

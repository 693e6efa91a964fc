"""Documentation: its commands run, and are written so that they can be copied."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from tests.helpers.commands import ROOT, Finished, run_trainer, train
from tests.helpers.doc_pages import PAGES, SHOWN_RUN, Step, blocks, text_of
from tests.helpers.image_files import write_image
from trainer.cli.dispatch import COMMANDS
from trainer.config import knobs
from trainer.config.compose import Composer, parse, plain

START = ["python", "-m", "trainer"]
ASK = ("--help", "--version", "--cfg", "summary")  # answered at once, with nothing on the disk

# What is run of no page: lines of the trainer are composed, of others the file or module is there.
NOT_RUN = {
    r"\bdata=(mnist|fashion_mnist|cifar10|cifar100)\b": "a download",
    r"experiment=(mlp_fashion|mlp_mnist|lenet_mnist|cifar_net_cifar10)": "a download",
    r"experiment=fashion_mnist_(fast|best)": "a download",
    r"weights=IMAGENET1K_V1": "a download",
    r"average\.start_epoch=10": "more epochs than one; tests/trainer/training/rules/ trains some",
    r"compile=(step|model)": "a C++ compiler; tests/trainer/training/compiling/ runs it",
    r"launcher=(slurm|ray)": "a cluster; tests/trainer/sweeps/ starts one",
    r"report outputs/(two --|cv outputs/two)|resume outputs/zoo": "sweeps of another line or page",
    r"^pip install": "a network; .ci/run does it",
    r"^torchrun": "tests/trainer/training/test_processes.py starts it",
    r"^(pytest|ruff|mypy|\.ci/run)\b": "the tests and their tools themselves",
    r"^chromium": "a browser; tests/trainer/monitoring/test_browser.py starts one",
    r"^python -m (benchmarks|tests\.campaigns)\.": "minutes to hours",
}


def steps(page: str) -> list[Step]:
    """What a reader of the page copies into a terminal, in order."""
    found = []
    for block in blocks(page):
        if block.language == "python":
            found.append(block)
        if block.language == "bash":
            found += [Step("bash", line) for line in block.text.splitlines() if line.strip()]
    return found


def spans(page: str) -> list[Step]:
    """Commands in the running text."""
    return [Step("bash", text) for text in re.findall(r"`(python -m [^`]+)`", page)]


def words(line: str) -> list[str]:
    return shlex.split(line, comments=True)


def why_not(line: str) -> str | None:
    """The reason why a line is not run. The layer table of `summary` needs no data."""
    if words(line)[:4] == [*START, "summary"]:
        return None
    return next((why for rule, why in NOT_RUN.items() if re.search(rule, line)), None)


def runs(page: Path) -> bool:
    return any(step.language == "python" or not why_not(step.text) for step in steps(text_of(page)))


def limited(argv: list[str]) -> list[str]:
    """One epoch of one batch, in the place of a training of minutes."""
    if argv and (argv[0] in COMMANDS or argv[0] in ASK):
        return argv
    given = {word.partition("=")[0] for word in argv}
    return argv + [w for w in ("epochs=1", "limit_batches=1") if w.partition("=")[0] not in given]


def run(step: Step, folder: Path, variables: dict[str, str]) -> Finished:
    """The step in this folder; NAME=value lines are kept for those after them."""
    if found := re.fullmatch(r"([A-Z]+)=(\S+)", step.text):
        variables[found[1]] = found[2]
        return Finished(0, "", "")
    line = re.sub(r"\$([A-Z]+)", lambda name: variables[name[1]], step.text)
    if step.language == "bash" and words(line)[:3] == START:
        return run_trainer(*limited(words(line)[3:]), cwd=folder)
    argv = ["-c", line] if step.language == "python" else words(line)[1:]
    assert step.language == "python" or words(line)[0] == "python", line
    done = subprocess.run(
        [sys.executable, *argv], cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    return Finished(done.returncode, done.stdout, done.stderr)


def failures(page: str, folder: Path) -> Iterator[str]:
    """Runs a page from top to bottom."""
    variables: dict[str, str] = {}
    for step in steps(page):
        if step.language == "bash" and why_not(step.text):
            continue
        done = run(step, folder, variables)
        if done.returncode:
            yield f"{step.text}\nexit code {done.returncode}\n{done.output}"


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of somebody who has read README: a run, one that was cut off, images."""
    folder = tmp_path_factory.mktemp("reader")
    train(folder, "epochs=1", "limit_batches=1", folder=SHOWN_RUN)
    cut_off = train(folder, "epochs=2", "limit_batches=1", folder="outputs/cut_off").folder
    for name in ("summary.json", "checkpoints/step_2.pth", "checkpoints/last.pth"):
        (cut_off / name).unlink()
    for name in ("cat", "dog"):
        for seed in range(20):
            write_image(folder / "photos" / name / f"patient{seed}_{name}.png", seed)
    files = [f"{name}/patient{n}_{name}.png,{n}" for name in ("cat", "dog") for n in range(20)]
    (folder / "groups.csv").write_text("\n".join(["file,group", *files]))
    with np.load(ROOT / "data" / "mnist_5k.npz") as digits:
        images, labels = (digits[name] for name in ("test_images", "test_labels"))
    for digit in range(10):
        (folder / "digits" / str(digit)).mkdir(parents=True)
        for number, image in enumerate(images[labels == digit][:3]):
            Image.fromarray(image).save(folder / "digits" / str(digit) / f"{number}.png")
    return folder


@pytest.fixture
def reader(prepared: Path, tmp_path: Path) -> Path:
    return shutil.copytree(prepared, tmp_path / "reader")


def test_the_commands_of_readme_run(reader: Path) -> None:
    page = text_of(PAGES[0])
    assert len(steps(page)) >= 7
    assert not list(failures(page, reader))


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES[1:] if runs(p)], ids=lambda page: page.name)
def test_the_commands_of_a_page_run(page: Path, reader: Path) -> None:
    torch.save(torchvision.models.resnet18().state_dict(), reader / "resnet18.pth")
    assert not list(failures(text_of(page), reader))


def test_a_wrong_key_in_a_page_is_found(reader: Path) -> None:
    """The twin of the two tests above."""
    page = "Text.\n\n```bash\npython -m trainer --version\npython -m trainer epoch=1\n```\n"
    (found,) = failures(page, reader)
    assert found.startswith("python -m trainer epoch=1\nexit code 2\n")
    assert "epochs" in found
    python = "```python\nimport no_such_module\n```\n"
    assert len(list(failures(python, reader))) == 1


def compose(argv: list[str]) -> None:
    """As before a training. Raises UserError."""
    composer = Composer(parse(argv))
    for job in composer.jobs(composer.master()):
        knobs.check(plain(job))


ALL = [step.text for page in PAGES for step in steps(text_of(page))
       if step.language == "bash"]  # fmt: skip
SPANS = [step.text for page in [*PAGES, ROOT / "benchmarks" / "README.md"]
         for step in spans(text_of(page))]  # fmt: skip


@pytest.mark.parametrize("line", sorted({*ALL, *SPANS}))
def test_a_command_is_known(line: str, dispatch: Callable[..., Finished]) -> None:
    """Also of those that are not run."""
    argv = words(line)
    if argv[:3] != START:
        if argv[:2] == ["python", "-m"]:
            assert importlib.util.find_spec(argv[2]) is not None
        elif argv[0] == "torchrun":
            compose(argv[argv.index("trainer") + 1 :])
        elif argv[0].startswith("."):
            assert os.access(ROOT / argv[0], os.X_OK)
        else:
            assert argv[0] in ("pip", "pytest", "ruff", "mypy", "chromium") or "=" in argv[0]
    elif argv[3:] and argv[3] in (*COMMANDS, "--help", "--version"):
        if argv[3] in ("--help", "--version"):
            assert dispatch(*argv[3:]).returncode == 0
            return
        # Right words in the wrong place: what is said is about the files, which are not here.
        done = dispatch(*argv[3:])
        assert argv[3] in ("summary", "schedule", "find-lr") or re.search(
            r"there is no such (file|folder|run)|does not exist|no unfinished run|holds no run",
            done.stderr,
        ), done.stderr
    else:
        compose(argv[3:])


@pytest.mark.parametrize("line", ALL)
def test_a_shell_takes_a_line_as_it_stands(line: str) -> None:
    unquoted = re.sub(r"'[^']*'", "", line.partition(" # ")[0])
    assert not set(unquoted) & set('<>()[]{}*?!;&|`"\\'), "zsh or bash would act on it"
    done = subprocess.run(["bash", "-n", "-c", line], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_command_has_an_example() -> None:
    shown = {words(line)[3] for line in ALL if len(words(line)) > 3 and words(line)[:3] == START}
    assert set(COMMANDS) <= shown
    assert {rule for rule in NOT_RUN if any(re.search(rule, line) for line in (*ALL, *SPANS))} == (
        set(NOT_RUN)
    ), "a reason that no line needs"


def test_blocks_say_what_they_are() -> None:
    for page in PAGES:
        languages = {block.language for block in blocks(text_of(page))}
        assert languages <= {"bash", "python", "text", "yaml"}, page

"""Documentation: its names, links, tables and shown output are those of the tree."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.commands import ROOT, TrainedRun
from tests.helpers.doc_pages import PAGES, SHOWN_RUN, blocks, text_of
from tests.test_imports import LAYERS
from trainer.config import knobs
from trainer.config.changes import FREE_KEYS
from trainer.training import loop


def shape_of(line: str) -> str:
    """A line of output without its figures and dates."""
    return re.sub(
        r"\d[\d.,:/-]*", "#", re.sub(r"outputs/\S+?(?=/checkpoints| |$)", "RUN", line)
    ).strip()


def test_the_output_in_readme_is_that_of_the_program(default_run: TrainedRun) -> None:
    page = text_of(PAGES[0])
    (shown,) = [b.text for b in blocks(page) if b.language == "text"]
    output = re.sub(r"\brun(?=/|$)", SHOWN_RUN, default_run.command.output, flags=re.M)
    output = output.replace("(test_readings", "(outputs/test_readings")  # it lies beside the runs
    said = {shape_of(line).removesuffix("best").strip() for line in output.splitlines()}
    lines = [line for line in shown.splitlines() if line != "..." and "tensorboard" not in line]
    assert len(lines) > 10
    for line in lines:
        assert shape_of(line).removesuffix("best").strip() in said, line


def rows(page: str, pattern: str) -> dict[str, str]:
    """Of tables: what stands in the first cell between backticks -> the second cell."""
    return dict(re.findall(rf"^\| `({pattern})` \| (.+) \|$", page, re.M))


def first_line(file: Path) -> str:
    """Of a module's docstring: what it is for."""
    return (ast.get_docstring(ast.parse(file.read_text("utf-8"))) or "").partition("\n")[0]


def test_the_tree_in_readme_is_that_of_the_folders() -> None:
    tree = rows(text_of(PAGES[0]), r"[\w.]+/[\w/.]*")
    for path in tree:
        assert (ROOT / path).exists(), path
    assert {path.name for path in ROOT.iterdir() if path.is_dir() and path.name[0] not in "._"} <= {
        path.rstrip("/") for path in tree
    } | {"build", "dist", "venv", "trainer.egg-info"}
    assert {f"trainer/{path.name}" for path in (ROOT / "trainer").glob("*.py")} <= {
        *tree, "trainer/__init__.py"
    }  # fmt: skip
    folders = {
        f"{file.parent.relative_to(ROOT)}/": first_line(file)
        for top in ("trainer", "data", "models")
        for file in (ROOT / top).rglob("__init__.py")
    }
    folders.pop("trainer/")
    assert len(folders) >= 23
    said = {path: text for path, text in tree.items() if path in folders}
    assert said == {path: text.rstrip(".") for path, text in folders.items()}


def test_the_table_in_readme_has_every_choice() -> None:
    page = text_of(PAGES[0])
    for group, choices in rows(page, "|".join(knobs.GROUPS)).items():
        files = {path.stem for path in (ROOT / "configs" / group).glob("*.yaml")}
        assert files == set(re.findall(r"`(\w+)`", choices)), group
    assert set(rows(page, "|".join(knobs.GROUPS))) == set(knobs.GROUPS)


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "benchmarks" / "README.md"], ids=lambda p: str(p.relative_to(ROOT))
)
def test_links_and_paths_exist(page: Path) -> None:
    text = text_of(page)
    for link in re.findall(r"\]\(([^)#]*(?:#[^)]*)?)\)", text):
        target, _, anchor = link.partition("#")
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text("utf-8"), re.M)
            assert anchor in map(slug, headings), link
    for name in re.findall(
        r"`((?:trainer|data|models|configs|tests|benchmarks|docs)/[\w./]*)`", text
    ):
        assert (ROOT / name).exists() or name == "data/raw", name


def test_a_missing_link_is_seen() -> None:
    """The twin of the test above."""
    assert slug("Killed, damaged, worn out") == "killed-damaged-worn-out"
    assert not (ROOT / "docs" / "no_such_page.md").exists()
    linked = "".join(text_of(page) for page in PAGES)
    assert "docs/own_images.md#datasets-that-are-downloaded" in linked


def test_the_layers_in_design_are_those_of_the_imports() -> None:
    page = text_of(ROOT / "docs" / "design.md")
    shown = re.search(r"^__main__ > .*?(?=```)", page, re.M | re.S)
    assert shown
    told = [set(re.findall(r"\w+", row)) for row in shown[0].split(">")]
    rows = [{place.removeprefix("trainer.") for place in row} for row in LAYERS]
    assert told == [row for row in rows if not any("data." in place for place in row)] + [{"data"}]


def test_the_keys_that_may_change_on_resume_are_told() -> None:
    page = text_of(ROOT / "docs" / "checkpoints.md")
    told = re.search(r"these keys may change: (.*?)\. A larger", page, re.S)
    assert told
    assert set(re.findall(r"`([\w.]+)`", told[1])) - {"data"} == set(FREE_KEYS)


def test_the_image_is_small() -> None:
    with Image.open(ROOT / "docs" / "report.png") as image:
        assert image.width >= 800
    assert (ROOT / "docs" / "report.png").stat().st_size < 200_000


def test_a_folder_of_packages_is_no_work_of_the_projects() -> None:
    for name in ("venv", ".venv"):
        done = subprocess.run(["git", "check-ignore", "-q", f"{name}/x"], cwd=ROOT)
        assert done.returncode == 0 or not Path(ROOT / ".git").exists()


def test_the_way_of_a_batch_is_that_of_the_loop() -> None:
    page = (ROOT / "docs" / "design.md").read_text("utf-8")
    shown = page.partition("## The way of a batch")[2].partition("A feature that")[0]

    def steps(text: str) -> list[str]:
        return [" ".join(step.split()) for step in re.split(r"^\d\. ", text, flags=re.M)[1:]]

    told = steps(inspect.getdoc(loop.fit) or "")
    assert len(told) == 8
    assert steps(shown) == told

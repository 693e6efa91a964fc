"""Pages of the documentation, and the blocks that stand in them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from tests.helpers.commands import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SHOWN_RUN = "outputs/2026-11-30/14-03-30"  # the run whose output README shows


class Step(NamedTuple):
    """A line of a `bash` block, or a whole `python` block."""

    language: str
    text: str


def text_of(page: Path) -> str:
    return page.read_text("utf-8")


def blocks(page: str) -> list[Step]:
    return [Step(*found) for found in re.findall(r"^```(\w*)\n(.*?)^```$", page, re.M | re.S)]

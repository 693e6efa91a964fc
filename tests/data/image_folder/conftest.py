"""What the tests of packs share. Tests of other folders have a `root` of their own."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.helpers.packs import counting_reads, write_root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_root(tmp_path / "root")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    return counting_reads(monkeypatch)

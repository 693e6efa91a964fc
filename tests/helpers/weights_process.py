"""Does the child process's work in the test's own process: a start takes half a second, with torch
two, and a few tests show that it works."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.weights import child, sandbox


def stay_in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(path: Path, kind: str, num_bytes: int, folder: Path) -> None:
        child.main(kind, str(path), str(folder), "0", "0")

    monkeypatch.setattr(child, "limit", lambda memory_bytes, cpu_s: None)
    monkeypatch.setattr(sandbox, "_run", run)

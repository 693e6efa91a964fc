"""Pickles that want to run code: refused in every form, and the name of what they call is told."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from models.weights.foreign import WeightsError
from models.weights.reader import read
from models.weights.safe_load import safe_torch_load
from tests.helpers.weights_process import stay_in_process


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    stay_in_process(monkeypatch)


def refusal(path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        read(path, {})
    assert "weights_only" not in str(caught.value)  # torch's own message advises to switch it off
    return str(caught.value)


class Command:
    """Unpickling it runs a shell command."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.canary}'",)


class Nested:
    """Hides a pickle in torch's own function for storages, which unpickles freely."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        buffer = io.BytesIO()
        torch.save(Command(self.canary), buffer)
        return torch.storage._load_from_bytes, (buffer.getvalue(),)


def malicious(path: Path, form: str, canary: Path) -> Path:
    bad = {"weight": torch.ones(2), "extra": Command(canary)}
    if form.startswith("raw"):
        path.write_bytes(pickle.dumps({"extra": Command(canary)}, protocol=int(form[-1])))
    elif form == "nested":
        torch.save({"extra": Nested(canary)}, path)
    else:
        torch.save(bad, path, _use_new_zipfile_serialization=form == "zip")
    return path


@pytest.mark.parametrize("form", ["zip", "legacy", "raw2", "raw4", "raw5", "nested"])
def test_pickles_never_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, in_process: None
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    canary = tmp_path / "canary"
    path = malicious(tmp_path / "w.pth", form, canary)
    with pytest.raises(WeightsError, match="refused: unpickling it would call"):
        safe_torch_load(path)
    message = refusal(path)
    assert "_load_from_bytes" in message if form == "nested" else "system" in message
    assert not canary.exists()


@pytest.mark.slow
def test_pickles_never_run_in_the_child_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    canary = tmp_path / "canary"
    assert "system" in refusal(malicious(tmp_path / "w.pth", "legacy", canary))
    assert not canary.exists()


def test_the_canary_would_sing(tmp_path: Path) -> None:
    path = malicious(tmp_path / "w.pth", "zip", tmp_path / "canary")
    torch.load(path, weights_only=False)
    assert (tmp_path / "canary").exists()

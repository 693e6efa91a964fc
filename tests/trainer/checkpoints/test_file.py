"""Checkpoint files: plain, durable, and never wrong in silence."""

from __future__ import annotations

import os
import pickle
import random
from pathlib import Path

import pytest
import torch

from trainer import checkpoints
from trainer.errors import UserError


def entries() -> dict[str, object]:
    generator = torch.Generator().manual_seed(0)
    weights = {
        "half": torch.randn(50, generator=generator).bfloat16(),
        "whole": torch.randn(30, 20, generator=generator),
        "double": torch.randn(3, generator=generator, dtype=torch.float64),
        "count": torch.tensor(7),
        "empty": torch.empty(0),
    }
    return {
        "model": weights, "config": "epochs: 3\n", "classes": ["ä", "b"], "step": 3,
        "lr": 0.1, "none": None, "flag": True, "nested": {"list": [1, {"x": 2.5}]},
    }  # fmt: skip


def test_round_trip(tmp_path: Path) -> None:
    checkpoints.write(tmp_path / "a.pth", entries())
    back, expected = checkpoints.read(tmp_path / "a.pth"), entries()
    weights, wanted = back.pop("model"), expected.pop("model")
    assert back == expected
    assert list(weights) == list(wanted)  # type: ignore[call-overload]
    for name, tensor in wanted.items():  # type: ignore[attr-defined]
        assert torch.equal(weights[name], tensor)
        assert weights[name].dtype == tensor.dtype
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]


def test_anybody_can_load_it_safely(tmp_path: Path) -> None:
    checkpoints.write(tmp_path / "a.pth", entries())
    content = torch.load(tmp_path / "a.pth", map_location="cpu", weights_only=True)
    assert content["format"] == 1
    assert len(content["digest"]) == 64


def test_only_plain_types(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="PosixPath"):
        checkpoints.write(tmp_path / "a.pth", {"path": Path("x")})
    assert list(tmp_path.iterdir()) == []


def test_every_single_value_counts_in_the_digest() -> None:
    def digest(**changes: object) -> str:
        return checkpoints.digest(entries() | changes)

    model = entries()["model"]
    assert isinstance(model, dict)
    variants = [
        digest(),
        digest(step=4),
        digest(step=3.0),
        digest(flag=1),
        digest(none="None"),
        digest(model=model | {"count": torch.tensor(8)}),
        digest(model=model | {"count": torch.tensor(7, dtype=torch.int32)}),
        digest(model=model | {"whole": model["whole"].view(20, 30)}),
        digest(model={("whale" if k == "whole" else k): v for k, v in model.items()}),
        digest(model=dict(reversed(model.items()))),
    ]
    assert len(set(variants)) == len(variants)
    assert digest() == digest()


def test_a_changed_byte_is_found_or_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "a.pth"
    checkpoints.write(file, entries())
    sound, expected = file.read_bytes(), checkpoints.digest(checkpoints.read(file))
    chooser, found = random.Random(0), 0
    for _ in range(150):
        damaged = bytearray(sound)
        damaged[chooser.randrange(len(sound))] ^= 1 << chooser.randrange(8)
        file.write_bytes(damaged)
        try:
            read = checkpoints.digest(checkpoints.read(file))
        except UserError:
            found += 1
        else:
            assert read == expected
    assert found > 20


@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.9, 0.999])
def test_a_cut_file_is_named(tmp_path: Path, share: float) -> None:
    file = tmp_path / "a.pth"
    checkpoints.write(file, entries())
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.raises(UserError, match=r"a\.pth: .*(empty|damaged)"):
        checkpoints.read(file)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<!DOCTYPE html><html>404</html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git-lfs"),
        (b"just some text", "not a checkpoint"),
    ],
)
def test_other_files_are_told_apart(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(UserError, match=said):
        checkpoints.read(tmp_path / "x.pth")


class _Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch canary",)


@pytest.mark.parametrize("kind", ["torch", "legacy", "pickle"])
def test_code_in_a_file_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    if kind == "pickle":
        Path("x.pth").write_bytes(pickle.dumps(_Malicious()))
    else:
        torch.save(_Malicious(), "x.pth", _use_new_zipfile_serialization=kind == "torch")
    with pytest.raises(UserError, match=r"x\.pth"):
        checkpoints.read(Path("x.pth"))
    assert not Path("canary").exists()


def test_weights_of_another_program_are_not_taken_for_a_checkpoint(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.ones(2, 2)}, tmp_path / "x.pth")
    with pytest.raises(UserError, match="not a checkpoint of this program"):
        checkpoints.read(tmp_path / "x.pth")


def test_rotation_keeps_the_newest_two_and_links_the_last(tmp_path: Path) -> None:
    folder = checkpoints.CheckpointFolder(tmp_path)
    for step in (9, 10, 100):
        folder.save_state(step, {"model": {"w": torch.tensor(float(step))}})
    folder.save_best({"model": {"w": torch.tensor(-1.0)}})
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["best.pth", "last.pth", "step_10.pth", "step_100.pth"]
    assert (tmp_path / "last.pth").samefile(tmp_path / "step_100.pth")
    assert [path.name for path in folder.states()] == ["step_10.pth", "step_100.pth"]


def test_without_hard_links_the_last_is_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise OSError("not supported here")

    monkeypatch.setattr(os, "link", no_links)
    folder = checkpoints.CheckpointFolder(tmp_path)
    folder.save_state(5, {"model": {"w": torch.tensor(5.0)}})
    assert checkpoints.read(tmp_path / "last.pth")["model"]["w"] == 5


def test_a_failed_write_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.pth"
    checkpoints.write(file, {"model": {}, "step": 1})
    before = file.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.write(file, {"model": {}, "step": 2})
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]

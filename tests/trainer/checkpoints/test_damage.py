"""Damaged checkpoints, and such as claim more than they hold: named and refused, never loaded
wrong."""

from __future__ import annotations

import functools
import io
import shutil
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.campaigns import damage as damage_campaign
from tests.helpers import processes, results
from tests.helpers.commands import Finished
from tests.helpers.tiny_training import as_checkpoint, limit_memory, refused, whole_run
from trainer import checkpoints
from trainer.errors import UserError

Dispatch = Callable[..., Finished]


@pytest.fixture
def sound_run() -> Path:
    return whole_run()


def states(run: Path) -> list[Path]:
    return checkpoints.states_in(run / "checkpoints")


@pytest.mark.parametrize("copies", [100, pytest.param(500, marks=pytest.mark.slow)])
def test_no_damage_gives_a_wrong_tensor(sound_run: Path, tmp_path: Path, copies: int) -> None:
    files = [tmp_path / "state.pth", tmp_path / "best.pth"]
    shutil.copy(states(sound_run)[-1], files[0])
    shutil.copy(sound_run / "checkpoints" / "best.pth", files[1])
    found = damage_campaign.campaign(files, copies, seed=copies)
    assert sum(ends.total() for ends in found.values()) == copies
    assert sum(ends["refused"] for ends in found.values()) > 0.9 * copies
    assert checkpoints.read(files[0])["step"] == 8  # the twin


def test_the_campaign_sees_a_wrong_tensor(
    sound_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its control: without the digest's word it finds files that read as something else."""
    file = Path(shutil.copy(states(sound_run)[-1], tmp_path))

    def unchecked(path: Path) -> dict[str, Any]:
        try:
            entries = torch.load(path, map_location="cpu", weights_only=True)
            return {k: v for k, v in entries.items() if k not in ("digest", "format")}
        except Exception as error:
            raise UserError(f"{path}: no") from error

    monkeypatch.setattr(checkpoints, "read", unchecked)
    with pytest.raises(AssertionError, match="read, and wrong"):
        damage_campaign.campaign([file], 200, seed=0)


@pytest.mark.parametrize(
    "share", [0.9, *(pytest.param(s, marks=pytest.mark.slow) for s in (0, 0.01))]
)
def test_resume_names_a_damaged_state_and_takes_the_one_before(
    sound_run: Path, tmp_path: Path, share: float
) -> None:
    run = Path(shutil.copytree(sound_run, tmp_path / "run"))
    (run / "summary.json").unlink()
    newest = states(run)[-1]
    newest.write_bytes(newest.read_bytes()[: int(share * newest.stat().st_size)])
    ended = processes.run(tmp_path, "resume", "run")
    assert ended.code == 0, ended.output
    assert f"{newest.name}: " in ended.output
    assert results.started_at(ended.output) == 4
    results.assert_same(run, sound_run)


def test_without_a_sound_state_nothing_is_begun_anew(sound_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(sound_run, tmp_path / "run"))
    (run / "summary.json").unlink()
    for state in states(run):
        content = state.read_bytes()
        state.write_bytes(content[: len(content) // 2] + bytes(len(content) // 2))
    rows = results.rows(run)
    ended = processes.run(tmp_path, "resume", "run")
    refused(ended, "step_4.pth", "step_8.pth", "no intact state")
    assert results.rows(run) == rows
    assert not (run / "summary.json").exists()


@pytest.mark.slow
def test_an_unreadable_newest_state_is_left_where_it_is(sound_run: Path, tmp_path: Path) -> None:
    """A disk that cannot be read for a moment is no damage: the state may be sound tomorrow."""
    run = Path(shutil.copytree(sound_run, tmp_path / "run"))
    (run / "summary.json").unlink()
    ended = processes.run(
        tmp_path, "resume", "run", prepare=functools.partial(fail_to_read, "step_8.pth")
    )
    assert ended.code == 0, ended.output
    assert "step_8.pth: it cannot be read: Input/output error" in ended.output
    results.assert_same(run, sound_run)


def fail_to_read(name: str) -> None:
    """torch.load as on a disk with a bad sector."""
    load = torch.load

    def loading(path: Path, **options: Any) -> Any:
        if Path(path).name == name:
            raise OSError(5, "Input/output error", str(path))
        return load(path, **options)

    torch.load = loading


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_commands_refuse_a_damaged_checkpoint(
    sound_run: Path, tmp_path: Path, dispatch: Dispatch, command: str
) -> None:
    content = (sound_run / "checkpoints" / "best.pth").read_bytes()
    (tmp_path / "picture.png").write_bytes(b"")
    for name, damage in damage_campaign.DAMAGES.items():
        chooser = damage_campaign.random.Random(name)
        if "anywhere" in name or "directory" in name:  # some of these harm nothing
            continue
        Path("bad.pth").write_bytes(damage(content, chooser))
        words = ["picture.png"] if command == "predict" else []
        done = dispatch(command, "bad.pth", *words)
        assert done.returncode == 2, done.output
        assert done.stderr.startswith("bad.pth: "), done.output
        assert len(done.output.splitlines()) <= 2  # the second: what a bare state_dict needs


# --- files that claim more than they hold ---------------------------------------------------------


def archive(path: Path, parts: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, part in parts.items():
            file.writestr(f"archive/{name}", part)


def parts_of(content: Any) -> dict[str, bytes]:
    """The entries of the archive that torch.save makes, by their names within it."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with zipfile.ZipFile(buffer) as file:
        return {name.partition("/")[2]: file.read(name) for name in file.namelist()}


def compressed(path: Path) -> None:
    """50 MB of zeros in 50 kB."""
    parts = parts_of(as_checkpoint(w=torch.zeros(50 << 18)))
    archive(path, parts, zipfile.ZIP_DEFLATED)


def vast_storage(path: Path) -> None:
    """119 numbers that say they are 10^12."""
    parts = parts_of(as_checkpoint(w=torch.zeros(119)))
    claim = b"\x8a\x06" + (10**12).to_bytes(6, "little")  # LONG1 in place of BININT1
    assert parts["data.pkl"].count(b"K\x77") >= 2
    archive(path, parts | {"data.pkl": parts["data.pkl"].replace(b"K\x77", claim)})


def stride_zero(path: Path) -> None:
    """One number, 10^12 times."""
    checkpoint_bytes = parts_of(as_checkpoint(w=torch.zeros(1).expand(10**12)))
    archive(path, checkpoint_bytes)


def same_storage_often(path: Path) -> None:
    """A megabyte, 500 times; so could it be a million times."""
    storage = torch.zeros(1 << 18)
    archive(path, parts_of(as_checkpoint(**{f"w{i}": storage.view(-1) for i in range(500)})))


def pickled(path: Path, model: bytes) -> None:
    """A description whose `model` is made by these opcodes."""
    digest, sums, key = (b"X" + struct.pack("<I", len(t)) + t for t in (b"digest", b"x", b"model"))
    opcodes = b"\x80\x02}" + digest + sums + b"s" + key + model + b"s."
    archive(path, {"data.pkl": opcodes, "byteorder": b"little", "version": b"3\n"})


def deep_lists(path: Path) -> None:
    """Lists in lists, 100,000 deep."""
    pickled(path, b"]" * 100_000 + b"a" * 99_999)


def billion_laughs(path: Path) -> None:
    """Each list holds the one before it ten times: 10^30 items in a few hundred bytes."""
    # `0` drops what was made from the stack; the memo keeps it for the next level.
    steps = [b"]q\x00"]
    for n in range(1, 31):
        steps += [b"0](", (b"h" + bytes([n - 1])) * 10, b"eq", bytes([n])]
    pickled(path, b"".join(steps))


BOMBS = [compressed, vast_storage, stride_zero, same_storage_often, deep_lists, billion_laughs]


@pytest.mark.parametrize("bomb", BOMBS, ids=lambda bomb: bomb.__name__)
def test_a_bomb_is_refused_before_memory_is_taken(
    tmp_path: Path, bomb: Callable[[Path], None]
) -> None:
    bomb(tmp_path / "bomb.pth")
    assert (tmp_path / "bomb.pth").stat().st_size < 4 << 20
    limit = functools.partial(limit_memory, 48 << 20)
    refused(processes.run(tmp_path, "evaluate", "bomb.pth", prepare=limit), "bomb.pth: ")


def test_within_that_memory_a_sound_one_is_read(sound_run: Path, tmp_path: Path) -> None:
    limit = functools.partial(limit_memory, 48 << 20)
    words = ("evaluate", str(sound_run / "checkpoints" / "best.pth"))
    ended = processes.run(tmp_path, *words, prepare=limit)
    assert ended.code == 0, ended.output


@pytest.mark.parametrize(
    "tensor",
    [
        lambda: torch.eye(3).to_sparse(),
        lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
        lambda: torch.empty(3, device="meta"),
    ],
    ids=["sparse", "quantized", "meta"],
)
def test_only_plain_tensors(tmp_path: Path, tensor: Callable[[], torch.Tensor]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(as_checkpoint(w=tensor()), tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"x\.pth: "):
        checkpoints.read(tmp_path / "x.pth")


def test_tied_weights_count_once_for_the_file_and_twice_for_the_digest(tmp_path: Path) -> None:
    weight = torch.randn(100, 100)
    checkpoints.write(tmp_path / "x.pth", {"model": {"one": weight, "other": weight}})
    back = checkpoints.read(tmp_path / "x.pth")["model"]
    assert torch.equal(back["one"], weight)
    assert torch.equal(back["other"], weight)

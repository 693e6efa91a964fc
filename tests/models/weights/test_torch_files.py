"""Files of torch.save: wrappers, prefixes, number types, comparison, pickles that want to run."""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.weights import child
from models.weights.foreign import WeightsError, compare
from models.weights.reader import read
from tests.helpers.weights_process import stay_in_process


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    stay_in_process(monkeypatch)


def state_dict() -> OrderedDict[str, Tensor]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5))
    net[1].running_mean.uniform_()
    return net.state_dict()


def saved(path: Path, content: Any, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def assert_same(have: dict[str, Tensor], want: dict[str, Tensor]) -> None:
    assert list(have) == list(want)
    assert all(torch.equal(have[name], want[name]) for name in want)


def refusal(path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        read(path, {})
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "weights_only" not in message
    assert "\n" not in message
    return message


@pytest.mark.slow
def test_through_the_child_process(tmp_path: Path) -> None:
    wrapped = {"state_dict": {f"module.{k}": v for k, v in state_dict().items()}, "epoch": 3}
    foreign = read(saved(tmp_path / "weights.dat", wrapped), {})
    assert_same(foreign.state_dict, state_dict())
    assert foreign.state_dict["1.num_batches_tracked"].dtype == torch.int64
    assert foreign.notes == [
        "took the weights from the entry 'state_dict'",
        "dropped the prefix 'module.' from every name",
    ]
    assert (foreign.classes, foreign.mean, foreign.resize) == (None, None, None)


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("old_format", [False, True])
def test_wrappers_prefixes_formats(
    tmp_path: Path, wrapper: str | None, prefix: str, old_format: bool
) -> None:
    content: Any = OrderedDict((prefix + name, value) for name, value in state_dict().items())
    content = content if wrapper is None else {wrapper: content, "arch": "x"}
    path = saved(tmp_path / "w.pth", content, _use_new_zipfile_serialization=not old_format)
    foreign = read(path, {})
    assert_same(foreign.state_dict, state_dict())
    assert len(foreign.notes) == (wrapper is not None) + prefix.count(".")


@pytest.mark.usefixtures("in_process")
def test_a_prefix_that_not_every_name_has_is_kept(tmp_path: Path) -> None:
    content = {"module.a": torch.ones(2), "b": torch.ones(2), "best": 0.5}
    foreign = read(saved(tmp_path / "w.pth", content), {})
    assert list(foreign.state_dict) == ["module.a", "b"]
    assert foreign.notes == ["left out 1 entries that are no tensors: best"]


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    wide = {name: t.to(dtype) if t.is_floating_point() else t for name, t in state_dict().items()}
    foreign = read(saved(tmp_path / "w.pth", wide), {})
    want = {n: t.float() if t.is_floating_point() else t for n, t in wide.items()}
    assert_same(foreign.state_dict, want)
    assert foreign.state_dict["0.weight"].dtype == torch.float32


@pytest.mark.usefixtures("in_process")
def test_views_and_shared_tensors(tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    content = {"t": base.t(), "part": base[1:3, ::2], "a": base, "p": nn.Parameter(base)}
    foreign = read(saved(tmp_path / "w.pth", content), {})
    assert_same(foreign.state_dict, {k: v.detach() for k, v in content.items()})
    assert all(t.is_contiguous() for t in foreign.state_dict.values())


@pytest.mark.usefixtures("in_process")
def test_counters_of_batch_norm_are_added(tmp_path: Path) -> None:
    old = state_dict()
    del old["1.num_batches_tracked"]
    foreign = read(saved(tmp_path / "w.pth", old), {})
    assert not compare(foreign.state_dict, {k: tuple(v.shape) for k, v in state_dict().items()})
    assert "num_batches_tracked" in foreign.notes[0]


@pytest.mark.usefixtures("in_process")
@pytest.mark.filterwarnings("ignore")  # torch deprecates making the tensors that are refused here
@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: torch.ones(4, 4).to_sparse(), "layout torch.sparse_coo"),
        (lambda: torch.ones(4, 4).to_sparse_csr(), "layout torch.sparse_csr"),
        (lambda: torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8), "quantized"),
        (lambda: torch.ones(4, dtype=torch.complex64), "torch.complex64"),
        (lambda: torch.ones(4).to(torch.float8_e4m3fn), "torch.float8_e4m3fn"),
        (lambda: torch.ones(4, device="meta"), "device meta"),
        (lambda: torch.tensor([1.0, torch.nan]), "NaN"),
        (lambda: torch.tensor([1.0, -torch.inf]), "infinite"),
        (lambda: torch.tensor([1e300], dtype=torch.float64), "too large for float32"),
        (lambda: torch.ones(1).expand(1 << 20, 1 << 20), "its tensors would take"),
    ],
)
def test_refused_tensors(tmp_path: Path, make: Any, expected: str) -> None:
    content = {"good": torch.ones(2), "layer.bad": make()}
    message = refusal(saved(tmp_path / "w.pth", content))
    assert expected in message
    assert "layer.bad" in message or "would take" in message


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([torch.ones(2)], "holds a list"),
        (torch.ones(2), "holds a Tensor"),
        ({"a": 1, "b": {}}, "no named tensors; its entries are a, b"),
        ({1: torch.ones(2)}, "no named tensors"),
        ({}, "entries are none"),
    ],
)
def test_refused_contents(tmp_path: Path, content: Any, expected: str) -> None:
    assert expected in refusal(saved(tmp_path / "w.pth", content))


def test_compare_lists_ten_of_each_and_counts() -> None:
    have = {f"have.{i}": torch.ones(1) for i in range(25)}
    have |= {"fc.weight": torch.ones(1000, 8), "same": torch.ones(2)}
    want = {f"want.{i}": (1,) for i in range(3)} | {"fc.weight": (42, 8), "same": (2,)}
    mismatch = compare(have, want)
    assert mismatch
    assert mismatch.missing == ["want.0", "want.1", "want.2"]
    assert len(mismatch.unexpected) == 25
    assert mismatch.describe().splitlines() == [
        "missing: 3: want.0, want.1, want.2",
        f"unexpected: 25: {', '.join(f'have.{i}' for i in range(10))} and 15 more",
        "misshapen (have -> want): 1: fc.weight (1000, 8) -> (42, 8)",
    ]
    assert not compare({"same": torch.ones(2)}, {"same": (2,)})


@pytest.mark.slow
def test_pickle_that_claims_gigabytes(tmp_path: Path) -> None:
    """The old format states sizes in the pickle; the limit on address space stops it."""
    path = saved(tmp_path / "w.pth", {"w": torch.ones(77)}, _use_new_zipfile_serialization=False)
    raw = path.read_bytes()
    number = pickle.BININT1 + bytes([77])
    assert number in raw
    path.write_bytes(raw.replace(number, pickle.BININT + (2**31 - 1).to_bytes(4, "little")))
    assert "more memory than its size allows" in refusal(path)


@pytest.mark.usefixtures("in_process")
def test_zip_archives_that_torch_save_does_not_write(tmp_path: Path) -> None:
    entries = _entries(saved(tmp_path / "good.pth", state_dict()))
    path = _zip(tmp_path / "bomb.pth", entries, zipfile.ZIP_DEFLATED)
    assert "this zip archive is compressed" in refusal(path)
    with pytest.warns(UserWarning, match="Duplicate"):
        path = _zip(tmp_path / "twice.pth", [*entries, entries[-1]])
    assert "same name" in refusal(path)
    path = _zip(tmp_path / "folder.pth", entries[:-1])
    with zipfile.ZipFile(path, "a") as archive:
        marked = zipfile.ZipInfo(entries[-1][0])
        marked.external_attr = 0x10  # the DOS attribute of directories
        archive.writestr(marked, entries[-1][1])
    assert "marked as a directory" in refusal(path)
    np.savez(tmp_path / "w.npz", a=np.ones(3))
    assert "holds a.npy" in refusal(tmp_path / "w.npz")
    assert_same(read(_zip(tmp_path / "same.pth", entries), {}).state_dict, state_dict())


@pytest.mark.filterwarnings("ignore")  # torch.jit is deprecated
def test_torchscript_is_named(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "w.pt")
    assert "TorchScript" in refusal(tmp_path / "w.pt")


def _entries(path: Path) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def _zip(path: Path, entries: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


@pytest.mark.usefixtures("in_process")
def test_damaged_zip_is_refused_or_read_exactly(tmp_path: Path) -> None:
    """Any changed bit: an error, or the right numbers (some bytes, as time stamps, say nothing)."""
    raw = saved(tmp_path / "good.pth", state_dict()).read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for trial in range(200):
        damaged = np.frombuffer(raw, np.uint8).copy()
        at = rng.integers(0, len(raw), 1 + trial % 3)
        if trial % 2:  # the directory at the end, of which torch checks little
            at = len(raw) - 1 - at % 600
        damaged[at] ^= np.uint8(1) << rng.integers(0, 8, len(at), dtype=np.uint8)
        path = tmp_path / "bad.pth"
        path.write_bytes(damaged.tobytes())
        try:
            have = read(path, {}).state_dict
        except WeightsError:
            refused += 1
        else:
            assert_same(have, state_dict())
    assert 100 < refused < 200


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("old_format", [False, True])
@pytest.mark.parametrize("part", [0.01, 0.3, 0.5, 0.9, 0.999])
def test_truncated(tmp_path: Path, old_format: bool, part: float) -> None:
    path = saved(tmp_path / "w.pth", state_dict(), _use_new_zipfile_serialization=not old_format)
    raw = path.read_bytes()
    path.write_bytes(raw[: max(2, int(len(raw) * part))])
    assert "truncated" in refusal(path)


def test_full_disk_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: Path, array: np.ndarray, allow_pickle: bool) -> None:
        file.write_bytes(b"as far as it went")
        raise OSError("1000 requested and 17 written")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(child.RefusedError, match="set TMPDIR to a larger folder"):
        child.Folder(tmp_path).put(np.ones(3))
    assert list(tmp_path.iterdir()) == []

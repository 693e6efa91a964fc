"""Damaged and hostile .mat files, files of other formats, and the ways a child process can end."""

from __future__ import annotations

import resource
import struct
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

import models.weights
from models.weights import sandbox
from models.weights.foreign import ForeignWeights, WeightsError
from models.weights.reader import read
from tests.helpers import matconvnet_files as mcn


@pytest.fixture
def layers() -> list[mcn.Layer]:
    return mcn.vgg(np.random.default_rng(0), blocks=[[4], [6]], hidden=[], num_classes=5)


@pytest.fixture
def shapes(layers: list[mcn.Layer]) -> dict[str, tuple[int, ...]]:
    return mcn.target_shapes(layers)


def refusal(path: Path, shapes: dict[str, tuple[int, ...]]) -> str:
    with pytest.raises(WeightsError) as caught:
        read(path, shapes)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.splitlines()[0].isprintable()
    return message


def same(have: ForeignWeights, want: ForeignWeights) -> bool:
    told = [(f.classes, f.mean, f.std, f.resize, f.shape) for f in (have, want)]
    pairs = zip(have.state_dict.values(), want.state_dict.values(), strict=True)
    return told[0] == told[1] and all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "empty"),
        (b"these are my weights\n" * 99, "format is unknown"),
        (b"\n<!DOCTYPE html><html>Please log in", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"MATLAB 7.3 MAT-file, HDF5 schema 1.00 .".ljust(512) + b"\x89HDF\r\n\x1a\n", "-v7"),
        (b"\x89HDF\r\n\x1a\n" + bytes(64), "HDF5"),
        (b"\x1f\x8b\x08" + bytes(64), "gzip"),
        (bytes(257) + b"ustar\x0000" + bytes(300), "tar archive"),
        (struct.pack("<Q", 9) + b'{"w": {}}', "not a sound safetensors file"),
        (b"PK\x03\x04 cut off", "truncated or damaged zip"),
        (b"PK\x05\x06" + bytes(18), "holds nothing"),
        (b"MATLAB 5.0 MAT-file, cut off", "header is cut off"),
        (b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM", "holds no variables"),
    ],
)
def test_other_formats_are_named(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "vgg19.pth").write_bytes(content)
    assert expected in refusal(tmp_path / "vgg19.pth", {})


def test_missing_and_directory(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "none.mat", {})
    assert "directory" in refusal(tmp_path, {})


def test_not_a_network(tmp_path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    from scipy.io import savemat

    savemat(tmp_path / "a.mat", {"images": np.ones((2, 2))})
    assert "no SimpleNN network" in refusal(tmp_path / "a.mat", shapes)


def test_scipy_missing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    layers: list[mcn.Layer],
    shapes: dict[str, tuple[int, ...]],
) -> None:
    (tmp_path / "scipy").mkdir()
    (tmp_path / "scipy" / "__init__.py").write_text("raise ImportError('none here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert "pip install 'trainer[matlab]'" in refusal(mcn.save(tmp_path / "n", layers), shapes)


def test_modules_here_shadow_no_library() -> None:
    """The child is started by its path: what stands beside it must not be taken for a library."""
    names = {path.stem for path in Path(models.weights.__file__).parent.glob("*.py")}
    assert "child" in names
    assert not names & sys.stdlib_module_names


def test_cut_off_anywhere(
    tmp_path: Path, layers: list[mcn.Layer], shapes: dict[str, tuple[int, ...]]
) -> None:
    for compress in (True, False):
        path = mcn.save(tmp_path / "net.mat", layers, compress=compress)
        raw = path.read_bytes()
        for part in (1, 127, 130, 140, len(raw) // 2, len(raw) - 1):
            path.write_bytes(raw[:part])
            refusal(path, shapes)


def corrupt(raw: bytes, rng: np.random.Generator, start: int = 0) -> bytes:
    """Three random bytes, each changed."""
    changed = np.frombuffer(raw, np.uint8).copy()
    at = start + rng.choice(len(raw) - start, 3, replace=False)
    changed[at] ^= rng.integers(1, 256, 3, dtype=np.uint8)
    return changed.tobytes()


def test_a_length_that_swallows_the_next_variable(
    tmp_path: Path, layers: list[mcn.Layer], shapes: dict[str, tuple[int, ...]]
) -> None:
    path = mcn.save(tmp_path / "net.mat", layers, meta=False)
    raw = bytearray(path.read_bytes())
    raw[132:136] = (len(raw) - 136).to_bytes(4, "little")
    path.write_bytes(raw)
    assert "does not agree with its tag" in refusal(path, shapes)


OFTEN = pytest.param(range(1000, 3000), marks=pytest.mark.slow)


@pytest.mark.parametrize("seeds", [range(200), OFTEN])
def test_three_wrong_bytes(
    tmp_path: Path, layers: list[mcn.Layer], shapes: dict[str, tuple[int, ...]], seeds: range
) -> None:
    good = mcn.save(tmp_path / "good.mat", layers, descriptions=list("abcde"))
    raw, want = good.read_bytes(), read(good, shapes)
    path = tmp_path / "bad.mat"
    refused = 0
    for seed in seeds:
        path.write_bytes(corrupt(raw, np.random.default_rng(seed)))
        try:
            have = read(path, shapes)
        except WeightsError:
            refused += 1
        else:
            assert same(have, want)
    assert refused > 0.9 * len(seeds)


def _fuzz_parser(tmp_path: Path, seeds: range) -> dict[str, int]:
    """Damage under a right checksum, as an attacker makes it: SciPy's parser itself gets it."""
    layers = mcn.vgg(np.random.default_rng(0), blocks=[[2]], hidden=[], num_classes=2, side=2)
    shapes = mcn.target_shapes(layers)
    raw = mcn.save(tmp_path / "good.mat", layers, compress=False).read_bytes()
    path = tmp_path / "bad.mat"
    ends = {"read": 0, "refused": 0, "died": 0}
    for seed in seeds:
        damaged = corrupt(raw[:1800], np.random.default_rng(seed), start=136) + raw[1800:]
        packed = b"".join(_packed(element) for element in _elements(damaged))
        path.write_bytes(raw[:128] + packed)
        try:
            state = read(path, shapes).state_dict
        except WeightsError as error:
            ends["died" if "ended with SIG" in str(error) else "refused"] += 1
        else:
            ends["read"] += 1
            assert {name: tuple(t.shape) for name, t in state.items()} == shapes
            assert all(torch.isfinite(t).all() for t in state.values())
    return ends


def _elements(raw: bytes) -> list[bytes]:
    """The top-level elements; the first one's length may be damaged, then all is one element."""
    found, at = [], 128
    while at < len(raw):
        length = int.from_bytes(raw[at + 4 : at + 8], "little")
        found.append(raw[at : at + 8 + length])
        at += 8 + length
    return found


def _packed(element: bytes) -> bytes:
    packed = zlib.compress(element)
    return struct.pack("<II", 15, len(packed)) + packed


@pytest.mark.slow
def test_parser_gets_damage_under_a_right_checksum(tmp_path: Path) -> None:
    ends = _fuzz_parser(tmp_path, range(12))
    assert ends["refused"] + ends["died"] > 0


@pytest.mark.slow
def test_parser_gets_damage_under_a_right_checksum_often(tmp_path: Path) -> None:
    ends = _fuzz_parser(tmp_path, range(100, 140))
    assert ends["refused"] + ends["died"] > 0


def _matrix(flags: int, dims: tuple[int, ...], name: bytes, rest: bytes) -> bytes:
    """An array element: flags (class), dimensions, name, and what follows."""
    body = struct.pack("<IIII", 6, 8, flags, 0)
    packed = struct.pack(f"<{len(dims)}i", *dims)
    body += struct.pack("<II", 5, len(packed)) + packed.ljust(-(-len(packed) // 8) * 8, b"\0")
    body += struct.pack("<II", 1, len(name)) + name.ljust(-(-len(name) // 8) * 8, b"\0")
    return struct.pack("<II", 14, len(body) + len(rest)) + body + rest


HEADER = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
CELL, SINGLE = 1, 7


def test_a_crash_of_the_parser_is_one_message(
    tmp_path: Path, shapes: dict[str, tuple[int, ...]]
) -> None:
    """Cells in cells, 100,000 deep: SciPy's recursion runs out of stack, a real segfault."""
    cell = _matrix(CELL, (0, 0), b"", b"")
    head = len(_matrix(CELL, (1, 1), b"", b"")) - 8
    body = struct.pack("<IIII", 6, 8, CELL, 0) + struct.pack("<IIii", 5, 8, 1, 1)
    body += struct.pack("<II", 1, 0)
    assert head == len(body)
    depth = 100_000
    sizes = [len(cell) + (8 + len(body)) * i for i in range(depth)]
    nested = b"".join(struct.pack("<II", 14, len(body) + size) + body for size in reversed(sizes))
    outermost = _matrix(CELL, (1, 1), b"layers", nested + cell)
    (tmp_path / "deep.mat").write_bytes(HEADER + _packed(outermost))
    message = refusal(tmp_path / "deep.mat", shapes)
    assert "ended with SIGSEGV" in message or "RecursionError" in message


def test_bombs_are_refused_before_memory_is_taken(
    tmp_path: Path, shapes: dict[str, tuple[int, ...]]
) -> None:
    path = tmp_path / "bomb.mat"
    compressor = zlib.compressobj(9)
    packed = compressor.compress(struct.pack("<II", 14, 1 << 31))
    for _ in range(256):
        packed += compressor.compress(bytes(1 << 20))
    packed += compressor.flush()
    path.write_bytes(HEADER + struct.pack("<II", 15, len(packed)) + packed)
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    assert "unpacks to 2147 MB" in refusal(path, shapes)
    # A modest claim, and more behind it.
    liar = zlib.compress(struct.pack("<II", 14, 1 << 20) + bytes(1 << 26), 9)
    path.write_bytes(HEADER + struct.pack("<II", 15, len(liar)) + liar)
    assert "more than it claims" in refusal(path, shapes)
    # Many modest variables.
    many = _packed(_matrix(SINGLE, (1, 1), b"x", bytes(30 << 20))) * 9
    path.write_bytes(HEADER + many)
    assert "more than weights of this network can need" in refusal(path, shapes)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("dims", [(2**31 - 1, 1), (2**31 - 1, 2**31 - 1)])
def test_claims_inside_a_variable_meet_the_memory_limit(
    tmp_path: Path, shapes: dict[str, tuple[int, ...]], dims: tuple[int, int]
) -> None:
    """The container agrees with itself; a cell array in it claims billions of cells."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    (tmp_path / "cells.mat").write_bytes(HEADER + _packed(_matrix(CELL, dims, b"layers", b"")))
    assert "damaged or hostile" in refusal(tmp_path / "cells.mat", shapes)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert peak == before or peak < 1 << 20  # one GiB, in KiB


CHILD = Path(models.weights.__file__).with_name("child.py")
ENDS = {
    "os.kill(os.getpid(), signal.SIGSEGV)": "parsing it ended with SIGSEGV; nothing",
    "os.kill(os.getpid(), signal.SIGKILL)": r"SIGKILL (out of memory?)",
    "child.limit(1 << 30, 1)\nwhile True: pass": "SIGXCPU (too much CPU time)",
    "child.limit(1 << 26, 9)\nbytearray(1 << 27)": "MemoryError",
    "sys.exit('no luck \\x1b[2J')": r"failed: no luck \x1b[2J",
    "pass": "left no report",
    "open(sys.argv[3] + '/report.json', 'w').write('{')": "left no report",
    "time.sleep(60)": "not read after 2 s",
}


@pytest.mark.slow
@pytest.mark.parametrize("code", ENDS)
def test_however_the_child_ends(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    layers: list[mcn.Layer],
    shapes: dict[str, tuple[int, ...]],
    code: str,
) -> None:
    path = mcn.save(tmp_path / "net.mat", layers)
    script = tmp_path / "script.py"
    script.write_text(
        f"import os, signal, sys, time\nsys.path.insert(0, {str(CHILD.parent)!r})\n"
        f"import child\n{code}\n"
    )
    monkeypatch.setattr(sandbox, "SCRIPT", script)
    if "sleep" in code:
        monkeypatch.setattr(sandbox, "SECONDS_AT_LEAST", 0.5)
        monkeypatch.setattr(sandbox, "BYTES_PER_SECOND", float("inf"))
    assert ENDS[code] in refusal(path, shapes)

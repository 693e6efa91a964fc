"""Weights as the usual trainers write them, and safetensors: imported under the network's names, or
refused in words; what lies beside them is never run."""

from __future__ import annotations

import argparse
import collections
import json
import os
import pathlib
import struct
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from models.weights import safetensors_files
from models.weights.foreign import Shape, WeightsError
from models.weights.reader import read
from models.weights.safe_load import safe_torch_load
from tests.helpers.weights_process import stay_in_process


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    stay_in_process(monkeypatch)


def network() -> OrderedDict[str, Tensor]:
    torch.manual_seed(0)
    return nn.Sequential(
        OrderedDict(conv=nn.Conv2d(1, 4, 3), bn=nn.BatchNorm2d(4), fc=nn.Linear(4, 5))
    ).state_dict()


def shapes() -> dict[str, Shape]:
    return {name: tuple(tensor.shape) for name, tensor in network().items()}


def prefixed(prefix: str, scale: float = 1.0) -> dict[str, Tensor]:
    return {
        prefix + name: tensor * scale if tensor.is_floating_point() else tensor
        for name, tensor in network().items()
    }


def saved(path: Path, content: Any, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        read(path, shapes())
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


class Callback:
    """A class of the trainer's own, of which this program knows nothing."""

    def __init__(self) -> None:
        self.best = [1, {"score": 0.5}]


ARGS = argparse.Namespace(lr=0.1, output_dir=pathlib.PurePosixPath("/tmp/x"), device="cuda")
FILES: dict[str, Any] = {
    "torchvision references": {
        "model": network(), "optimizer": {"state": {}}, "lr_scheduler": {}, "epoch": 3,
        "args": ARGS,
    },
    "tutorial": {"epoch": 3, "model_state_dict": network(), "optimizer_state_dict": {}},
    "pytorch-cifar": {"net": prefixed("module."), "acc": 95.2, "epoch": 3},
    "lightning model": {
        "state_dict": {**prefixed("model."), "criterion.weight": torch.ones(5)},
        "callbacks": {Callback: {"best": SimpleNamespace(score=np.float64(0.5))}},
        "hyper_parameters": collections.defaultdict(list, {"a": [1], "b": {2, 3}}),
    },
    "lightning net": {"state_dict": prefixed("net.")},
    "lightning compiled": {"state_dict": prefixed("model._orig_mod.")},
    "averaged": {"n_averaged": torch.tensor(3), **prefixed("module.")},
    "compiled": prefixed("_orig_mod."),
    "timm": {"arch": "x", "state_dict": prefixed("", 2.0), "state_dict_ema": network()},
    "torchvision ema": {
        "model": prefixed("module.", 2.0),
        "model_ema": {"n_averaged": torch.tensor(7), **prefixed("module.")},
        "args": ARGS,
    },
    "nested": {"net": {"state_dict": network()}, "callback": Callback()},
}  # fmt: skip


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("old_format", [False, True])
@pytest.mark.parametrize("kind", FILES)
def test_the_usual_trainers(tmp_path: Path, kind: str, old_format: bool) -> None:
    path = saved(tmp_path / "w.pth", FILES[kind], _use_new_zipfile_serialization=not old_format)
    foreign = read(path, shapes())
    assert foreign.state_dict.keys() == network().keys()
    for name, tensor in network().items():
        assert torch.equal(foreign.state_dict[name], tensor), name
    said = " ".join(foreign.notes)
    if kind in ("timm", "torchvision ema"):
        assert "which are averaged, and not from" in said
    if kind == "lightning model":
        assert "dropped the prefix 'model.'" in said
        assert "left out 1 tensors without it: criterion.weight" in said


@pytest.mark.slow
def test_in_the_child_process_too(tmp_path: Path) -> None:
    foreign = read(saved(tmp_path / "w.pth", FILES["torchvision references"]), shapes())
    assert torch.equal(foreign.state_dict["fc.weight"], network()["fc.weight"])


@pytest.mark.usefixtures("in_process")
def test_a_prefix_stays_where_the_network_has_it(tmp_path: Path) -> None:
    """And where dropping it does not help: the comparison then shows the names as they are."""
    content = prefixed("model.")
    target = {name: tuple(tensor.shape) for name, tensor in content.items()}
    assert list(read(saved(tmp_path / "w.pth", content), target).state_dict) == list(content)
    other = {"other.weight": (2, 2), "more.bias": (2,)}
    assert list(read(tmp_path / "w.pth", other).state_dict) == list(content)


class Touch:
    """Whoever calls what it is pickled as makes a file."""

    def __init__(self, canary: Path, function: Callable[..., Any]) -> None:
        self.canary, self.function = canary, function

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, (str(self.canary),)


def make_file(name: str) -> None:
    Path(name).write_text("called")


@pytest.mark.usefixtures("in_process")
def test_nothing_beside_the_weights_is_called(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    content = {"model": network(), "args": Touch(canary, make_file)}
    foreign = read(saved(tmp_path / "w.pth", content), shapes())
    assert torch.equal(foreign.state_dict["fc.bias"], network()["fc.bias"])
    assert not canary.exists()
    torch.load(tmp_path / "w.pth", weights_only=False)  # the twin: else it would
    assert canary.exists()


@pytest.mark.parametrize("function", [os.system, eval, os.mkdir])
def test_what_was_made_to_run_something_is_named(
    tmp_path: Path, function: Callable[..., Any]
) -> None:
    content = {"model": network(), "args": Touch(tmp_path / "canary", function)}
    path = saved(tmp_path / "w.pth", content)
    with pytest.raises(WeightsError, match=f"unpickling it would call .*{function.__name__}"):
        safe_torch_load(path)
    assert not (tmp_path / "canary").exists()


@pytest.mark.usefixtures("in_process")
def test_whole_objects_are_told_from_weights(tmp_path: Path) -> None:
    assert "a whole object" in refusal(saved(tmp_path / "w.pth", Callback()))
    assert "Weights are looked for in" in refusal(saved(tmp_path / "w.pth", {"best": Callback()}))
    whole = saved(tmp_path / "w.pth", nn.Linear(2, 2))
    assert "unpickling it would call torch.nn" in refusal(whole)


# The format's own name of a type, where a file is made by hand.
KINDS = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


def safetensors(tensors: dict[str, Tensor], **header: Any) -> bytes:
    """As the format's description has it; entries of `header` replace what belongs there."""
    described: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    raw = b""
    for name, tensor in tensors.items():
        content = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        offsets = [len(raw), len(raw) + len(content)]
        described[name] = {
            "dtype": KINDS[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets
        }  # fmt: skip
        raw += content
    described |= header
    text = json.dumps({k: v for k, v in described.items() if v is not None}).encode()
    return struct.pack("<Q", len(text)) + text + raw


@pytest.mark.parametrize("by_hand", [True, False])
def test_safetensors(by_hand: bool, tmp_path: Path) -> None:
    file = tmp_path / "net.safetensors"
    if by_hand:
        file.write_bytes(safetensors(prefixed("model.")))
    else:
        save_file(prefixed("model."), file, {"format": "pt"})
    foreign = read(file, shapes())
    for name, tensor in network().items():
        assert torch.equal(foreign.state_dict[name], tensor), name
    assert foreign.notes == ["dropped the prefix 'model.'"]


@pytest.mark.parametrize("dtype", KINDS)
def test_types_of_safetensors(tmp_path: Path, dtype: torch.dtype) -> None:
    tensor = (torch.arange(12) % 7 - 3 * dtype.is_signed).reshape(3, 4).to(dtype)
    tensors = {"a": tensor, "empty": tensor[:0], "scalar": tensor[1, 1]}
    (tmp_path / "w.bin").write_bytes(safetensors(tensors))  # by content, not by name
    found = read(tmp_path / "w.bin", {}).state_dict
    assert set(found) == set(tensors)
    for name, want in tensors.items():
        want = want.float() if dtype.is_floating_point else want
        assert found[name].dtype == want.dtype
        assert torch.equal(found[name], want)


def entry(dtype: str, shape: list[Any], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


ONE = {"w": torch.arange(6.0).reshape(2, 3)}
HEADERS = {
    "no place": {"w": {"dtype": "F32", "shape": [2, 3]}},
    "not a table": {"w": 3},
    "negative": {"w": entry("F32", [-2, -3], 0, 24)},
    "enormous": {"w": entry("F32", [2**40, 2**40], 0, 24)},
    "enormous and empty": {"v": entry("F32", [0, 2**40, 2**40], 0, 0)},
    "too short": {"w": entry("F32", [2, 4], 0, 24)},
    "beyond": {"w": entry("F32", [8, 3], 0, 96)},
    "a gap": {"w": entry("F32", [5], 4, 24)},
    "shared": {"v": entry("F32", [6], 0, 24)},
    "overlapping": {"w": entry("F32", [3], 0, 12), "v": entry("F32", [4], 8, 24)},
    "rest": {"w": entry("F32", [5], 0, 20)},
    "unknown type": {"w": entry("F99", [24], 0, 24)},
    "unknown to torch": {"w": entry("F4", [48], 0, 24)},
    "true": {"w": entry("F32", [True], 0, 4)},
    "none": {"w": None},
}  # fmt: skip


@pytest.mark.parametrize("kind", HEADERS)
def test_headers_that_lie(tmp_path: Path, kind: str) -> None:
    (tmp_path / "w.safetensors").write_bytes(safetensors(ONE, **HEADERS[kind]))
    message = refusal(tmp_path / "w.safetensors")
    assert "not a sound safetensors file" in message
    assert "download it again" in message


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "C64"])
def test_unusual_types_of_safetensors_are_named(tmp_path: Path, dtype: str) -> None:
    """What the library reads and no network here has."""
    num = 3 if dtype == "C64" else 24
    (tmp_path / "w.safetensors").write_bytes(safetensors(ONE, w=entry(dtype, [num], 0, 24)))
    assert "w is of type torch." in refusal(tmp_path / "w.safetensors")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_safetensors_that_hold_no_numbers(tmp_path: Path, bad: float) -> None:
    content = {**network(), "fc.bias": torch.tensor([0.0, 1.0, bad, 3.0, 4.0])}
    save_file(content, tmp_path / "w.safetensors")
    assert "in 1 tensors: fc.bias" in refusal(tmp_path / "w.safetensors")


def test_a_header_of_a_million_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no network's, and the library would be busy with it for a minute; and the twin."""
    names = {f"w{i}": torch.zeros(0) for i in range(100)}
    path = tmp_path / "w.safetensors"
    path.write_bytes(safetensors({**ONE, **names}))
    assert len(read(path, {}).state_dict) == 101
    monkeypatch.setattr(safetensors_files, "LARGEST_HEADER", 5000)
    assert "bytes; read are 5,000" in refusal(path)


def test_headers_that_are_no_json(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    for text in (b"{" + b'"a":' * 3, b'{"w":' + b"[" * 100_000, b'{"\xff": 1}', b'{"w":1,"w":2}'):
        path.write_bytes(struct.pack("<Q", len(text)) + text)
        assert "not a sound safetensors file" in refusal(path)
    path.write_bytes(struct.pack("<Q", 10_000) + b"{}")
    assert "invalid header length" in refusal(path)


def test_a_changed_header_is_refused_or_says_the_same(tmp_path: Path) -> None:
    """What a flip can do without being seen: rename something, or turn a type into one of the same
    size. Never memory that is not the file's, never a number that is not in it."""
    good = safetensors(network())
    length = 8 + int.from_bytes(good[:8], "little")
    rng = np.random.default_rng(0)
    path, refused = tmp_path / "w.safetensors", 0
    for _ in range(400):
        raw = bytearray(good)
        raw[rng.integers(0, length)] ^= 1 << rng.integers(0, 8)
        path.write_bytes(raw)
        try:
            found = read(path, {}).state_dict
        except WeightsError:
            refused += 1
            continue
        assert sum(t.numel() for t in found.values()) <= len(good)
    assert 150 < refused < 400

"""English texts of errors: each library still says so."""

from __future__ import annotations

import argparse
import io
import os
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

import models.torch_internals
from data.image_folder import pack
from trainer.cli import arguments
from trainer.monitoring.graph import Node
from trainer.system import error_texts


def text_of(function: Callable[[], Any]) -> str:
    try:
        function()
    except Exception as error:
        return str(error)
    return ""


def in_struct(typed: bool) -> Any:
    config = OmegaConf.structured(Node("", "", [], torch.Size())) if typed else {"a": 1}
    config = OmegaConf.create(config)
    OmegaConf.set_struct(config, True)
    return config.nothing


@pytest.mark.parametrize(("function", "words"), [
    (lambda: torch.empty(2**50), error_texts.NO_CPU_MEMORY),
    (lambda: torch.empty(2**50), models.torch_internals.NO_MEMORY),
    (lambda: torch.empty(2**62, 2**62), error_texts.BEYOND_MEMORY[1]),
    (lambda: torch.empty(2**70), error_texts.BEYOND_MEMORY[2]),
    (lambda: torch.ones(1).add_(torch.ones(1), alpha=1e300), error_texts.OVERFLOW),
    (lambda: in_struct(typed=False), error_texts.UNKNOWN_KEY[0]),
])  # fmt: skip
def test_what_errors_say(function: Callable[[], Any], words: str) -> None:
    assert words in text_of(function)


def test_what_torch_says_of_unsafe_files() -> None:
    refused, newer = io.BytesIO(), io.BytesIO(pickle.dumps({"a": bytearray(1)}, protocol=5))
    torch.save({"a": os.system}, refused)
    refused.seek(0)
    text = text_of(lambda: torch.load(refused, weights_only=True))
    assert text.startswith(models.torch_internals.ADVICE)
    system = f"{os.system.__module__}.system"
    assert models.torch_internals.refused_global(text) == system
    with pytest.warns(UserWarning, match="protocol 5"):
        text = text_of(lambda: torch.load(newer, weights_only=True))
    assert models.torch_internals.UNKNOWN_OPCODE in text


def test_what_python_says_of_threads() -> None:
    before = threading.stack_size(2**46)
    try:
        thread = threading.Thread(target=print)
        assert text_of(thread.start) == pack._NO_THREAD
    finally:
        threading.stack_size(before)


def test_what_argparse_has_and_says(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--name")
    parser.add_argument("--flag", action="store_true")
    assert arguments.takes_value(parser, ["--name"])
    assert arguments.takes_value(parser, ["--na"])
    assert not arguments.takes_value(parser, ["--flag"])
    arguments.refuse_empty(parser)
    parser.add_argument("file", type=Path)
    arguments.refuse_empty(parser)
    with pytest.raises(SystemExit):
        parser.parse_args([""])
    with pytest.raises(SystemExit):
        parser.parse_args(["x", "--nope"])
    assert error_texts.UNRECOGNIZED in capsys.readouterr().err

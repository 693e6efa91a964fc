"""No line of the program can run what stands in a file: its own source is read for such calls."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.commands import ROOT

FOLDERS = ("trainer", "models", "data", "configs", "benchmarks")

# Each runs code that it is given, whatever its arguments.
FORBIDDEN = {
    "eval", "exec", "__import__",
    "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput",
    "pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.load", "marshal.loads",
    "shelve.open", "dill.load", "dill.loads", "joblib.load",
    "yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load",
    "torch.jit.load", "torch.package.PackageImporter", "torch.hub.load",
    "runpy.run_path", "runpy.run_module",
}  # fmt: skip

# Safe with this argument, spelled out: torch's default can be turned off by the environment, and
# tarfile's is another before Python 3.14.
ONLY_WITH = {
    "torch.load": ("weights_only", True),
    "extractall": ("filter", "data"),
}

# Must not be given, or as False; NumPy's load needs the first, subprocess's functions the second.
NEVER = ("allow_pickle", "shell")

ALLOWED: set[tuple[str, str]] = set()


def unsafe_calls(source: str) -> Iterator[tuple[int, str]]:
    """Line and name of each unsafe call or base class, whatever it was imported as."""
    tree = ast.parse(source)
    names = dict(imported(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            bases = [full_name(base, names) for base in node.bases]
            yield from ((node.lineno, base) for base in bases if base in FORBIDDEN)
        if not isinstance(node, ast.Call):
            continue
        name = full_name(node.func, names)
        if name.startswith("safetensors."):  # a format without room for code
            continue
        given = {word.arg: ast.unparse(word.value) for word in node.keywords}
        if name in FORBIDDEN or any(given.get(word, "False") != "False" for word in NEVER):
            yield node.lineno, name
        for ending, (argument, value) in ONLY_WITH.items():
            if f".{name}".endswith(f".{ending}") and given.get(argument) != repr(value):
                yield node.lineno, name


def imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """What each imported name means: np -> numpy, loads -> pickle.loads."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield (
                    alias.asname or alias.name.partition(".")[0],
                    (alias.name if alias.asname else alias.name.partition(".")[0]),
                )
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def full_name(node: ast.expr, names: dict[str, str]) -> str:
    if isinstance(node, ast.Attribute):
        return f"{full_name(node.value, names)}.{node.attr}"
    return names.get(node.id, node.id) if isinstance(node, ast.Name) else ""


def files() -> list[Path]:
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    return [path for path in found if (ROOT / "data" / "raw") not in path.parents]


def test_no_call_in_the_tree_can_run_what_a_file_says() -> None:
    assert len(files()) > 50
    found = {
        (str(path.relative_to(ROOT)), name): line
        for path in files()
        for line, name in unsafe_calls(path.read_text("utf-8"))
    }
    assert {place: line for place, line in found.items() if place not in ALLOWED} == {}
    assert set(found) == ALLOWED


@pytest.mark.parametrize(
    "line",
    [
        "import torch; torch.load(f)",
        "import torch; torch.load(f, weights_only=False)",
        "import torch; torch.load(f, weights_only=flag)",
        "from torch import load as read; read(f)",
        "import pickle as p; p.loads(b)",
        "from pickle import load; load(f)",
        "import pickle\nclass U(pickle.Unpickler): pass",
        "import numpy; numpy.load(f, allow_pickle=True)",
        "import numpy; numpy.load(f, allow_pickle=flag)",
        "import yaml; yaml.load(text, Loader=yaml.Loader)",
        "archive.extractall(folder)",
        "archive.extractall(folder, filter='fully_trusted')",
        "eval(text)",
        "import os; os.system(words)",
        "import subprocess; subprocess.run(words, shell=True)",
        "import torch; torch.jit.load(f)",
    ],
)
def test_the_reader_finds(line: str) -> None:
    assert list(unsafe_calls(line))


@pytest.mark.parametrize(
    "line",
    [
        "import torch; torch.load(f, map_location='cpu', weights_only=True)",
        "import numpy as np; np.load(f, allow_pickle=False)",
        "import yaml; yaml.safe_load(text)",
        "archive.extractall(folder, filter='data')",
        "model.eval()",
        "import subprocess; subprocess.run([program])",
        "import json; json.load(f)",
        "from safetensors.torch import load; load(content)",
    ],
)
def test_the_reader_lets_pass(line: str) -> None:
    assert not list(unsafe_calls(line))

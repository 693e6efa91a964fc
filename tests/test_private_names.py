"""Private names of libraries stand in one file of each package, read from the source."""

from __future__ import annotations

import ast
import functools
import importlib
from collections.abc import Iterator

import pytest

from tests.helpers.commands import ROOT

PACKAGES = ("trainer", "models", "data")
# Where private names may stand.
HOMES = {
    "trainer/system/torch_internals.py", "models/torch_internals.py", "data/torch_internals.py",
    "trainer/config/hydra_internals.py",
    "trainer/monitoring/tensorboard.py",
    "trainer/cli/arguments.py",  # argparse's
}  # fmt: skip
PUBLIC = {"_replace", "_asdict", "_fields", "_make"}  # of namedtuples, by Python's documentation
# Documented to be set.
SWITCHES = {
    "sys.argv", "sys.path", "sys.stdout", "sys.stderr", "logging.raiseExceptions",
    "torch.backends.cudnn.benchmark", "Image.MAX_IMAGE_PIXELS", "tqdm.monitor_interval",
}  # fmt: skip


# --- Nobody else uses any: read from the source ---


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__") and name.strip("_") != ""


def libraries_of(tree: ast.AST) -> dict[str, str]:
    """Names that a file imports from elsewhere, with what they mean in full."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name if alias.asname else alias.name.partition(".")[0]
                found[alias.asname or top] = top
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                found[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return {n: full for n, full in found.items() if full.partition(".")[0] not in PACKAGES}


def own_names(tree: ast.AST) -> Iterator[str]:
    """Private names that a file defines itself: functions, methods, variables, attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store)
            and root_of(node) == "self"
        ):
            yield node.attr


def root_of(node: ast.AST) -> str:
    while isinstance(node, ast.Attribute | ast.Call | ast.Subscript):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def overridden(owner: ast.ClassDef, libraries: dict[str, str]) -> Iterator[str]:
    """Private names in a class that a base class of a library has, too."""
    here = {n.name for n in owner.body if isinstance(n, ast.FunctionDef)}
    here |= {name for name in own_names(owner) if name not in here}
    for base in owner.bases:
        full = libraries.get(root_of(base), "") + ast.unparse(base).removeprefix(root_of(base))
        if full.partition(".")[0] not in PACKAGES and full.find(".") > 0 and "[" not in full:
            module, _, name = full.rpartition(".")
            found = getattr(importlib.import_module(module), name)
            yield from (n for n in here if is_private(n) and hasattr(found, n))


def private_uses(tree: ast.AST, ours: set[str]) -> Iterator[tuple[int, str]]:
    """(line, what) of each private name of a library, and of each name of one that is replaced.

    Args:
        ours: private names that the package defines anywhere.
    """
    libraries = libraries_of(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [part for alias in node.names for part in alias.name.split(".")]
            found = [name for name in names if is_private(name)]
        elif isinstance(node, ast.ImportFrom):
            module = str(node.module)
            names = [*module.split("."), *(alias.name for alias in node.names)]
            is_ours = module.partition(".")[0] in PACKAGES
            found = [name for name in names if is_private(name) and not is_ours]
        elif isinstance(node, ast.ClassDef):
            found = list(overridden(node, libraries))
        elif isinstance(node, ast.Attribute):
            of_library = root_of(node) in libraries
            is_set = of_library and isinstance(node.ctx, ast.Store)
            replaced = is_set and ast.unparse(node) not in SWITCHES
            theirs = of_library or node.attr not in ours | PUBLIC
            found = [node.attr] if replaced or (is_private(node.attr) and theirs) else []
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "setattr"):
            named = node.args[1]
            text = named.value if isinstance(named, ast.Constant) else ""
            found = [text] if is_private(str(text)) and text not in ours else []
        else:
            continue
        yield from ((node.lineno, name) for name in found)


@functools.cache
def trees() -> dict[str, ast.Module]:
    return {
        str(file.relative_to(ROOT)): ast.parse(file.read_text())
        for package in PACKAGES
        for file in sorted((ROOT / package).rglob("*.py"))
    }


@functools.cache
def own_private_names() -> set[str]:
    """Less those of libraries that classes of ours have, too, for they override them."""
    return {name for tree in trees().values() for name in own_names(tree) if is_private(name)} - {
        name
        for tree in trees().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for name in overridden(node, libraries_of(tree))
    }


def test_private_names_stand_in_their_files() -> None:
    wrong = [
        f"{file}:{line} {name}"
        for file, tree in trees().items()
        if file not in HOMES
        for line, name in private_uses(tree, own_private_names())
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("file", sorted(HOMES))
def test_each_of_these_files_has_some(file: str) -> None:
    assert list(private_uses(trees()[file], own_private_names()))


@pytest.mark.parametrize("source", [
    "import torch._dynamo",
    "import torch\nfrom torch._functorch import config",
    "from torch.optim.optimizer import _global_optimizer_pre_hooks",
    "import torch\ntorch._standard_gamma(x)",
    "import torch as t\nt.nn._reduction",
    "from torch import nn\ndef f(model: nn.Module): return model._call_impl",
    "def f(parser): return parser._actions[0]",
    "def f(x): x.__dynamo_disable = x",
    "def f(x): return getattr(x, '_version')",
    "import torch\ntorch.compiler.is_compiling = lambda: True",
    "from hydra.core.config_store import ConfigStore\nConfigStore.__deepcopy__ = None",
    "from torch import nn\nclass A(nn.Module):\n    def _call_impl(self): ...",
    "from torch import nn\nclass A(nn.Module):\n    def f(self): return self._buffers",
    "from torch.utils.tensorboard import SummaryWriter as S\n"
    "class A(S):\n    def _get_file_writer(self): ...",
])  # fmt: skip
def test_the_reader_sees(source: str) -> None:
    assert list(private_uses(ast.parse(source), {"_mine"}))


@pytest.mark.parametrize("source", [
    "from __future__ import annotations",
    "import torch\ntorch.nn.Module.__name__",
    "from trainer.x import _mine\n_mine()",
    "from torch import nn\nclass A(nn.Module):\n    def _mine(self): return self._mine",
    "class A:\n    def f(self, other): return other._mine",
    "import sys\nsys.argv = []",
    "def f(row): return row._replace(a=1)",
    "def f(_): return _",
])  # fmt: skip
def test_the_reader_lets_pass(source: str) -> None:
    assert not list(private_uses(ast.parse(source), {"_mine"}))

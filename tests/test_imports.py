"""Who may import whom: the lines that keep the packages apart, read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGES = ("trainer", "models", "data")


def imported(file: Path) -> Iterator[str]:
    """Every module that a file imports, at any depth, by its full name."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            assert node.module
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {
    module_name(file): set(imported(file))
    for package in PACKAGES
    for file in sorted((ROOT / package).rglob("*.py"))
}


def users_of(*prefixes: str) -> set[str]:
    """The modules that import any of these packages or what is in them."""
    return {
        name
        for name, imports in MODULES.items()
        if any(i == p or i.startswith(p + ".") for i in imports for p in prefixes)
    }


def in_package(package: str) -> set[str]:
    return {name for name in MODULES if name == package or name.startswith(package + ".")}


def test_the_reader_sees_the_imports() -> None:
    """The twin of the tests below: they would pass on an empty list, too."""
    assert len(MODULES) > 30
    assert "trainer.loop" in users_of("torch")
    assert "trainer.build" in users_of("data")


def test_data_and_models_know_no_trainer_and_not_each_other() -> None:
    below = in_package("data") | in_package("models")
    assert not below & users_of("trainer", "hydra", "omegaconf")
    assert not in_package("data") & users_of("models")
    assert not in_package("models") & users_of("data")


def test_the_trainer_names_no_model() -> None:
    named = users_of("models") & in_package("trainer")
    weights = {"trainer.commands.import_weights", "trainer.weights"}
    assert named <= weights | {"trainer.parts", "trainer.numpy_losses"}
    for name in ("trainer.parts", "trainer.numpy_losses"):
        ours = {i for i in MODULES[name] if i in MODULES and i.startswith("models.")}
        assert {i for i in ours if not i.startswith("models.numpy_nn")} == set()


def test_only_the_front_knows_the_configuration() -> None:
    allowed = {
        "trainer.compose", "trainer.config", "trainer.targets", "trainer.build", "trainer.parts",
        "trainer.restore", "trainer.commands.train", "trainer.commands.import_weights",
    }  # fmt: skip
    assert users_of("hydra", "omegaconf") <= allowed


def test_only_build_and_restore_take_parts_of_data() -> None:
    users = users_of("data") & in_package("trainer")
    assert {name for name in users if not name.startswith("trainer.commands")} <= {
        "trainer.build", "trainer.parts", "trainer.restore", "trainer.snapshot",
    }  # fmt: skip


@pytest.mark.parametrize(
    "leaf", ["checkpoint", "metrics", "runtime", "schedules", "losses", "config", "guard"]
)
def test_leaves_import_nothing_of_ours_but_the_errors(leaf: str) -> None:
    ours = {name for name in MODULES[f"trainer.{leaf}"] if name.partition(".")[0] in PACKAGES}
    assert {name for name in ours if not name.startswith("trainer.errors")} == set()


def test_the_loop_knows_only_the_run() -> None:
    ours = {name for name in MODULES["trainer.loop"] if name in MODULES and "." in name}
    assert ours <= {
        "trainer.batches", "trainer.checkpoint", "trainer.guard", "trainer.losses",
        "trainer.metrics", "trainer.run",
    }  # fmt: skip


def test_torchvision_stands_only_where_it_must() -> None:
    users = users_of("torchvision") & in_package("models")
    assert all(n == "models.torchvision_zoo" or n.startswith("models.weights") for n in users)


def test_layers_by_hand_are_numpy_alone() -> None:
    users = users_of("torch") & in_package("models.numpy_nn")
    assert users <= {"models.numpy_nn.bridge"}


def test_no_circles() -> None:
    graph = {
        name: {i for i in imports if i in MODULES} - {name} for name, imports in MODULES.items()
    }
    packages = {name for name in graph if any(n.startswith(name + ".") for n in graph)}
    for name in graph:  # importing a package's member is no import of what its __init__ imports
        graph[name] -= packages
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path, name))
        if name not in done:
            for other in sorted(graph[name]):
                visit(other, (*path, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())


FORBIDDEN = ("pickle.load", "yaml.load(", "eval(", "extractall(", "allow_pickle=True")


def test_nothing_in_the_tree_can_run_code_out_of_a_file() -> None:
    sources = {f: f.read_text() for p in PACKAGES for f in (ROOT / p).rglob("*.py")}
    for file, text in sources.items():
        for call in FORBIDDEN:
            lines = [line for line in text.splitlines() if call in line.replace(".eval(", "")]
            assert not lines, f"{file}: {lines}"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert given.get("weights_only") == "True", file
    assert any("torch.load(" in text for text in sources.values())


def test_importing_does_nothing() -> None:
    """No statement at a module's top level calls anything that prints, seeds or probes."""
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.parse(file.read_text()).body:
                if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                    pytest.fail(f"{file}:{node.lineno} calls {ast.unparse(node.value.func)}")

"""Who may import whom: the lines that keep the packages apart, read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.commands import ROOT

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


def for_types_alone(file: Path) -> set[str]:
    """The modules that a file imports under `if TYPE_CHECKING`, and so never when it runs."""
    checked = (
        node for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )  # fmt: skip
    parts = (ast.walk(node) for node in checked)
    return {str(n.module) for part in parts for n in part if isinstance(n, ast.ImportFrom)}


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


# From top to bottom: whoever stands in a row may import what stands in rows below it, and what
# stands in its own folder; names of one row do not import each other.
LAYERS = [
    ["trainer.__main__"],
    ["trainer.cli"],
    ["trainer.sweeps"],
    ["trainer.inference", "trainer.job"],
    ["trainer.builders"],
    ["trainer.monitoring"],
    ["trainer.training"],
    ["trainer.checkpoints"],
    ["trainer.runs"],
    ["trainer.config"],
    ["trainer.system"],
    ["trainer.evaluation"],
    ["trainer.losses", "trainer.schedules"],
    ["trainer.errors"],
    ["trainer.text"],
    ["data.mnist", "data.cifar", "data.synthetic", "data.image_folder", "data.make_mnist_5k"],
    ["data.preparation", "data.idx"],
    ["data.splits", "data.loading", "data.inspection"],
    ["data.augment", "data.download", "data.images", "data.duplicates"],
    ["data.roots", "data.resizing"],
    ["data.memory", "data.seeds", "data.files", "data.locked_files"],
    ["data.types", "data.torch_internals"],
    ["data.digests"],
]


def layer_of(module: str) -> int:
    found = [
        number
        for number, row in enumerate(LAYERS)
        if any(module == place or module.startswith(f"{place}.") for place in row)
    ]
    assert len(found) == 1, f"{module} has no place in the table of layers"
    return found[0]


def place_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


def test_the_reader_sees_the_imports() -> None:
    """The twin of the tests below: they would pass on an empty list, too."""
    assert len(MODULES) > 100
    assert "trainer.training.loop" in users_of("torch")
    assert "trainer.builders.training_run" in users_of("data")


def test_every_folder_of_the_table_exists() -> None:
    for place in (place for row in LAYERS for place in row):
        assert any(name == place or name.startswith(f"{place}.") for name in MODULES), place


def test_nobody_imports_upward() -> None:
    wrong = [
        f"{name} imports {other}"
        for name, imports in MODULES.items()
        for other in sorted(imports & MODULES.keys())
        if name.partition(".")[0] in ("trainer", "data") and "." in name
        and other.partition(".")[0] in ("trainer", "data") and "." in other
        and place_of(name) != place_of(other) and layer_of(name) >= layer_of(other)
    ]  # fmt: skip
    assert not wrong, "\n".join(wrong)


def test_every_folder_says_what_it_is_for() -> None:
    for file in sorted((ROOT / "trainer").rglob("__init__.py")) + sorted(
        (ROOT / "data").rglob("__init__.py")
    ):
        said = ast.get_docstring(ast.parse(file.read_text())) or ""
        assert 20 <= len(said) <= 110, file
        assert "\n" not in said, file


def test_data_and_models_know_no_trainer_and_not_each_other() -> None:
    below = in_package("data") | in_package("models")
    assert not below & users_of("trainer", "hydra", "omegaconf")
    assert not in_package("data") & users_of("models")
    assert not in_package("models") & users_of("data")


def test_the_trainer_names_no_model() -> None:
    named = users_of("models") & in_package("trainer")
    weights = {"trainer.checkpoints.file", "trainer.builders.pretrained"}
    layers = {"trainer.builders.networks", "trainer.builders.numpy_losses"}
    assert named <= weights | layers
    for name in layers:
        ours = {i for i in MODULES[name] if i in MODULES and i.startswith("models.")}
        assert {i for i in ours if not i.startswith("models.numpy_nn")} == set()


def test_only_the_front_knows_the_configuration() -> None:
    users = users_of("hydra", "omegaconf")
    assert {name for name in users if place_of(name) != "trainer.config"} <= {
        "trainer.builders.datasets", "trainer.builders.networks", "trainer.builders.restore",
        "trainer.cli.asked", "trainer.cli.train",
        "trainer.inference.import_weights", "trainer.runs.folder",
    }  # fmt: skip


def test_only_those_who_need_them_take_parts_of_data() -> None:
    """But for the durable rename, which knows no dataset."""
    users = {
        place_of(name)
        for name in users_of("data") & in_package("trainer")
        if any(i.startswith("data.") and not i.startswith("data.files") for i in MODULES[name])
    }
    assert users <= {
        "trainer.cli", "trainer.sweeps", "trainer.inference", "trainer.builders",
        "trainer.training",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["schedules", "losses", "evaluation.metrics", "training.step"])
def test_leaves_import_nothing_of_ours_but_the_errors(name: str) -> None:
    ours = {i for i in MODULES[f"trainer.{name}"] if i.partition(".")[0] in PACKAGES}
    below = ("trainer.errors", "trainer.system.torch_internals")
    assert {i for i in ours if not i.startswith(below)} == set()


def test_the_loop_knows_only_the_run() -> None:
    ours = {i for i in MODULES["trainer.training.loop"] if i in MODULES and "." in i}
    assert {i for i in ours if place_of(i) != "trainer.training"} <= {
        "trainer.checkpoints", "trainer.checkpoints.file", "trainer.losses",
        "trainer.evaluation", "trainer.evaluation.metrics",
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
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            graph[module_name(file)] -= for_types_alone(file)
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


def test_importing_does_nothing() -> None:
    """No statement at a module's top level calls anything that prints, seeds or probes."""
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.parse(file.read_text()).body:
                if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                    pytest.fail(f"{file}:{node.lineno} calls {ast.unparse(node.value.func)}")

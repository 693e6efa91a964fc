"""Private names of libraries: used in one file of each package, and as they are relied on."""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import importlib
import io
import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.core.config_store import ConfigStore
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

import data.torch_internals
import models.torch_internals
from data.image_folder import pack
from tests.helpers.commands import ROOT
from trainer.cli import arguments
from trainer.config import hydra_internals
from trainer.config.knobs import CONFIGS
from trainer.monitoring.graph import Node
from trainer.monitoring.tensorboard import Events
from trainer.system import error_texts, torch_internals

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
    "torch.backends.cudnn.benchmark", "Image.MAX_IMAGE_PIXELS",
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
        if full.partition(".")[0] not in PACKAGES and "." in full and "[" not in full:
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


TREES = {
    str(file.relative_to(ROOT)): ast.parse(file.read_text())
    for package in PACKAGES
    for file in sorted((ROOT / package).rglob("*.py"))
}
# Less those of libraries that classes of ours have, too, for they override them.
OURS = {name for tree in TREES.values() for name in own_names(tree) if is_private(name)} - {
    name
    for tree in TREES.values()
    for node in ast.walk(tree)
    if isinstance(node, ast.ClassDef)
    for name in overridden(node, libraries_of(tree))
}


def test_private_names_stand_in_their_files() -> None:
    wrong = [
        f"{file}:{line} {name}"
        for file, tree in TREES.items()
        if file not in HOMES
        for line, name in private_uses(tree, OURS)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("file", sorted(HOMES))
def test_each_of_these_files_has_some(file: str) -> None:
    assert list(private_uses(TREES[file], OURS))


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


# --- torch: steps of optimizers ---


def test_the_kernel_of_the_check() -> None:
    for entry, raised in ((3.0, 0.0), (torch.inf, 1.0), (torch.nan, 1.0)):
        values, flag = [torch.tensor([2.0]), torch.tensor([entry])], torch.zeros(())
        torch_internals.unscale_and_flag(values, flag, torch.tensor(0.5))
        assert flag.item() == raised, "a NaN or infinity is not seen"
        assert values[0].item() == 1.0, "fp16's gradients keep their scale"


def test_the_kernel_of_the_scale() -> None:
    scale, good = torch.tensor(8.0), torch.tensor(0, dtype=torch.int32)
    for flag, wanted in ((1.0, 4.0), (0.0, 4.0), (0.0, 8.0)):
        torch_internals.update_scale(scale, good, torch.tensor(flag), 2.0, 0.5, 2)
        assert scale.item() == wanted, "fp16's scale is not halved and doubled"


@pytest.mark.parametrize("make", [
    lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, fused=True),
    lambda p: torch.optim.Adam(p, lr=0.1, fused=True),
    lambda p: torch.optim.AdamW(p, lr=0.1, fused=True),
    lambda p: torch.optim.Adagrad(p, lr=0.1, fused=True),
])  # fmt: skip
def test_fused_optimizers_look_at_the_flag(make: Callable[..., torch.optim.Optimizer]) -> None:
    weight = nn.Parameter(torch.ones(3))
    optimizer, flag = make([weight]), torch.ones(())
    torch_internals.gate(optimizer, flag)
    weight.grad = torch.full((3,), torch.nan)
    optimizer.step()
    assert torch.equal(weight, torch.ones(3)), "a NaN gets into the weights"
    weight.grad = torch.ones(3)
    optimizer.state.clear()
    flag.zero_()
    optimizer.step()
    assert (weight < 1).all()


def test_hooks_of_optimizers_are_seen() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    for register in (
        optimizer.register_step_pre_hook, optimizer.register_step_post_hook,
        register_optimizer_step_pre_hook, register_optimizer_step_post_hook,
    ):  # fmt: skip
        assert not torch_internals.has_hooks(optimizer)
        handle = register(lambda *_: None)
        assert torch_internals.has_hooks(optimizer), "a user's hook is left out of every step"
        handle.remove()


# --- torch: no compiler unless asked for, in a process of its own ---

START = """
import sys, torch
from trainer.system import torch_internals
if {marked}:
    torch_internals.leave_compiler_unimported()
{use}
print("torch._dynamo" in sys.modules)
"""
USES = {
    "a step": "torch.optim.Adam([torch.ones(1)]).zero_grad()",
    "counting": "with torch.no_grad(), torch_internals.counting_flops(): torch.ones(2, 2).mm("
    "torch.ones(2, 2))",
}
WATCHING = """
class Watch({base}):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {{}}))
with Watch():
    torch.ones(2) + 1
"""


def imports_compiler(use: str, marked: bool = True) -> bool:
    done = subprocess.run(
        [sys.executable, "-c", START.format(use=use, marked=marked)],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip() == "True"


@pytest.mark.parametrize("use", USES)
def test_marked_functions_import_no_compiler(use: str) -> None:
    assert not imports_compiler(USES[use]), "each start takes 1.2 s more"


@pytest.mark.parametrize("use", USES)
def test_unmarked_they_do(use: str) -> None:
    """The twin: where this fails, torch has mended it, and the marking can go."""
    whole = USES[use].replace("torch_internals.counting_flops()", COUNTER)
    assert imports_compiler(whole, marked=False)


COUNTER = "__import__('torch.utils.flop_counter').utils.flop_counter.FlopCounterMode(display=False)"


def test_a_dispatch_mode_imports_no_compiler() -> None:
    ours = WATCHING.format(base="torch_internals.DispatchMode")
    assert not imports_compiler(ours), "the graph for TensorBoard takes 1.2 s more"
    plain = "from torch.utils._python_dispatch import TorchDispatchMode as Mode\n"
    assert imports_compiler(plain + WATCHING.format(base="Mode"), marked=False)


# --- torch: compiling ---


def test_optimizers_ask_whether_they_are_compiled() -> None:
    weight = nn.Parameter(torch.ones(1))
    weight.grad = torch.ones(1)
    optimizer = torch.optim.Adam([weight], capturable=True, foreach=True)
    with pytest.raises(AssertionError, match="capturable"):
        optimizer.step()
    with torch_internals.being_compiled():
        assert torch.compiler.is_compiling()
        optimizer.step()
    assert not torch.compiler.is_compiling()


def test_a_graph_holds_gradients_and_changes_in_place() -> None:
    def step(weight: Tensor, images: Tensor) -> Tensor:
        fresh = weight.clone().requires_grad_()
        loss = (images @ fresh).square().sum()
        (gradient,) = torch.autograd.grad(loss, [fresh])
        with torch.no_grad():
            weight.copy_(fresh - 0.1 * gradient)
        return loss.detach()

    weight, images = torch.ones(2), torch.tensor([[1.0, 2.0]])
    with torch.enable_grad():
        graph = torch_internals.graph_of(step, [weight, images])
    assert torch.equal(weight, torch.ones(2)), "tracing changes the weights"
    with torch.no_grad():
        assert graph(weight, images).item() == 9.0
    assert torch.allclose(weight, torch.tensor([0.4, -0.2]))


@pytest.mark.slow
def test_inductor_compiles_a_graph_and_a_scalar_once() -> None:
    from torch._inductor.utils import run_and_get_code

    def code(scalar: Callable[[Tensor], Tensor]) -> str:
        def scaled(weights: Tensor, step: Tensor) -> Tensor:
            return weights * scalar(1 - 0.999**step)

        arguments = [torch.ones(1000), torch.tensor(3.0)]
        with torch.no_grad():
            graph = torch_internals.graph_of(scaled, arguments)
            compiled, sources = run_and_get_code(
                torch_internals.compile_graph, graph, arguments, {"size_asserts": False}
            )
            assert torch.allclose(compiled(*arguments), scaled(*arguments))
        return "\n".join(sources)

    stored, merged = code(torch_internals.once), code(lambda scalar: scalar)
    loops = [text.split("for(int64_t")[1] for text in (stored, merged)]
    assert "std::pow" not in loops[0], "a small net's compiled step takes a fifth more"
    assert "std::pow" in loops[1], "inductor does so by itself: `once` can go"


def test_the_call_of_a_compiled_model() -> None:
    net = nn.Linear(2, 2)
    seen: list[Any] = []
    net.register_forward_hook(lambda *_: seen.append("hook"))
    net.compile(backend="eager")
    images, wanted = torch.ones(1, 2), net.forward(torch.ones(1, 2))
    compiled, eager = torch_internals.compiled_call(net), torch_internals.eager_call(net)
    assert torch.equal(compiled(images), wanted)
    assert torch.equal(eager(images), wanted)
    assert seen == ["hook", "hook"]
    torch_internals.replace_call(net, lambda images: "ours")
    assert net(images) == "ours", "compile=model compiles batches of all sizes anew"
    assert torch.equal(copy.deepcopy(net).forward(images), wanted)
    assert set(net.state_dict()) == {"weight", "bias"}


def test_the_class_of_errors_of_the_compiler() -> None:
    def refuse(*_: Any) -> Any:
        raise RuntimeError("no")

    compiled = torch.compile(lambda x: x + 1, backend=refuse)
    with pytest.raises(torch_internals.compiler_error()):
        compiled(torch.ones(1))


def test_the_backward_pass_is_compiled_with_the_forward_pass() -> None:
    from torch._dynamo.backends.common import aot_autograd

    def compiled_by(context: Any) -> list[str]:
        torch.compiler.reset()
        told: list[str] = []

        def compiler(name: str) -> Callable[..., Any]:
            return lambda graph, _: told.append(name) or graph.forward  # type: ignore[func-returns-value]

        backend = aot_autograd(fw_compiler=compiler("forward"), bw_compiler=compiler("backward"))
        weight = torch.ones(2, requires_grad=True)
        with context:
            torch.compile(lambda x: x.sin().sum(), backend=backend)(weight)
        return told

    assert compiled_by(torch_internals.with_backward()) == ["forward", "backward"]
    assert compiled_by(contextlib.nullcontext()) == ["forward"], "`with_backward` can go"


# --- torch: the profiler ---

TRACE = """
import pathlib, sys, torch
from trainer.system import torch_internals
profiler = torch_internals.memory_profiler(torch.device("cpu"))
profiler.__enter__()
with torch.autograd.profiler.record_function("forward"):
    kept = torch.ones(2**20)
profiler.__exit__(None, None, None)
profiler.export_chrome_trace(sys.argv[1])
assert "torch._dynamo" not in sys.modules, "profile=true starts seconds later"
"""


def test_the_events_of_a_trace(tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    done = subprocess.run(
        [sys.executable, "-c", TRACE, str(file)], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    events = json.loads(file.read_text())["traceEvents"]
    memory = torch_internals.memory_events(events)
    assert {device for _, device, _ in memory} == {0}
    taken = [(when, amount) for when, _, amount in memory if amount >= 4 * 2**20]
    assert taken, "profile=true tells no memory"
    ((begin, end, name),) = torch_internals.range_events(events)
    assert name == "forward"
    assert begin <= taken[0][0] <= end


# --- torch, below the trainer ---


def test_the_version_of_a_tensor_counts_its_changes() -> None:
    weight = nn.Parameter(torch.ones(2))
    before = models.torch_internals.version_of(weight)
    weight.detach().mul_(2)
    assert models.torch_internals.version_of(weight) > before, "layers=numpy uses old weights"
    with torch.inference_mode():
        made_there = torch.ones(1)
    with pytest.raises(RuntimeError):
        models.torch_internals.version_of(made_there)


def test_gamma_of_a_generator() -> None:
    def drawn() -> Tensor:
        shape = torch.full((20_000,), 3.0, dtype=torch.float64)
        return data.torch_internals.standard_gamma(shape, torch.Generator().manual_seed(1))

    before = torch.get_rng_state()
    first = drawn()
    assert torch.equal(torch.get_rng_state(), before), "mixing changes the network's dropout"
    assert torch.equal(first, drawn())
    assert first.mean().item() == pytest.approx(3, abs=0.05)
    assert first.var().item() == pytest.approx(3, abs=0.15)


# --- English texts of errors ---


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
    assert error_texts.refused_global(RuntimeError(text)) == system
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


# --- Hydra ---


def test_hydra_composes_apart_from_a_run() -> None:
    search_path = hydra_internals.create_config_search_path(str(CONFIGS))
    loader = hydra_internals.ConfigLoaderImpl(search_path)
    config = loader.load_configuration("config", ["seed=7", "model=mlp"], RunMode.RUN)
    assert config.seed == 7
    assert "run" in config.hydra
    sweep = ["seed=7,8"]
    assert "sweep" in loader.load_configuration("config", sweep, RunMode.MULTIRUN).hydra
    with pytest.raises(ConfigCompositionException):
        loader.load_configuration("config", sweep, RunMode.RUN)
    assert "model" in loader.list_groups("")
    assert "mlp" in loader.get_group_options("model")


def test_hydras_own_flags() -> None:
    args = hydra_internals.get_args_parser().parse_intermixed_args(["--cfg", "job", "a=1", "-m"])
    assert (args.cfg, args.multirun, args.overrides) == ("job", True, ["a=1"])
    assert args.experimental_rerun is None


def test_the_store_is_not_copied() -> None:
    store = ConfigStore.instance()
    assert copy.deepcopy(store) is not store
    hydra_internals.share_config_store()
    try:
        assert copy.deepcopy(store) is store, "--help takes half a second more"
    finally:
        del ConfigStore.__deepcopy__


RAISING = """
import sys
from trainer.config import hydra_internals
import hydra
if {ours}:
    hydra_internals.raise_errors()
sys.argv = ["x", "hydra.run.dir=" + sys.argv[1], "hydra.output_subdir=null"]
@hydra.main(version_base="1.3", config_path=None)
def task(config):
    raise KeyError("ours")
try:
    task()
except KeyError:
    sys.exit(77)
"""


@pytest.mark.parametrize(("ours", "code"), [(True, 77), (False, 1)])
def test_hydra_raises_what_a_run_raises(ours: bool, code: int, tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "HYDRA_FULL_ERROR"}
    done = subprocess.run(
        [sys.executable, "-c", RAISING.format(ours=ours), str(tmp_path)],
        cwd=tmp_path, capture_output=True, text=True,
        env={**environment, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == code, done.stderr


# --- TensorBoard ---


def test_a_resumed_runs_curve_is_one(tmp_path: Path) -> None:
    """Steps 1 to 4, and again from 3 on with other values."""
    names = []
    for first, value in ((0, 1.0), (2, 2.0)):
        writer = Events(tmp_path, first)
        names.append(writer.file_writer.event_writer.path.name)
        for step in range(first + 1, 5):
            writer.add_scalar("loss", value, step)
        writer.close()
    assert names == sorted(names), "TensorBoard reads the later file first"
    events = EventAccumulator(str(tmp_path)).Reload()
    found = [(event.step, event.value) for event in events.Scalars("loss")]
    assert found == [(1, 1.0), (2, 1.0), (3, 2.0), (4, 2.0)], "curves double after a resume"


def test_hparams_and_the_graph_are_in_the_runs_own_file(tmp_path: Path) -> None:
    before = threading.active_count()
    writer = Events(tmp_path, 0)
    writer.add_hparams_row({"lr": 0.1, "seed": 1}, {"accuracy/test": 0.9}, ("lr",))
    writer.add_nodes([Node("input", "input", [], torch.Size((1, 2)))])
    assert threading.active_count() == before, "events go through a thread, which hides errors"
    writer.close()
    assert [file.is_file() for file in tmp_path.iterdir()] == [True]
    events = EventAccumulator(str(tmp_path)).Reload()
    assert {"_hparams_/experiment", "_hparams_/session_start_info"} <= set(events.summary_metadata)
    (node,) = events.Graph().node
    shape = node.attr["_output_shapes"].list.shape[0]
    assert [dim.size for dim in shape.dim] == [1, 2]

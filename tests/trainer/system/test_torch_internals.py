"""Private names of torch: each is there and does what is relied on."""

from __future__ import annotations

import contextlib
import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

import data.torch_internals
import models.torch_internals
from tests.helpers.commands import ROOT
from trainer.system import torch_internals

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


@pytest.mark.slow
@pytest.mark.parametrize("use", USES)
def test_marked_functions_import_no_compiler(use: str) -> None:
    assert not imports_compiler(USES[use]), "each start takes 1.2 s more"


@pytest.mark.slow
@pytest.mark.parametrize("use", USES)
def test_unmarked_they_do(use: str) -> None:
    """The twin: where this fails, torch has mended it, and the marking can go."""
    assert imports_compiler(USES[use], marked=False)


@pytest.mark.slow
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


@pytest.mark.slow
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

"""A compiled step trains as the eager one does: the same losses, the same safety, the same bits
again. Compiling takes many seconds, so most of this is slow."""

from __future__ import annotations

import copy
import functools
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainer import compiled, runtime
from trainer.agreement import Trial, disagreement
from trainer.checkpoint import weights_sha256
from trainer.compiled import CompiledStep, check, compile_model
from trainer.errors import TrainingError, UserError
from trainer.guard import Guard
from trainer.loop import update
from trainer.losses import CrossEntropy
from trainer.step_graph import keeps_state

CPU = torch.device("cpu")
BATCH, CLASSES = 16, 4

OPTIMIZERS: list[tuple[type[torch.optim.Optimizer], dict[str, Any]]] = [
    (torch.optim.SGD, {"lr": 0.1, "fused": True}),
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-2, "fused": True}),
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "fused": True}),
    (torch.optim.Adam, {"lr": 0.01, "weight_decay": 1e-2, "fused": True}),
    (torch.optim.AdamW, {"lr": 0.01, "weight_decay": 1e-2, "fused": True}),
    (torch.optim.Adagrad, {"lr": 0.05, "lr_decay": 1e-2, "fused": True}),
    (torch.optim.RMSprop, {"lr": 0.01, "momentum": 0.5}),
    (torch.optim.Adadelta, {"lr": 1.0}),
]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    runtime.leave_compiler_unimported()  # as every run does before it builds anything
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Perceptron(nn.Module):
    """Pictures of 2 x 3 x 3. A batch of zeros has a finite loss and a gradient that is NaN: of
    sqrt(|w| |x|) at x = 0."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(18, 8), nn.ReLU(), nn.Linear(8, CLASSES))
        self.trap = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        logits: Tensor = self.net(x)
        return logits * (1 + (self.trap * x).abs().sum().sqrt() / 100)


class Convolutions(nn.Module):
    """Pictures of 2 x 6 x 6, with all that keeps numbers or draws them, and a second head."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(2, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout2d(0.3)
        )
        self.drop = nn.Dropout(0.5)
        self.head, self.aux = nn.Linear(8 * 16, CLASSES), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Any:
        x = self.features(x)
        logits = self.head(self.drop(x.flatten(1)))
        return (logits, self.aux(x.mean((2, 3)))) if self.training else logits


def parts(
    net: type[nn.Module] = Perceptron,
    optimizer: type[torch.optim.Optimizer] = torch.optim.SGD,
    options: dict[str, Any] | None = None,
    clip_norm: float = 0.0,
    precision: str = "fp32",
) -> tuple[nn.Module, nn.Module, Guard, Any]:
    """The first four arguments of `loop.update`, always the same ones."""
    torch.manual_seed(0)
    model = net().to(runtime.float_dtype(precision)).to(memory_format=torch.channels_last)
    trained = [p for p in model.parameters() if p.requires_grad]
    made = optimizer(trained, **(options or {"lr": 0.02, "momentum": 0.9, "fused": True}))
    return model, CrossEntropy(), Guard(made, trained, clip_norm), runtime.autocast(precision, CPU)


def batch(step: int, size: int = BATCH, side: int = 3) -> tuple[Tensor, Tensor]:
    """Pictures whose class can be learnt, in channels_last."""
    generator = torch.Generator().manual_seed(step)
    targets = torch.randint(CLASSES, (size,), generator=generator)
    images = torch.randn(size, 2, side, side, generator=generator)
    images[:, 0] += targets.view(-1, 1, 1) - 1.5
    return images.to(memory_format=torch.channels_last), targets


def seed(step: int) -> None:
    runtime.seed_generators(1000 + step, CPU)


def everything(model: nn.Module, guard: Guard) -> list[Tensor]:
    """Clones of all that a step writes."""
    state = [t for s in guard.optimizer.state.values() for t in s.values()]
    kept = [*model.state_dict().values(), *(t for t in state if isinstance(t, Tensor))]
    return [t.detach().clone() for t in kept]


def assert_equal(first: list[Tensor], second: list[Tensor]) -> None:
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)


def assert_trains_alike(
    ours: tuple[Any, ...], theirs: tuple[Any, ...], steps: int, tolerance: float, side: int = 3
) -> CompiledStep:
    """A schedule moves the learning rate; each seventh batch is a short one."""
    step, eager = CompiledStep(*ours, batch_size=BATCH), functools.partial(update, *theirs)
    rates = [ours[2].optimizer.param_groups[0]["lr"] * (1 - i / (2 * steps)) for i in range(steps)]
    losses = []
    for i, lr in enumerate(rates):
        images, targets = batch(i, size=5 if i % 7 == 6 else BATCH, side=side)
        images = images.to(next(ours[0].parameters()).dtype)
        for guard in (ours[2], theirs[2]):
            guard.optimizer.param_groups[0]["lr"] = lr
        seed(i)
        loss, logits = step(images, targets)
        seed(i)
        expected_loss, expected_logits = eager(images, targets)
        losses.append(expected_loss.item())
        torch.testing.assert_close(loss, expected_loss.detach(), rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(
            logits, expected_logits.detach(), rtol=10 * tolerance, atol=10 * tolerance
        )
    assert sum(losses[-5:]) < sum(losses[:5]), "the twin: there is something to learn"
    assert ours[2].bad_steps() == 0
    assert len(step.graphs) == 1
    return step


# Pure logic


@pytest.mark.parametrize(
    ("mode", "device", "precision", "named"),
    [
        ("model", "mps", "fp32", ["compile=model", "mps", "compile=none"]),
        ("step", "cpu", "fp16", ["compile=step", "precision=fp16", "bf16", "compile=model"]),
    ],
)
def test_what_cannot_be_compiled_is_refused(
    mode: str, device: str, precision: str, named: list[str]
) -> None:
    with pytest.raises(UserError) as error:
        check(mode, torch.device(device), precision)
    assert all(word in str(error.value) for word in named)
    check("none", torch.device(device), precision)
    check(mode, CPU, "bf16")


def test_without_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check("step", CPU, "fp32")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    for mode in ("model", "step"):
        with pytest.raises(UserError, match=rf"compile={mode}: needs a C\+\+ compiler.*CXX"):
            check(mode, CPU, "fp32")
    check("none", CPU, "fp32")
    own = tmp_path / "my-compiler"
    own.touch(mode=0o755)
    monkeypatch.setenv("CXX", str(own))
    check("step", CPU, "fp32")


@pytest.mark.parametrize(("optimizer", "options"), OPTIMIZERS)
def test_which_optimizers_keep_a_state(
    optimizer: type[torch.optim.Optimizer], options: dict[str, Any]
) -> None:
    model, _, guard, _ = parts(optimizer=optimizer, options=options)
    before = everything(model, guard)
    stateless = optimizer is torch.optim.SGD and "momentum" not in options
    assert keeps_state(guard.optimizer) is not stateless
    assert_equal(before, everything(model, guard))


def trial(scale: float = 1.0, noise: float = 0.0, **changed: Any) -> Trial:
    """An update of which `bias` has no gradient but rounding, so that it may go either way."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(5, 4, generator=generator)
    changes = {"weight": scale * 0.1 * weight, "bias": torch.full((4,), 0.1 + noise),
               "running_mean": torch.full((4,), 0.2)}  # fmt: skip
    gradients = {"weight": weight, "bias": torch.full((4,), 1e-9)}
    return Trial([1.5, 1.4], False, changes | changed, gradients)


def test_what_counts_as_agreement() -> None:
    def differ(other: Trial, dtype: torch.dtype = torch.float32) -> str:
        return disagreement(trial(), other, dtype)

    assert differ(trial()) == ""
    assert differ(trial(noise=-0.2)) == ""
    assert differ(trial(scale=1.001)) == ""
    assert differ(trial(scale=1.001), torch.float64) == "what becomes of weight"
    assert differ(trial(scale=1.5)) == "what becomes of weight"
    assert differ(trial(scale=-1.0)) == "what becomes of weight"
    assert differ(trial(scale=float("nan"))) == "what becomes of weight"
    assert differ(trial(running_mean=torch.zeros(4))) == "what becomes of running_mean"
    assert "a loss" in disagreement(
        trial(), Trial([1.5, 1.6], False, trial().changes, {}), torch.float32
    )
    bad = Trial([float("nan")] * 2, True, trial().changes, {})
    assert disagreement(bad, bad, torch.float32) == ""
    assert differ(bad) == "the check for NaN"


def test_the_first_step_and_short_batches_are_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "StepGraph", None)
    ours, theirs = parts(), parts()
    step, eager = CompiledStep(*ours, batch_size=BATCH), functools.partial(update, *theirs)
    for i, size in enumerate((BATCH, 5, 6)):
        assert torch.equal(step(*batch(i, size))[0], eager(*batch(i, size))[0])
    assert_equal(everything(*ours[::2]), everything(*theirs[::2]))
    assert all(p.grad is None for p in ours[0].parameters())


class Wrong:
    """In place of a graph: the eager step, but with a learning rate that it had when made."""

    def __init__(self, model: nn.Module, loss: nn.Module, guard: Guard, *rest: Any) -> None:
        self.guard, self.update = guard, functools.partial(update, model, loss, guard, rest[0])
        self.named = dict(model.named_parameters())
        state = [t for s in guard.optimizer.state.values() for t in s.values()]
        self.tensors = [t.detach() for t in (*self.named.values(), *state)]
        self.lr = guard.optimizer.param_groups[0]["lr"]

    def __call__(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        self.guard.optimizer.param_groups[0]["lr"] = self.lr
        return self.update(images, targets)


def test_a_graph_that_computes_something_else_ends_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compiled, "StepGraph", Wrong)
    ours = parts()
    step = CompiledStep(*ours, batch_size=BATCH)
    step(*batch(0))
    before = everything(*ours[::2])
    with pytest.raises(TrainingError, match=r"differ in(.|\n)*compile=none"):
        step(*batch(1))
    assert_equal(before, everything(*ours[::2]))
    assert ours[2].optimizer.param_groups[0]["lr"] == 0.02
    monkeypatch.setattr(Wrong, "__call__", lambda self, *batch: self.update(*batch))  # the twin
    step(*batch(1))


def test_an_error_of_the_compiler_is_one_message(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: Any) -> None:
        raise RuntimeError("\nno lowering for op 42\nand much more")

    monkeypatch.setattr(compiled, "StepGraph", fail)
    step = CompiledStep(*parts(), batch_size=BATCH)
    step(*batch(0))
    with pytest.raises(TrainingError) as error:
        step(*batch(1))
    assert "compile=step" in str(error.value)
    assert "no lowering for op 42\ncompile=none" in str(error.value)
    assert isinstance(error.value.__cause__, RuntimeError)


def test_a_compiled_net_takes_whole_batches(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trainer")
    model, seen = Perceptron(), []

    def fake(self: nn.Module, dynamic: bool, **options: Any) -> None:
        assert not dynamic
        self._compiled_call_impl = lambda images: seen.append(len(images)) or self.forward(images)

    monkeypatch.setattr(nn.Module, "compile", fake)
    compile_model(model, train_size=BATCH, eval_size=32)
    for size in (BATCH, 5, BATCH, 32):
        assert torch.equal(model(batch(0, size)[0]), model.forward(batch(0, size)[0]))
    assert seen == [BATCH, BATCH]
    model.eval()
    for size in (32, BATCH, 32):
        model(batch(0, size)[0])
    assert seen == [BATCH, BATCH, 32, 32]
    assert len([m for m in caplog.messages if "compile=model (" in m]) == 2
    assert copy.deepcopy(model)(batch(0)[0]).shape == (BATCH, CLASSES)


# With the compiler


@pytest.mark.slow
@pytest.mark.parametrize("clip_norm", [0.0, 0.5])
@pytest.mark.parametrize(("optimizer", "options"), OPTIMIZERS)
def test_fifty_steps_as_eager(
    optimizer: type[torch.optim.Optimizer], options: dict[str, Any], clip_norm: float
) -> None:
    """In float64: in float32 rounding alone takes two trainings apart in so many steps."""
    ours, theirs = (
        parts(optimizer=optimizer, options=options, clip_norm=clip_norm, precision="fp64")
        for _ in range(2)
    )
    assert_trains_alike(ours, theirs, 50, 1e-8)
    torch.testing.assert_close(
        everything(*ours[::2]), everything(*theirs[::2]), rtol=1e-6, atol=1e-8
    )


@pytest.mark.slow
def test_batch_norm_dropout_heads_and_layout() -> None:
    """Dropout draws the same masks as in eager; statistics of batch norm are counted on."""
    ours, theirs = (parts(Convolutions, precision="fp64") for _ in range(2))
    assert_trains_alike(ours, theirs, 50, 1e-8, side=6)
    for name, value in ours[0].state_dict().items():
        torch.testing.assert_close(value, theirs[0].state_dict()[name], rtol=1e-6, atol=1e-8)
    assert ours[0].features[1].num_batches_tracked == 50
    assert ours[0].features[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert ours[0].state_dict().keys() == Convolutions().state_dict().keys()


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", 5e-2)])
def test_other_precisions(precision: str, tolerance: float) -> None:
    options = {"lr": 0.01, "fused": True}
    ours, theirs = (
        parts(Convolutions, torch.optim.AdamW, options, precision=precision) for _ in range(2)
    )
    assert_trains_alike(ours, theirs, 15, tolerance, side=6)


@pytest.mark.slow
def test_frozen_parameters_stay() -> None:
    def frozen() -> tuple[Any, ...]:
        class Frozen(Convolutions):
            def __init__(self) -> None:
                super().__init__()
                self.features.requires_grad_(False)
                self.aux.bias.requires_grad_(False)

        return parts(Frozen, precision="fp64")

    ours, theirs = frozen(), frozen()
    before = copy.deepcopy(ours[0].state_dict())
    assert_trains_alike(ours, theirs, 20, 1e-8, side=6)
    after = ours[0].state_dict()
    for name in ("features.0.weight", "features.1.bias", "aux.bias"):
        assert torch.equal(before[name], after[name])
    for name in ("head.weight", "aux.weight", "features.1.running_mean"):
        assert not torch.equal(before[name], after[name])


@pytest.mark.slow
@pytest.mark.parametrize("poison", ["loss", "gradient"])
@pytest.mark.parametrize(("optimizer", "options"), [OPTIMIZERS[2], OPTIMIZERS[3], OPTIMIZERS[6]])
def test_a_bad_step_and_all_after_it_change_nothing(
    optimizer: type[torch.optim.Optimizer], options: dict[str, Any], poison: str
) -> None:
    ours = parts(optimizer=optimizer, options=options, clip_norm=1.0)
    step, guard = CompiledStep(*ours, batch_size=BATCH), ours[2]
    for i in range(3):
        step(*batch(i))
    good = everything(*ours[::2])
    images, targets = batch(3)
    images = images * (torch.nan if poison == "loss" else 0.0)
    loss, _ = step(images, targets)
    assert loss.isfinite() == (poison == "gradient")
    assert guard.bad_steps() == 1
    step(*batch(4))  # compiled
    step(*batch(5, size=5))  # eager
    assert_equal(good, everything(*ours[::2]))
    assert guard.bad_steps() == 3
    guard.found_inf.zero_()  # the twin: it was the flag that held them
    step(*batch(4))
    assert not any(map(torch.equal, good, everything(*ours[::2])))


@pytest.mark.slow
def test_each_form_of_targets_has_a_graph() -> None:
    """Probabilities, as mixed pictures have them; and a state loaded into the same objects."""
    ours, theirs = parts(), parts()
    step, eager = CompiledStep(*ours, batch_size=BATCH), functools.partial(update, *theirs)
    for i in range(6):
        images, targets = batch(i)
        if i % 2:
            targets = 0.9 * nn.functional.one_hot(targets, CLASSES) + 0.025
        torch.testing.assert_close(step(images, targets)[0], eager(images, targets)[0].detach())
    assert len(step.graphs) == 2
    saved = copy.deepcopy((ours[0].state_dict(), ours[2].optimizer.state_dict()))
    losses = [step(*batch(i))[0] for i in range(6, 9)]
    ours[0].load_state_dict(saved[0])
    ours[2].optimizer.load_state_dict(saved[1])
    assert_equal(losses, [step(*batch(i))[0] for i in range(6, 9)])


RESUME = """
import sys
sys.path.insert(0, sys.argv[1])
import test_compiled
print("sha256", test_compiled.train_from(*sys.argv[2:]))
"""


def train_from(first: int | str, last: int | str, read: str = "", write: str = "") -> str:
    """Steps first..last-1 with new objects, from a state in a file and into one."""
    torch.set_num_threads(1)
    runtime.leave_compiler_unimported()
    model, loss, guard, autocast = parts(
        Convolutions, torch.optim.Adam, {"lr": 0.01, "fused": True}, clip_norm=1.0
    )
    step = CompiledStep(model, loss, guard, autocast, BATCH)
    if read:
        state = torch.load(read)
        model.load_state_dict(state["model"])
        guard.optimizer.load_state_dict(state["optimizer"])
    for i in range(int(first), int(last)):
        guard.optimizer.param_groups[0]["lr"] = 0.01 / (1 + i)
        seed(i)
        step(*batch(i, size=7 if i == 5 else BATCH, side=6))
    assert len(step.graphs) == (int(last) > 1)
    if write:
        torch.save({"model": model.state_dict(), "optimizer": guard.optimizer.state_dict()}, write)
    return weights_sha256(model.state_dict())


@pytest.mark.slow
@pytest.mark.parametrize("cut", [1, 4, 5])
def test_a_resumed_training_ends_in_the_same_bits(cut: int, tmp_path: Path) -> None:
    """Cut after the eager first step, in the middle, and before a short batch."""
    whole = train_from(0, 9)
    train_from(0, cut, write=str(tmp_path / "state"))
    done = subprocess.run(
        [sys.executable, "-c", RESUME, str(Path(__file__).parent), str(cut), "9",
         str(tmp_path / "state")],
        cwd=Path(__file__).parent.parent, capture_output=True, text=True,
    )  # fmt: skip
    assert f"sha256 {whole}" in done.stdout, done.stderr


@pytest.mark.slow
def test_a_compiled_net_trains_and_evaluates_as_eager() -> None:
    """With the same masks of dropout, too."""
    ours, theirs = parts(Convolutions), parts(Convolutions)
    names = list(ours[0].state_dict())
    compile_model(ours[0], train_size=BATCH, eval_size=32)
    for i in range(20):
        images, targets = batch(i, size=5 if i % 7 == 6 else BATCH, side=6)
        losses = []
        for own in (ours, theirs):
            seed(i)
            losses.append(update(*own, images, targets)[0].detach())
        torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-5)
    for size in (32, 9):
        with torch.inference_mode():
            outputs = [own[0].eval()(batch(0, size, side=6)[0]) for own in (ours, theirs)]
        torch.testing.assert_close(*outputs, rtol=1e-3, atol=1e-4)
    assert list(ours[0].state_dict()) == names


@pytest.mark.slow
def test_the_backward_pass_is_compiled_at_the_first_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that it counts as compiling, and that an error of it is one message as well."""
    from torch._functorch import config as functorch_config
    from torch._inductor import compile_fx
    from torch._inductor import config as inductor_config

    compile_graph, are_backward = compile_fx.fx_codegen_and_compile, []

    def spy(*args: Any, is_backward: bool = False, **options: Any) -> Any:
        are_backward.append(is_backward)
        if is_backward and is_broken:
            raise RuntimeError("no lowering for op 42")
        return compile_graph(*args, is_backward=is_backward, **options)

    monkeypatch.setattr(compile_fx, "fx_codegen_and_compile", spy)
    monkeypatch.setattr(functorch_config, "enable_autograd_cache", False)
    monkeypatch.setattr(inductor_config, "fx_graph_cache", False)
    for is_broken in (True, False):
        ours, told = parts(), None
        compile_model(ours[0], train_size=BATCH, eval_size=32)
        try:
            ours[0](batch(0)[0])
        except TrainingError as error:
            told = str(error)
        assert are_backward == [False, True]
        are_backward.clear()
        assert (told is not None) == is_broken
        if told is not None:
            assert "compile=model (training)" in told
            assert "no lowering for op 42\ncompile=none" in told
    update(*ours, *batch(0))
    assert not are_backward
    assert not functorch_config.force_non_lazy_backward_lowering

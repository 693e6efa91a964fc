"""A compiled step trains as the eager one does: the same losses, the same safety, the same bits
again. Compiling takes many seconds, so all of it is slow."""

from __future__ import annotations

import copy
import functools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.helpers.commands import ROOT, train
from tests.helpers.compiled_parts import (
    BATCH,
    CLASSES,
    OPTIMIZERS,
    Convolutions,
    assert_equal,
    assert_trains_alike,
    batch,
    everything,
    parts,
    seed,
)
from trainer.checkpoints import weights_sha256
from trainer.errors import TrainingError
from trainer.system.torch_internals import leave_compiler_unimported
from trainer.training.compiling.compiled import CompiledStep, compile_model
from trainer.training.loop import update


@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimizer", "options", "clip_norm"),
    [*((*one, 0.5) for one in OPTIMIZERS), *((*one, 0.0) for one in OPTIMIZERS[:4:3])],
)
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
@pytest.mark.parametrize(
    ("optimizer", "options", "poison"),
    [(*OPTIMIZERS[2], "loss"), (*OPTIMIZERS[3], "loss"), (*OPTIMIZERS[3], "gradient"),
     (*OPTIMIZERS[6], "gradient")],
)  # fmt: skip
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
    assert guard.num_skipped_steps() == 1
    step(*batch(4))  # compiled
    step(*batch(5, size=5))  # eager
    assert_equal(good, everything(*ours[::2]))
    assert guard.num_skipped_steps() == 3
    guard.found_inf.zero_()  # the twin: it was the flag that held them
    step(*batch(4))
    assert not any(map(torch.equal, good, everything(*ours[::2])))


@pytest.mark.slow
def test_each_form_of_targets_has_a_graph() -> None:
    """Probabilities, as mixed images have them; and a state loaded into the same objects."""
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
from tests.trainer.training.compiling import test_compiled
print("sha256", test_compiled.train_from(*sys.argv[1:]))
"""


def train_from(first: int | str, last: int | str, read: str = "", write: str = "") -> str:
    """Steps first..last-1 with new objects, from a state in a file and into one."""
    torch.set_num_threads(1)
    leave_compiler_unimported()
    model, loss, guard, autocast = parts(
        Convolutions, torch.optim.Adam, {"lr": 0.01, "fused": True}, clip_norm=1.0
    )
    step = CompiledStep(model, loss, guard, autocast, BATCH)
    if read:
        state = torch.load(read, weights_only=True)
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


@functools.cache
def whole_training() -> str:
    return train_from(0, 9)


@pytest.mark.slow
@pytest.mark.parametrize("cut", [1, 4, 5])
def test_a_resumed_training_ends_in_the_same_bits(cut: int, tmp_path: Path) -> None:
    """Cut after the eager first step, in the middle, and before a short batch."""
    whole = whole_training()
    train_from(0, cut, write=str(tmp_path / "state"))
    done = subprocess.run(
        [sys.executable, "-c", RESUME, str(cut), "9", str(tmp_path / "state")],
        cwd=ROOT, capture_output=True, text=True,
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
@pytest.mark.parametrize("mode", ["step", "model"])
def test_through_the_command_line(tmp_path: Path, mode: str) -> None:
    """Batches of the sizes that training and evaluation really have are the ones compiled."""
    words = ("data=synthetic", "data.num_train=400", "data.num_test=40", "data.val_size=0.25",
             "data.shape=[1,6,6]", "model.hidden=[16]", "model.dropout=0.2", "batch_size=32",
             "epochs=3", "tensorboard=false")  # fmt: skip
    eager = train(tmp_path, *words, folder="eager")
    compiled = train(tmp_path, *words, f"compile={mode}", folder="compiled")
    graphs = ["step"] if mode == "step" else ["model (training)", "model (evaluation)"]
    for graph in graphs:
        assert f"compile={graph}: " in compiled.command.stdout, compiled.command.output
    assert eager.summary["compile_s"] == 0 < compiled.summary["compile_s"]
    for ours, theirs in zip(compiled.rows, eager.rows, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)


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
    # Not monkeypatch: what it restores in torch's configurations stays hidden afterwards.
    with (
        functorch_config.patch(enable_autograd_cache=False),
        inductor_config.patch(fx_graph_cache=False),
    ):
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
                assert "no lowering for op 42\nUse compile=none" in told
    update(*ours, *batch(0))
    assert not are_backward
    assert not functorch_config.force_non_lazy_backward_lowering

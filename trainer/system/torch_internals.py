"""Private names of torch, and what else it does not document, all in this file but for the English
of its errors, which is in `error_texts.py`.

Checked on torch 2.14.1; `tests/trainer/system/test_torch_internals.py` uses each of them.

what torch has                              if it goes
_amp_foreach_non_finite_check_and_unscale_  no training starts
_amp_update_scale_                          no training with precision=fp16 starts
found_inf, grad_scale of fused optimizers   silent: a NaN gets into the weights
hooks of optimizers, their four dicts       no training starts
a step's __wrapped__                        silent: each command starts 1.2 s later
__dynamo_disable on a function              silent: each command starts 1.2 s later
TorchDispatchMode, _should_skip_dynamo      no graph in TensorBoard; or silent: 1.2 s
compile_fx, make_fx                         compile=step says that it cannot
is_compiling asked by optimizers            compile=step says that it cannot
as_strided stored before it is used         silent: a fifth of a small model's compiled step
_compiled_call_impl, _call_impl             compile=model ends in a traceback
TorchDynamoException                        compile=model ends in a traceback
force_non_lazy_backward_lowering            silent: the time to compile counts as training
events of a Chrome trace, by name           silent: profile=true tells no memory
KINETO_LOG_LEVEL                            lines on stderr with profile=true
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.profiler import profile
from torch.optim import Optimizer
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

__all__ = ["tree_leaves", "tree_map_only"]  # and all that is defined here


# --- The compiler, left out of a start that needs none ---


def leave_compiler_unimported() -> None:
    """torch imports its compiler (1.2 s, a third of a short command) the first time that one of
    these methods is called, only to mark it as not to be compiled. They are marked here instead;
    nothing compiles them."""
    for owner in (Optimizer, TorchDispatchMode, *TorchDispatchMode.__subclasses__()):
        mark_uncompiled(owner)


def mark_uncompiled(owner: type) -> None:
    for method in vars(owner).values():
        plain = getattr(method, "__wrapped__", None)
        if plain is not None:
            plain.__dynamo_disable = plain


class DispatchMode(TorchDispatchMode):
    """Base of classes whose `__torch_dispatch__` sees each operation."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Or torch would import its compiler to mark the class's method as not for it."""
        return False


# --- Steps of optimizers ---

# (tensors, flag, factor): in one pass multiplies all by the factor, and raises the flag (0-dim
# float) if an entry is not finite. Both kernels are GradScaler's own.
unscale_and_flag = torch._amp_foreach_non_finite_check_and_unscale_
# (scale, good steps in a row, flag, growth, backoff, interval): the next step's scale.
update_scale = torch._amp_update_scale_


def has_hooks(optimizer: Optimizer) -> bool:
    """True if hooks run around the steps of an optimizer."""
    of_all = _global_optimizer_pre_hooks or _global_optimizer_post_hooks
    own = optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks
    return bool(of_all or own)


def gate(optimizer: Optimizer, flag: Tensor | None) -> None:
    """Let a fused optimizer's kernels leave weights and state alone while the flag is up."""
    vars(optimizer).update(found_inf=flag, grad_scale=None)


# --- Compiling ---


def graph_of(function: Callable[..., Any], arguments: Sequence[Tensor]) -> torch.fx.GraphModule:
    """All operations of a call, gradients and in-place changes among them, as one graph."""
    from torch.fx.experimental.proxy_tensor import make_fx

    return make_fx(function, tracing_mode="fake")(*arguments)


def compile_graph(
    graph: torch.fx.GraphModule, arguments: Sequence[Tensor], options: dict[str, Any]
) -> Callable[..., Any]:
    """By inductor, without the checks of each tensor at each call that torch.compile adds."""
    from torch._inductor.compile_fx import compile_fx

    return cast(Callable[..., Any], compile_fx(graph, arguments, config_patches=options))


@contextlib.contextmanager
def being_compiled() -> Iterator[None]:
    """Optimizers ask, and leave out what cannot be traced: values that they read on the CPU."""
    asked = torch.compiler.is_compiling
    torch.compiler.is_compiling = lambda: True
    try:
        yield
    finally:
        torch.compiler.is_compiling = asked


def once(scalar: Tensor) -> Tensor:
    """The same 0-dim tensor, but computed once. The compiler would merge its arithmetic into the
    loops that use it and repeat it there, for each sixteen weights; what a view is taken of, it
    stores first."""
    return scalar.as_strided((), ())


def compiled_call(model: nn.Module) -> Callable[..., Any]:
    """Function that `model.compile()` has put in the place of the model's call."""
    return cast(Callable[..., Any], model._compiled_call_impl)


def eager_call(model: nn.Module) -> Callable[..., Any]:
    """The model's call as if it had never been compiled, hooks included."""
    return model._call_impl


def replace_call(model: nn.Module, call: Callable[..., Any]) -> None:
    """Names in the state_dict, and copies of the model, know nothing of it."""
    model._compiled_call_impl = call


def compiler_error() -> type[Exception]:
    """The class of all that torch.compile raises by itself."""
    from torch._dynamo.exc import TorchDynamoException

    return TorchDynamoException


def with_backward() -> contextlib.AbstractContextManager[Any]:
    """Context in which models are compiled with their backward pass, otherwise compiled at its
    first use."""
    from torch._functorch import config

    return config.patch(force_non_lazy_backward_lowering=True)


# --- The profiler ---


def memory_profiler(device: torch.device) -> profile:
    """Profiler that torch.profiler.profile is built on, which imports the compiler, for seconds."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it tells stderr that it starts and stops
    return profile(use_device="cuda" if device.type == "cuda" else None, profile_memory=True)


def memory_events(events: Sequence[dict[str, Any]]) -> list[tuple[float, int, int]]:
    """Of a Chrome trace: when (in microseconds), on which kind of device (0 is the CPU), and how
    many bytes are in use after it, for each time that memory is taken or given back."""
    found = [(event["ts"], event["args"]) for event in events if event.get("name") == "[memory]"]
    return [(when, args["Device Type"], args["Total Allocated"]) for when, args in found]


def range_events(events: Sequence[dict[str, Any]]) -> list[tuple[float, float, str]]:
    """Of a Chrome trace: begin, end and name of each `record_function`."""
    found = [event for event in events if event.get("cat") == "user_annotation"]
    return [(event["ts"], event["ts"] + event["dur"], event["name"]) for event in found]

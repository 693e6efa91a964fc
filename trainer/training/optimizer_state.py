"""What an optimizer keeps beside the weights: of which kinds, and how it goes on from a file.

Fused kernels take the sizes of what an optimizer keeps from the parameters, and read and write
beyond it where it is smaller. So a state is held against the parameters that it fills, tensor by
tensor, before torch sees it.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainer.checkpoints.entries import is_number, is_tensor
from trainer.errors import UserError
from trainer.training.step import undecorated_step

# Sides of the parameter that a trial step is made on: each tells its dimension by its length.
SIDES = (2, 3, 5, 7, 11)
Shape = tuple[int, ...]


def trial_state(optimizer: Optimizer, num_dims: int = 1) -> dict[str, Any]:
    """What the optimizer keeps of a parameter with sides `SIDES[:num_dims]` after a step on it;
    nothing if one of the user's own does not take it: it may want matrices, a GPU, or a closure."""
    number = nn.Parameter(torch.zeros(SIDES[:num_dims]))
    number.grad = torch.zeros_like(number)
    takes = inspect.signature(type(optimizer)).parameters.keys() - {"params"}
    options = {k: v for k, v in optimizer.param_groups[0].items() if k in takes}
    with contextlib.suppress(Exception), torch.no_grad():
        trial = type(optimizer)([number], **options)
        undecorated_step(trial)(trial)
        return dict(trial.state[number])
    return {}


def expected(trial: Mapping[str, Any], parameter: Tensor) -> dict[str, Shape | None]:
    """For each thing that an optimizer keeps of a parameter its shape, or None if it is no tensor;
    from a trial on one of as many dimensions."""
    sides = dict(zip(SIDES, parameter.shape, strict=False)) | {1: 1}
    return {
        name: tuple(sides[n] for n in value.shape) if isinstance(value, Tensor) else None
        for name, value in trial.items()
    }


def trained_names(optimizer: Optimizer, model: nn.Module) -> list[str]:
    """Names of the parameters that the optimizer steps, in its order; its state tells numbers."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [
        names.get(id(parameter), "no parameter of the net")
        for group in optimizer.param_groups
        for parameter in group["params"]
    ]


def check_names(saved: Sequence[str] | None, own: Sequence[str]) -> None:
    """Two parameters of one shape would take each other's momentum without a word. None: of an
    older state, which has no names. Raises UserError."""
    if saved is None or list(saved) == list(own):
        return
    gone, new = ([n for n in a if n not in b] for a, b in ((saved, own), (own, saved)))
    lists = (("no longer trained", gone), ("not trained before", new))
    told = "; ".join(f"{what}: {_few(names)}" for what, names in lists if names)
    raise UserError(
        f"optimizer: the state is of {len(saved)} parameters, the run trains {len(own)}, and they "
        f"are not the same: {told or 'their order is another'}. A state goes with the parameters "
        "that it was made for: leave freeze as it was, or start a new run with weights=FILE from "
        "this one."
    )


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(name[:100] for name in names[:4]) + more


def check_state(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Hold a state of a file, in torch's form, against the parameters of the optimizer. Raises
    UserError."""
    owned = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    sizes = [len(group["params"]) for group in optimizer.param_groups]
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    if sizes != [len(group["params"]) for group in state["param_groups"]]:
        raise UserError(
            f"optimizer: the state is of {len(numbers)} parameters, the run trains {len(owned)}. "
            "A state goes with the parameters that it was made for: start a new run with "
            "weights=FILE from this one."
        )
    if sorted(numbers) != list(range(len(numbers))) or not state["state"].keys() <= set(numbers):
        raise UserError("optimizer: its state does not tell which parameter is which.")
    for group in state["param_groups"]:
        if not all(is_number(group.get(k)) and group[k] >= 0 for k in ("lr", "initial_lr")):
            raise UserError("optimizer: its state has no learning rate of 0 or more.")
        if group["initial_lr"] == 0:
            raise UserError("optimizer: initial_lr=0 in its state.")
    check_own_memory(state)
    trials: dict[int, dict[str, Any]] = {}
    for number, parameter in zip(numbers, owned, strict=True):
        kept = state["state"].get(number, {})
        if kept and parameter.ndim not in trials:
            trials[parameter.ndim] = trial_state(optimizer, parameter.ndim)
        if kept:
            check_kept(optimizer, number, kept, trials[parameter.ndim], parameter)


def check_kept(
    optimizer: Optimizer,
    number: int,
    kept: Mapping[str, Any],
    trial: Mapping[str, Any],
    parameter: Tensor,
) -> None:
    """What a state keeps of one parameter."""
    wanted = expected(trial, parameter)
    missing = wanted.keys() - kept.keys()
    if missing and not isinstance(optimizer, torch.optim.SGD):  # which makes its momentum then
        raise UserError(
            f"optimizer: with these options it needs {', '.join(sorted(missing))}, which the state "
            "does not have. Leave the changed keys of optimizer out."
        )
    for name, value in kept.items():
        where = f"optimizer: {name} of parameter {number}"
        if not isinstance(value, Tensor):
            if name in wanted and type(value) is not type(trial[name]) and value is not None:
                raise UserError(f"{where} is {value!r:.60}, no {type(trial[name]).__name__}.")
            continue
        # Of what a trial does not tell: as a counter, or as the parameter.
        shapes = (wanted[name],) if name in wanted else ((), tuple(parameter.shape))
        if trial and tuple(value.shape) not in shapes:
            raise UserError(
                f"{where} is {tuple(value.shape)}, the parameter {tuple(parameter.shape)}: the "
                "state is of other parameters."
            )
        if name in wanted and value.is_floating_point() != trial[name].is_floating_point():
            raise UserError(f"{where} is {value.dtype}, no {trial[name].dtype}.")


def check_own_memory(state: Mapping[str, Any]) -> None:
    """Two tensors of a state that share their memory would overwrite each other."""
    kept = (value for values in state["state"].values() for value in values.values())
    tensors = [value for value in kept if isinstance(value, Tensor)]
    if not all(map(is_tensor, tensors)):
        raise UserError("optimizer: its state has a tensor that is not plain.")
    end = 0
    for start, length in sorted((t.data_ptr(), extent(t)) for t in tensors if t.numel()):
        if start < end:
            raise UserError("optimizer: two tensors of its state share their memory.")
        end = start + length


def extent(tensor: Tensor) -> int:
    """Bytes from its first element to the end of its last one."""
    sides = zip(tensor.shape, tensor.stride(), strict=True)
    return (1 + sum(int((n - 1) * stride) for n, stride in sides)) * tensor.element_size()


class StoredOptimizer:
    """An optimizer as a part of a run: what it has gathered is saved, its options are the run's."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer

    def state_dict(self) -> dict[str, Any]:
        return self.optimizer.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        load_optimizer(self.optimizer, state)


def load_optimizer(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """What the optimizer has gathered, from a checked state; its options stay those of this run,
    which torch would take from the file, too. The current rate is the schedule's share of this
    run's."""
    groups = []
    for own, saved in zip(optimizer.param_groups, state["param_groups"], strict=True):
        rate = saved["lr"] * (own["initial_lr"] / saved["initial_lr"])
        groups.append({**own, "lr": rate, "params": saved["params"]})
    optimizer.load_state_dict({"state": dict(state["state"]), "param_groups": groups})

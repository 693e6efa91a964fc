"""Optimizer state from a file, checked before torch loads it.

Fused kernels take the sizes of the optimizer's state from the parameters, and read and write out of
bounds where a state tensor is smaller. So each tensor of a state is compared with its parameter
first.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainer.checkpoints.kinds import is_number, is_tensor
from trainer.errors import UserError
from trainer.text.values import listed
from trainer.training.step import undecorated_step

# Sides of the parameter of a trial step: each length identifies its dimension.
SIDES = (2, 3, 5, 7, 11)
Shape = tuple[int, ...]


def trial_state(optimizer: Optimizer, num_dims: int = 1, group: int = 0) -> dict[str, Any]:
    """State of the optimizer for a parameter of shape `SIDES[:num_dims]` in one of its groups after
    one step; empty if an optimizer of the user's own fails on it: it may need matrices, a GPU, or a
    closure."""
    number = nn.Parameter(torch.zeros(SIDES[:num_dims]))
    number.grad = torch.zeros_like(number)
    takes = inspect.signature(type(optimizer)).parameters.keys() - {"params"}
    own = optimizer.param_groups[group]
    options = {k: v for k, v in own.items() if k in takes}
    with contextlib.suppress(Exception), torch.no_grad():
        trial = type(optimizer)([{**own, "params": [number]}], **options)
        undecorated_step(trial)(trial)
        return dict(trial.state[number])
    return {}


def expected(trial: Mapping[str, Any], parameter: Tensor) -> dict[str, Shape | None]:
    """Expected shape of each state entry of a parameter, None for an entry that is no tensor.

    Args:
        trial: from `trial_state` with as many dimensions as the parameter.
    """
    sides = dict(zip(SIDES, parameter.shape, strict=False)) | {1: 1}
    return {
        name: tuple(sides[n] for n in value.shape) if isinstance(value, Tensor) else None
        for name, value in trial.items()
    }


def trained_names(optimizer: Optimizer, model: nn.Module) -> list[str]:
    """Names of the optimizer's parameters, in its order; its own state has numbers only."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [
        names.get(id(parameter), "no parameter of the model")
        for group in optimizer.param_groups
        for parameter in group["params"]
    ]


def check_names(saved: Sequence[str] | None, own: Sequence[str]) -> None:
    """Raises UserError unless a state is for the parameters `own`, in that order; otherwise two
    parameters of the same shape could get each other's momentum. `saved` is None for older states,
    which have no names."""
    if saved is None or list(saved) == list(own):
        return
    gone, new = ([n for n in a if n not in b] for a, b in ((saved, own), (own, saved)))
    lists = (("no longer trained", gone), ("not trained before", new))
    changes = "; ".join(
        f"{what}: {listed([name[:100] for name in names])}" for what, names in lists if names
    )
    raise UserError(
        f"optimizer: the state is for {len(saved)} parameters, the run trains {len(own)}, and they "
        f"differ: {changes or 'their order changed'}. A state fits only the parameters it was "
        "saved for: leave freeze, lr_factors, layer_decay and decay_norms_and_biases unchanged, or "
        "start a new run with weights=FILE from this one."
    )


def check_state(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Raises UserError unless a state from a file, in torch's form, fits the parameters of the
    optimizer."""
    owned = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    sizes = [len(group["params"]) for group in optimizer.param_groups]
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    if sizes != [len(group["params"]) for group in state["param_groups"]]:
        raise UserError(
            f"optimizer: the state is for {len(numbers)} parameters in groups of "
            f"{listed([len(group['params']) for group in state['param_groups']])}, the run trains "
            f"{len(owned)} in groups of {listed(sizes)}. A state fits only the groups it was saved "
            "for: leave lr_factors, layer_decay and decay_norms_and_biases unchanged, or start a "
            "new run with weights=FILE from this one."
        )
    if sorted(numbers) != list(range(len(numbers))) or not state["state"].keys() <= set(numbers):
        raise UserError("optimizer: the parameter numbers in its state are not 0, 1, 2, ...")
    for group in state["param_groups"]:
        if not all(is_number(group.get(k)) and group[k] >= 0 for k in ("lr", "initial_lr")):
            raise UserError("optimizer: its state has no learning rate, or a negative one.")
        if group["initial_lr"] == 0:
            raise UserError("optimizer: its state has initial_lr=0; it must be above 0.")
    check_own_memory(state)
    trial = functools.cache(functools.partial(trial_state, optimizer))
    places = (i for i, size in enumerate(sizes) for _ in range(size))
    for number, parameter, group in zip(numbers, owned, places, strict=True):
        if kept := state["state"].get(number, {}):
            check_kept(optimizer, number, kept, trial(parameter.ndim, group), parameter)


def check_kept(
    optimizer: Optimizer,
    number: int,
    kept: Mapping[str, Any],
    trial: Mapping[str, Any],
    parameter: Tensor,
) -> None:
    """Raises UserError unless the entries `kept` of a state fit one parameter.

    Args:
        number: of the parameter in the state, for the message.
        trial: entries of a trial step on a parameter of as many dimensions.
    """
    wanted = expected(trial, parameter)
    missing = wanted.keys() - kept.keys()
    if missing and not isinstance(optimizer, torch.optim.SGD):  # SGD creates missing momentum
        switch = " (optimizer.amsgrad=true)" * ("max_exp_avg_sq" in missing)
        raise UserError(
            f"optimizer: with these options{switch} it needs {', '.join(sorted(missing))}, which "
            "the state does not have. Leave out the changed keys of optimizer."
        )
    for name, value in kept.items():
        where = f"optimizer: {name} of parameter {number}"
        if not isinstance(value, Tensor):
            if name in wanted and type(value) is not type(trial[name]) and value is not None:
                raise UserError(
                    f"{where} is {value!r:.60}; it must be of type {type(trial[name]).__name__}."
                )
            continue
        # An entry that the trial does not have: a counter, or of the parameter's shape.
        shapes = (wanted[name],) if name in wanted else ((), tuple(parameter.shape))
        if trial and tuple(value.shape) not in shapes:
            raise UserError(
                f"{where} has shape {tuple(value.shape)}, the parameter {tuple(parameter.shape)}: "
                "the state is for other parameters."
            )
        if name in wanted and value.is_floating_point() != trial[name].is_floating_point():
            raise UserError(f"{where} is {value.dtype}; it must be {trial[name].dtype}.")


def check_own_memory(state: Mapping[str, Any]) -> None:
    """Raises UserError if two tensors of a state share memory: they would overwrite each other."""
    kept = (value for values in state["state"].values() for value in values.values())
    tensors = [value for value in kept if isinstance(value, Tensor)]
    if not all(map(is_tensor, tensors)):
        raise UserError("optimizer: its state has a tensor that is not a dense CPU tensor.")
    end = 0
    for start, length in sorted((t.data_ptr(), extent(t)) for t in tensors if t.numel()):
        if start < end:
            raise UserError("optimizer: two tensors of its state share memory.")
        end = start + length


def extent(tensor: Tensor) -> int:
    """Bytes from the first element of a tensor to the end of its last one."""
    sides = zip(tensor.shape, tensor.stride(), strict=True)
    return (1 + sum(int((n - 1) * stride) for n, stride in sides)) * tensor.element_size()


class StoredOptimizer:
    """Optimizer as a part of a run: its state is saved and loaded, its options stay the run's."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer

    def state_dict(self) -> dict[str, Any]:
        return self.optimizer.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        load_optimizer(self.optimizer, state)


def load_optimizer(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Load a checked state. The options, which torch would load as well, stay those of this run;
    the current learning rate is this run's initial one times the saved schedule factor."""
    groups = []
    for own, saved in zip(optimizer.param_groups, state["param_groups"], strict=True):
        rate = saved["lr"] * (own["initial_lr"] / saved["initial_lr"])
        groups.append({**own, "lr": rate, "params": saved["params"]})
    optimizer.load_state_dict({"state": dict(state["state"]), "param_groups": groups})

"""An optimizer's state out of a file is held against the parameters that it fills."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from trainer.errors import UserError
from trainer.training.optimizer_state import check_state, load_optimizer

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "Adam": {}, "AdamW": {"fused": True}, "SGD": {"momentum": 0.9, "lr": 0.1}, "Adagrad": {},
    "RMSprop": {"momentum": 0.9}, "Adadelta": {}, "NAdam": {}, "RAdam": {}, "Adamax": {},
    "Rprop": {}, "ASGD": {}, "Adafactor": {},
}  # fmt: skip


def stepped(name: str) -> Optimizer:
    torch.manual_seed(0)
    weights = [nn.Parameter(torch.ones(shape)) for shape in ((6, 4), (3,), (2, 3, 5, 5))]
    made: Optimizer = getattr(torch.optim, name)(weights, **OPTIMIZERS[name])
    for group in made.param_groups:
        group["initial_lr"] = group["lr"]
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    with torch.no_grad():
        inspect.unwrap(type(made).step)(made)
    return made


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_state_goes_on_and_one_of_other_parameters_does_not(name: str) -> None:
    state = copy.deepcopy(stepped(name).state_dict())
    check_state(stepped(name), state)
    load_optimizer(stepped(name), state)
    for kept in state["state"].values():
        for key, value in kept.items():
            if isinstance(value, torch.Tensor) and value.ndim:
                kept[key] = value[:1].clone() if len(value) > 1 else torch.ones(9)
                with pytest.raises(UserError, match=f"{key} of parameter"):
                    check_state(stepped(name), state)
                kept[key] = value
    check_state(stepped(name), state)


def first(state: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = state["state"][0]
    return kept


EDITS: list[tuple[str, Callable[[dict[str, Any]], Any]]] = [
    ("not a dense CPU", lambda s: first(s).update(exp_avg=torch.ones(1, 1).expand(6, 4))),
    ("not a dense CPU", lambda s: first(s).update(exp_avg=torch.ones(6, 4, device="meta"))),
    ("not a dense CPU", lambda s: first(s).update(exp_avg=torch.ones(6, 4).to_sparse())),
    ("not a dense CPU", lambda s: first(s).update(exp_avg=torch.ones(6, 4, dtype=torch.complex64))),
    ("share", lambda s: first(s).update(exp_avg=first(s)["exp_avg_sq"])),
    ("share", lambda s: first(s).update(exp_avg_sq=first(s)["exp_avg"].view(6, 4))),
    ("int64", lambda s: first(s).update(exp_avg=torch.ones(6, 4, dtype=torch.int64))),
    ("step of parameter 0", lambda s: first(s).update(step=torch.ones(3))),
    ("step of parameter 0", lambda s: first(s).update(step="1")),
    ("needs exp_avg", lambda s: first(s).pop("exp_avg")),
    ("parameter numbers in its state", lambda s: s["param_groups"][0].update(params=[0, 0, 1])),
    ("parameter numbers in its state", lambda s: s["state"].update({7: {}})),
    ("is for 2 parameters", lambda s: s["param_groups"][0].update(params=[0, 1])),
    ("is for 4 parameters", lambda s: s["param_groups"].append({"params": [3]})),
    ("learning rate", lambda s: s["param_groups"][0].update(lr=float("nan"))),
    ("learning rate", lambda s: s["param_groups"][0].update(lr="0.1")),
    ("learning rate", lambda s: s["param_groups"][0].pop("initial_lr")),
    ("initial_lr=0", lambda s: s["param_groups"][0].update(initial_lr=0.0)),
]  # fmt: skip


@pytest.mark.parametrize(("said", "edit"), EDITS)
def test_forged_states_are_refused(said: str, edit: Callable[[dict[str, Any]], Any]) -> None:
    state = copy.deepcopy(stepped("Adam").state_dict())
    edit(state)
    with pytest.raises(UserError, match=said):
        check_state(stepped("Adam"), state)


def test_options_of_a_state_count_for_nothing() -> None:
    state = copy.deepcopy(stepped("Adam").state_dict())
    state["param_groups"][0] |= {"betas": (0.5,), "eps": "x", "evil": 1, "foreach": True}
    new = stepped("Adam")
    before = {k: v for k, v in new.param_groups[0].items() if k != "params"}
    check_state(new, state)
    load_optimizer(new, state)
    assert {k: v for k, v in new.param_groups[0].items() if k != "params"} == before

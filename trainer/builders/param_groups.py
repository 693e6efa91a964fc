"""Parameter groups of an optimizer: parameters that share a learning rate and a weight decay.

The rate of a parameter is optimizer.lr, times the schedule, times two factors: that of the last
pattern of `lr_factors` that its name matches, and `layer_decay` to the power of its depth below the
head (see `blocks`).
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from trainer.builders.pretrained import no_match
from trainer.errors import UserError

KEYS = ("lr_factors", "layer_decay", "decay_norms_and_biases")
CONTAINERS = (nn.Sequential, nn.ModuleList)
MATRICES = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.MultiheadAttention)


def make(config: Mapping[str, Any], model: nn.Module, splits_hidden: bool) -> list[dict[str, Any]]:
    """Groups of the trained parameters, in the order of their first ones; a group has its `params`,
    its `name`, `lr_factor`, `decays` and, if they are told apart, `is_hidden`.

    Args:
        splits_hidden: the optimizer treats hidden matrices in another way, see `hidden`.
    """
    factors = factors_of(config, model)
    spares, inner = not config["decay_norms_and_biases"], hidden(model) if splits_hidden else set()
    groups: dict[Any, dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        kind = factors[name], not (spares and parameter.ndim < 2), name in inner
        if kind not in groups:
            words = [f"{len(groups)}_x{kind[0]:.4g}", *["undecayed"] * (not kind[1])]
            words += ["hidden"] * kind[2]
            groups[kind] = {"params": [], "name": "_".join(words), "lr_factor": kind[0],
                            "decays": kind[1], "is_hidden": kind[2]}  # fmt: skip
        groups[kind]["params"].append(parameter)
    return list(groups.values())


def factors_of(config: Mapping[str, Any], model: nn.Module) -> dict[str, float]:
    """Factor of the learning rate of each parameter, by name. Raises UserError for a pattern that
    matches none."""
    names = [name for name, _ in model.named_parameters()]
    factors = dict.fromkeys(names, 1.0)
    for pattern, factor in pairs(config["lr_factors"]):
        matching = [name for name in names if fnmatch.fnmatchcase(name, pattern)]
        if not matching:
            raise UserError(f"lr_factors={pattern}: {no_match(pattern, names)}")
        factors.update(dict.fromkeys(matching, factor))
    if config["layer_decay"] != 1:
        for depth, block in enumerate(reversed(blocks(model))):
            for name in block:
                factors[name] *= config["layer_decay"] ** depth
    return factors


def pairs(factors: Mapping[str, float] | Sequence[Any] | None) -> Iterator[tuple[str, float]]:
    """Patterns and their factors, of a mapping or of a list of pairs."""
    given = factors.items() if isinstance(factors, Mapping) else factors or ()
    for pattern, factor in given:
        yield str(pattern), float(factor)


def blocks(model: nn.Module) -> list[list[str]]:
    """Names of the parameters of each block, from the input to the head.

    A block is a module of the network, in the order in which the network defines them: each of its
    children, and in place of a Sequential or ModuleList, at any depth, its members; a child that
    holds a stack (a container of two or more modules of one class, as the encoder of a vision
    transformer does) is opened, too. What has no matrix, such as a norm, belongs to the block
    before it; parameters outside of the blocks, such as a class token, to the next one.
    """
    tops = list(opened(model, "", is_top=True))
    found: list[tuple[str, list[str]]] = []  # prefix of each block and its parameters
    outside: list[str] = []
    shapes = dict(model.named_parameters())
    for name in shapes:
        prefix = next((top for top in tops if name.startswith(f"{top}.")), None)
        if prefix is None:
            outside.append(name)
        elif found and found[-1][0] == prefix:
            found[-1][1].append(name)
        else:
            found.append((prefix, [*outside, name]))
            outside = []
    merged: list[list[str]] = []
    for _, names in found:
        if merged and all(shapes[name].ndim < 2 for name in names):
            merged[-1] += names
        else:
            merged.append(names)
    if outside:
        merged = [*merged[:-1], [*(merged or [[]])[-1], *outside]]
    return merged


def opened(module: nn.Module, prefix: str, is_top: bool = False) -> Iterator[str]:
    """Names of the modules that are blocks."""
    for name, child in module.named_children():
        if isinstance(child, CONTAINERS) or (is_top and any(map(is_stack, child.children()))):
            yield from opened(child, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def is_stack(module: nn.Module) -> bool:
    classes = {type(member) for member in module.children()}
    return isinstance(module, CONTAINERS) and len(module) > 1 and len(classes) == 1


def hidden(model: nn.Module) -> set[str]:
    """Names of the hidden matrices: the weights of linear and convolution layers and of attention,
    but for those of the first and the last such layer that the network defines. Embeddings and
    parameters of the network's own are none of them."""
    layers = [name for name, module in model.named_modules() if isinstance(module, MATRICES)]
    names = {f"{layer}.{kind}" for layer in layers[1:-1] for kind in ("weight", "in_proj_weight")}
    return {name for name, p in model.named_parameters() if name in names and p.ndim > 1}

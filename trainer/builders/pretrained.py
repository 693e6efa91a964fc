"""Pretrained weights and frozen parameters."""

from __future__ import annotations

import difflib
import fnmatch
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import MethodType
from typing import Any

from torch import Tensor, nn

from models.weights.foreign import ForeignWeights, Mismatch, WeightsError, compare
from models.weights.reader import load_official, read
from models.weights.safetensors_files import description_in
from trainer import checkpoints
from trainer.checkpoints import entries, exported
from trainer.checkpoints.finite import not_finite
from trainer.errors import UserError
from trainer.system.paths import at_home
from trainer.text.values import listed

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)

# Weights with the class names and preprocessing they were trained with.
Start = ForeignWeights[Tensor]


def find(source: str, model: nn.Module) -> Start:
    """Weights of `weights=`: a checkpoint, a file of another program, or the name of torchvision's
    official weights. Raises UserError."""
    path = at_home(Path(source))
    try:
        if source.upper().startswith("IMAGENET") and not Path(source).exists():
            return load_official(torchvision_name(model), source.upper())
        return from_file(path, model)
    except (WeightsError, UserError) as error:
        raise UserError(f"weights={source}: {str(error).removeprefix(f'{path}: ')}") from error


def from_file(path: Path, model: nn.Module) -> Start:
    """Weights from a checkpoint, or any file that `models.weights` reads; those of `export`, and
    torchvision's own, come with class names and preprocessing. Raises UserError."""
    if os.path.isdir(path):
        raise UserError(
            f"{path}: this is a folder. Give a file in it; in a run, checkpoints/best.pth."
        )
    if not os.path.isfile(path):  # also of a name that no file can have
        raise UserError(
            f"{path}: there is no such file. Give a checkpoint, a .pth or .safetensors file of "
            "weights, or IMAGENET1K_V1 for torchvision's."
        )
    if checkpoints.is_ours(path):
        told = entries.read(path)
        if names := not_finite(told["model"]):
            raise UserError(
                f"{path}: NaN or infinite in {len(names):,} tensors: {listed(names)}. No training "
                "can start from it; use an earlier checkpoint."
            )
        start = Start(told["model"])
    else:
        told, ignored = described(path)
        arch = None if told else getattr(model, "torchvision_name", None)
        try:
            start = read(path, shapes_of(model), arch=arch)
        except WeightsError as error:
            raise UserError(str(error)) from error
        if not told:
            return replace(start, notes=[*start.notes, ignored]) if ignored else start
    channels, height, width = told["shape"]
    return replace(
        start, classes=told["classes"], mean=tuple(told["mean"]), std=tuple(told["std"]),
        resize=told["resize"], shape=(channels, height, width),
    )  # fmt: skip


def described(path: Path) -> tuple[dict[str, Any], str]:
    """Entries that a safetensors file of `export` tells besides its weights, and a sentence if they
    are wrong and therefore ignored; of any other file, nothing."""
    text = description_in(path)
    return ({}, "") if text is None else exported.entries_in(text)


def torchvision_name(model: nn.Module) -> str:
    name = getattr(model, "torchvision_name", None)
    if not isinstance(name, str):
        raise UserError(
            f"torchvision has no weights for this {type(model).__name__} with these options. Set "
            "those of torchvision's form, see the model's file in configs/model/, or give "
            "weights=FILE."
        )
    return name


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


HEAD_ADVICE = "The last layer has another number of classes: replace_head=true makes a new one."


NO_HEAD_ADVICE = (
    "The file has no head, only the layers below it. Training can start from it: weights=FILE "
    "replace_head=true initialises a new one."
)


def has_no_head(mismatch: Mismatch, state_dict: dict[str, Tensor]) -> bool:
    """True if a file lacks whole parts of the model and fits in all others: `features.*` only, as
    torchvision publishes VGG-16 for detection."""
    there = {name.partition(".")[0] for name in state_dict}
    absent = {name.partition(".")[0] for name in mismatch.missing}
    return bool(there and absent and not there & absent) and not (
        mismatch.unexpected or mismatch.misshapen
    )


def check_fit(
    model: nn.Module,
    state_dict: dict[str, Tensor],
    replace_head: bool,
    source: str,
    head_advice: str = HEAD_ADVICE,
) -> list[str]:
    """Check that weights fit a model. Returns the names of the tensors to initialise anew.

    Args:
        replace_head: allow tensors that differ in the number of outputs only, or a missing head.
        source: the weights as the user named them, for the message.
        head_advice: what to do if only the head does not fit.

    Raises:
        UserError: they do not fit; it lists the tensors and says what to do.
    """
    mismatch = compare(state_dict, shapes_of(model))
    if replace_head and not mismatch:
        raise UserError(
            f"replace_head=true: the head of {source} fits and would not be replaced. Leave the "
            "key out; the training starts from this head."
        )
    heads = [name for name, have, need in mismatch.misshapen if have[1:] == need[1:]]
    only_heads = not mismatch.missing and not mismatch.unexpected
    only_heads &= len(heads) == len(mismatch.misshapen)
    if has_no_head(mismatch, state_dict):
        heads, only_heads, head_advice = mismatch.missing, True, NO_HEAD_ADVICE
    if mismatch and not (replace_head and only_heads):
        other = (
            "If they are of another form of this model, set its options, such as "
            "model.stem=imagenet or model.head=imagenet, see configs/model/."
        )
        raise UserError(
            f"{source}: does not fit the model.\n{mismatch.describe()}\n"
            + (head_advice if only_heads else other)
        )
    return heads


def load_into(
    model: nn.Module, state_dict: dict[str, Tensor], replace_head: bool, source: str
) -> list[str]:
    """Copy weights into a model, except for a head that is initialised anew, whose tensor names are
    returned; arguments as in `check_fit`. Raises UserError, with the model unchanged, if they do
    not fit."""
    heads = check_fit(model, state_dict, replace_head, source)
    own = model.state_dict()
    model.load_state_dict({n: own[n] if n in heads else state_dict[n] for n in own})
    return heads


def freeze(model: nn.Module, patterns: Sequence[str], batch_norm: bool = True) -> int:
    """Exclude parameters from training by shell-style patterns of their names. With `batch_norm`, a
    batch norm layer whose parameters are all excluded keeps its statistics, too. Returns the number
    of values left to train. Raises UserError for a pattern that matches nothing, or if nothing is
    left."""
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise UserError(f"freeze={pattern}: {no_match(pattern, names)}")
    for name, parameter in model.named_parameters():
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
            parameter.requires_grad_(False)
    for module in model.modules() if batch_norm else ():
        own = list(module.parameters(recurse=False))
        if isinstance(module, BATCH_NORMS) and own and not any(p.requires_grad for p in own):
            module.eval()
            module.train = MethodType(_stay_as_it_is, module)  # type: ignore[method-assign]
    left = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if not left:
        raise UserError(f"freeze=[{','.join(patterns)}]: leaves nothing to train.")
    return left


def no_match(pattern: str, names: Sequence[str]) -> str:
    """Message for a pattern that matches none of the parameters' names."""
    near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.0)
    return (
        f"no parameter name matches. Similar names: {', '.join(near)}; "
        "`python -m trainer summary model=...` lists the layers."
    )


def _stay_as_it_is(module: nn.Module, mode: bool = True) -> nn.Module:
    return module

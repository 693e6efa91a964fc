"""Keys that would be taken and change nothing. Typed, they are refused by name; a file, such as an
experiment's, may hold them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from trainer.errors import UserError
from trainer.text.values import format_value

# Of a model, how its fresh weights are drawn: nothing where they come from a file.
FRESH_WEIGHTS = ("model.init", "model.zero_init_last")
FROM_THE_FILE = "the weights come from the file"
OWN_AUGMENT = "data.augment.Augment"  # of another the options mean what its author says
SAME = 1e-4  # of mean and std: one that was copied from the log


def refuse(words: Mapping[str, str], idle: Collection[str], why: str) -> None:
    """Raises UserError that names the first word whose key is one of these."""
    for key in words:
        if any(key == one or key.startswith(f"{one}.") for one in idle):
            raise UserError(f"{key}={words[key]}: plays no part here: {why}. Leave the key out.")


def keys_in(words: Iterable[str]) -> set[str]:
    """Those that overrides of Hydra's name: `+a.b=1` -> a.b."""
    return {word.lstrip("+~").partition("=")[0].partition("@")[0] for word in words}


def refuse_in_training(typed: Collection[str], jobs: Sequence[Mapping[str, Any]]) -> None:
    """Refuse what another key makes idle in each of these checked jobs: a sweep may go on to a
    value that gives it a part. Raises UserError."""
    for key in REASONS:
        if key not in typed:
            continue
        why = ""
        for job in jobs:
            why = REASONS[key](key, job)
            if not why:
                break
        if why:
            raise UserError(f"{key}={format_value(value_of(key, jobs[0]))}: {why}")


def value_of(key: str, job: Mapping[str, Any]) -> Any:
    group, _, name = key.rpartition(".")
    return (job[group] if group else job).get(name)


def of_flip(key: str, job: Mapping[str, Any]) -> str:
    options = job["augment"]
    if options["_target_"] != OWN_AUGMENT or not options.get("flip"):
        return ""
    return "" if job["data"].get("hflip") else (
        "mirrors nothing: data.hflip=false says that a mirrored picture of this set may be of "
        "another class. Leave the key out, or add data.hflip=true if it is not."
    )  # fmt: skip


def of_mixing(key: str, job: Mapping[str, Any]) -> str:
    options = job["augment"]
    if options["_target_"] != OWN_AUGMENT or options.get("mixup") or options.get("cutmix"):
        return ""
    return "mixes nothing: both augment.mixup and augment.cutmix are 0. Set one, or leave it out."


def of_histograms(key: str, job: Mapping[str, Any]) -> str:
    if not job["histograms"] or job["tensorboard"]:
        return ""
    return "go to TensorBoard's files, and tensorboard=false writes none. Leave one of the two out."


def of_dropout(key: str, job: Mapping[str, Any]) -> str:
    """The net may have no such layer in the form that its other options give it."""
    import torch
    from torch import nn

    from trainer.builders import factories

    size = factories.known_size(job["data"])
    if size is None or not job["model"].get("dropout"):
        return ""
    with torch.device("meta"):
        model = factories.make_model(job, *size)
    dropouts = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d,
                nn.AlphaDropout, nn.FeatureAlphaDropout)  # fmt: skip
    if any(isinstance(module, dropouts) for module in model.modules()):
        return ""
    return (
        "drops nothing: this form of the net has no layer for it (see its file in configs/model/, "
        "model.head of the VGGs). Leave the key out."
    )


def of_normalisation(key: str, job: Mapping[str, Any]) -> str:
    """Weights bring the one that they were trained with, where it has as many channels."""
    import torch

    from trainer.builders import factories

    size = factories.known_size(job["data"])
    if size is None or not job["weights"]:
        return ""
    with torch.device("meta"):
        start = factories.found_weights(job, factories.make_model(job, *size))
    if not (start.mean and start.std and len(start.mean) == size[0][0]):
        return ""
    own = start.mean if key == "data.mean" else start.std
    given = value_of(key, job)
    given = list(given) * len(own) if len(given) == 1 else list(given)
    if len(given) == len(own) and all(abs(a - b) < SAME for a, b in zip(given, own, strict=True)):
        return ""
    return (
        f"weights={job['weights']} brings its own, {format_value([round(v, 5) for v in own])}, "
        "and pictures are normalised so. Leave the key out."
    )


REASONS = {
    "histograms": of_histograms,
    "augment.flip": of_flip,
    "augment.mix_probability": of_mixing,
    "model.dropout": of_dropout,
    "data.mean": of_normalisation,
    "data.std": of_normalisation,
}

"""Keys without an effect in a given configuration. They are an error on the command line, and
allowed in a file, such as an experiment's.

Torch, which takes seconds to import, is imported where a key can only be judged by its model.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from trainer.errors import UserError
from trainer.text.values import format_value

# Initialisation of a model, without effect if the weights come from a file.
FRESH_WEIGHTS = ("model.init", "model.zero_init_last", "model.identity",
                 "model.whitening")  # fmt: skip
FROM_THE_FILE = "the weights come from the file"
OWN_AUGMENT = "data.augment.Augment"  # options of other classes may have another meaning
SAME = 1e-4  # tolerance for mean and std copied from the log, which rounds them


def refuse(words: Mapping[str, str], idle: Collection[str], why: str) -> None:
    """Raises UserError for the first key in `words` that is one of `idle`, with the reason."""
    for key in words:
        if any(key == one or key.startswith(f"{one}.") for one in idle):
            raise UserError(f"{key}={words[key]}: has no effect here: {why}. Leave the key out.")


def keys_in(words: Iterable[str]) -> set[str]:
    """Keys of Hydra's overrides: `+a.b=1` -> a.b."""
    return {word.lstrip("+~").partition("=")[0].partition("@")[0] for word in words}


def refuse_in_training(typed: Collection[str], jobs: Sequence[Mapping[str, Any]]) -> None:
    """Raises UserError for a typed key that another key makes ineffective in every one of these
    checked jobs; in a sweep, it suffices that one job uses it."""
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
        "has no effect: data.hflip=false says that flipping may change the class of an image of "
        "this dataset. Leave the key out, or add data.hflip=true if it does not."
    )  # fmt: skip


def of_alternation(key: str, job: Mapping[str, Any]) -> str:
    options = job["augment"]
    if options["_target_"] != OWN_AUGMENT or not options.get(key.partition(".")[2]):
        return ""
    if not options.get("flip"):
        return "has no effect: augment.flip is 0. Set it, such as to 0.5, or leave the key out."
    return of_flip(key, job)


def of_mixing(key: str, job: Mapping[str, Any]) -> str:
    options = job["augment"]
    if options["_target_"] != OWN_AUGMENT or options.get("mixup") or options.get("cutmix"):
        return ""
    return "has no effect: augment.mixup and augment.cutmix are 0. Set one, or leave the key out."


# What augment.strength scales.
SCALED = ("rotation", "crop_padding", "random_resized_crop", "trivial", "brightness", "contrast",
          "saturation", "hue", "cutout")  # fmt: skip


def of_strength(key: str, job: Mapping[str, Any]) -> str:
    options = job["augment"]
    if options["_target_"] != OWN_AUGMENT or any(options.get(name) for name in SCALED):
        return ""
    return "has no effect: it scales changes that are all off. Add augment=basic, or leave it out."


def of_histograms(key: str, job: Mapping[str, Any]) -> str:
    if not job["histograms"] or job["tensorboard"]:
        return ""
    return (
        "has no effect: histograms go to TensorBoard's files, and tensorboard=false writes none. "
        "Leave out one of the two."
    )


def of_test_size(key: str, job: Mapping[str, Any]) -> str:
    if job["data"].get("test_files") is None:
        return ""
    return "has no effect: data.test_files lists the test split. Leave out one of the two."


def of_dropout(key: str, job: Mapping[str, Any]) -> str:
    """Reason if the model has no dropout layer with its other options; else empty."""
    import torch
    from torch import nn

    from trainer.builders import datasets, networks

    size = datasets.known_size(job["data"])
    if size is None or not job["model"].get("dropout"):
        return ""
    with torch.device("meta"):
        model = networks.make_model(job, *size)
    dropouts = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d,
                nn.AlphaDropout, nn.FeatureAlphaDropout)  # fmt: skip
    if any(isinstance(module, dropouts) for module in model.modules()):
        return ""
    return (
        "has no effect: this form of the model has no dropout layer (see its file in "
        "configs/model/; for a VGG, model.head). Leave the key out."
    )


def of_normalisation(key: str, job: Mapping[str, Any]) -> str:
    """Reason if the given weights replace the normalisation by that of their training; else
    empty."""
    import torch

    from trainer.builders import datasets, networks

    size = datasets.known_size(job["data"])
    if size is None or not job["weights"]:
        return ""
    with torch.device("meta"):
        start = networks.found_weights(job, networks.make_model(job, *size))
    if not (start.mean and start.std and len(start.mean) == size[0][0]):
        return ""
    own = start.mean if key == "data.mean" else start.std
    given = value_of(key, job)
    given = list(given) * len(own) if len(given) == 1 else list(given)
    if len(given) == len(own) and all(abs(a - b) < SAME for a, b in zip(given, own, strict=True)):
        return ""
    return (
        f"has no effect: weights={job['weights']} has its own, "
        f"{format_value([round(v, 5) for v in own])}, which is used. Leave the key out."
    )


def of_sync_batch_norm(key: str, job: Mapping[str, Any]) -> str:
    if job["processes"] > 1:
        return ""
    return "has no effect with processes=1. Leave the key out, or add processes=N."


def of_spared_decay(key: str, job: Mapping[str, Any]) -> str:
    if job["decay_norms_and_biases"] or job["optimizer"].get("weight_decay", 1):
        return ""
    return "has no effect: optimizer.weight_decay is 0. Set it, or leave the key out."


def of_micro_batch_size(key: str, job: Mapping[str, Any]) -> str:
    if job["micro_batch_size"] < job["batch_size"]:
        return ""
    return (
        f"has no effect: batch_size={job['batch_size']} is not larger. Leave the key out, or set "
        "a larger batch_size."
    )


def of_patience(key: str, job: Mapping[str, Any]) -> str:
    return "" if job["patience"] else "has no effect without patience. Leave the key out."


def of_distilling(key: str, job: Mapping[str, Any]) -> str:
    if job["teacher"] is not None:
        return ""
    return "has no effect without a teacher. Leave the key out, or add teacher=CHECKPOINT."


def of_freeze(key: str, job: Mapping[str, Any]) -> str:
    if job["freeze"]:
        return ""
    return "has no effect: nothing is frozen. Leave the key out, or add freeze=[PATTERN]."


REASONS = {
    "decay_norms_and_biases": of_spared_decay,
    "freeze_batch_norm": of_freeze,
    "unfreeze_epoch": of_freeze,
    "distill_temperature": of_distilling,
    "distill_weight": of_distilling,
    "min_delta": of_patience,
    "patience_on": of_patience,
    "micro_batch_size": of_micro_batch_size,
    "sync_batch_norm": of_sync_batch_norm,
    "histograms": of_histograms,
    "augment.flip": of_flip,
    "augment.alternate": of_alternation,
    "augment.mix_probability": of_mixing,
    "augment.strength": of_strength,
    "model.dropout": of_dropout,
    "data.test_size": of_test_size,
    "data.mean": of_normalisation,
    "data.std": of_normalisation,
}

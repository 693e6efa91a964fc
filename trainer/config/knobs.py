"""Types and ranges of all keys. What is said of a key stands in one place:

- its type and range in the table below, with which `check` holds a composed configuration, before
  anything is loaded; of a model's options in the annotations of the model's constructor, which is
  used from Python, too, and checks them;
- its default, and as a comment its meaning with unit and the value that turns it off, in its YAML
  file in configs/; of a key that several choices share, in the one that the others extend, or in a
  base in a folder of the group, which has ??? where each choice has its own default;
- nothing of it in docs/configuration.md, which `trainer.config.reference` makes of these.

A class checks itself what a wrong value of would give wrong results in silence from Python.
Imports nothing heavy: composing `configs/` needs no module of ours.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from trainer.config.combinations import check_together
from trainer.config.knob import Knob
from trainer.errors import UserError
from trainer.text.values import format_value, unknown_name_message

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
GROUPS = ("model", "data", "augment", "optimizer", "scheduler", "loss", "average")


_POSITIVE = Knob("float", above=0)
_SHARE = Knob("float", low=0, below=1)
_PART = Knob("float", low=0, high=1)
_TEXT = partial(Knob, "str", pattern=r"(?s).+", nullable=True)
_FOLDER = _TEXT(hint="a folder")
_NOT_NEGATIVE = Knob("float", low=0)
_COUNT = Knob("int", low=1, below=2**31)
_COUNT_OR_OFF = Knob("int", low=0, below=2**31)
_THREADS = Knob("int", low=0, high=1024)

KNOBS: dict[str, Knob] = {
    "epochs": _COUNT,
    "batch_size": _COUNT,
    "micro_batch_size": _COUNT_OR_OFF,
    "seed": Knob("int", low=0, below=2**63),
    "device": Knob(
        "str", pattern=r"auto|cpu|mps|cuda(:\d+)?", hint="one of auto, cpu, cuda, cuda:N, mps"
    ),
    "precision": Knob("str", choices=("fp32", "fp64", "bf16", "fp16")),
    "layers": Knob("str", choices=("torch", "numpy")),
    "channels_last": Knob("str", choices=("auto", True, False)),
    "compile": Knob("str", choices=("none", "model", "step")),
    "deterministic": Knob("bool"),
    "num_threads": _THREADS,
    "processes": Knob("int", low=1, high=4096),
    "sync_batch_norm": Knob("bool"),
    "num_workers": _THREADS,
    "sampling": Knob("str", choices=("shuffled", "balanced")),
    "limit_batches": _COUNT_OR_OFF,
    "overfit_batches": _COUNT_OR_OFF,
    "weights": _TEXT(hint="a .pth or .safetensors file, or IMAGENET1K_V1"),
    "replace_head": Knob("bool"),
    "teacher": _TEXT(hint="a checkpoint of this program"),
    "distill_temperature": _POSITIVE,
    "distill_weight": _PART,
    "freeze": Knob("str", length=0),
    "lr_factors": Knob("float", above=0, high=1e6, nullable=True, by_pattern=True),
    "layer_decay": Knob("float", above=0, high=1),
    "decay_norms_and_biases": Knob("bool"),
    "freeze_batch_norm": Knob("bool"),
    "unfreeze_epoch": _COUNT_OR_OFF,
    "clip_grad_norm": _NOT_NEGATIVE,
    "clip_grad_value": _NOT_NEGATIVE,
    "clip_grad_adaptive": _NOT_NEGATIVE,
    "patience": _COUNT_OR_OFF,
    "min_delta": _NOT_NEGATIVE,
    "patience_on": Knob("str", choices=("accuracy", "loss")),
    "max_minutes": _NOT_NEGATIVE,
    "l1": _NOT_NEGATIVE,
    "l2": _NOT_NEGATIVE,
    "log_interval": _COUNT,
    "eval_every_epochs": _COUNT,
    "best_by": Knob("str", choices=("accuracy", "loss", "balanced_accuracy", "macro_f1")),
    "test": Knob("str", choices=("selected", "all", "none")),
    "stop_epoch": _COUNT_OR_OFF,
    "save_every_steps": _COUNT_OR_OFF,
    "save_every_minutes": _NOT_NEGATIVE,
    "tensorboard": Knob("bool"),
    "histograms": Knob("bool"),
    "profile": Knob("bool"),
    "trust": Knob(
        "str", length=0, pattern=r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", hint="the name of a module"
    ),
    "data.root": _FOLDER,
    "data.download": Knob("bool"),
    "data.mirrors": Knob("str", length=0),
    "data.archive_md5": Knob(
        "str", pattern="[0-9a-fA-F]{32}", hint="an MD5: 32 hex digits, in quotes"
    ),
    "data.verify": Knob("bool"),
    "data.cache_dir": _FOLDER,
    "data.max_pixels": Knob("int", low=1),
    "data.fit": Knob("str", choices=("crop", "squash")),
    "data.resize": Knob("int", low=1, high=2**14, nullable=True),
    "data.pixel_range": Knob("float", length=2, nullable=True),
    "data.on_leak": Knob("str", choices=("warn", "error", "drop")),
    "data.on_bad_image": Knob("str", choices=("error", "skip")),
    "data.group": _TEXT(hint="a regular expression with a group, or a .csv file"),
    "data.test_files": _TEXT(hint="a file"),
    "data.test_size": _SHARE,
    "data.val_size": Knob("float", above=0, below=1),
    "data.split_seed": _COUNT_OR_OFF,
    "data.fraction": Knob("float", above=0, high=1),
    "data.folds": Knob("int", low=0, high=1000),
    "data.fold": _COUNT_OR_OFF,
    "data.shape": Knob("int", low=1, length=3),
    "data.num_classes": Knob("int", low=1, nullable=True),
    "data.mean": Knob("float", length=0),
    "data.std": Knob("float", above=0, length=0),
    "data.hflip": Knob("bool"),
    "data.num_train": _COUNT,
    "data.num_test": _COUNT,
    "data.noise": _PART,
    "data.seed": _COUNT_OR_OFF,
    "augment.flip": _PART,
    "augment.alternate": Knob("bool"),
    "augment.rotation": Knob("float", low=0, high=180),
    "augment.crop_padding": _PART,
    "augment.random_resized_crop": _PART,
    "augment.trivial": _PART,
    "augment.strength": _PART,
    "augment.brightness": _PART,
    "augment.contrast": _PART,
    "augment.saturation": _PART,
    "augment.hue": Knob("float", low=0, high=0.5),
    "augment.cutout": _PART,
    "augment.mixup": Knob("float", low=0, high=100),
    "augment.cutmix": Knob("float", low=0, high=100),
    "augment.mix_probability": _PART,
    "optimizer.lr": Knob("float", above=0, high=sys.float_info.max),  # of precision=fp64, too
    "optimizer.weight_decay": _NOT_NEGATIVE,
    "optimizer.momentum": _SHARE,
    "optimizer.nesterov": Knob("bool"),
    "optimizer.betas": Knob("float", low=0, below=1, length=2),
    "optimizer.amsgrad": Knob("bool"),
    "optimizer.ns_steps": Knob("int", low=1, high=99),
    "optimizer.eps": _POSITIVE,
    "optimizer.alpha": _SHARE,
    "optimizer.rho": _SHARE,
    "optimizer.lr_decay": _NOT_NEGATIVE,
    "scheduler.warmup_steps": _COUNT_OR_OFF,
    "scheduler.first": _NOT_NEGATIVE,
    "scheduler.every": _POSITIVE,
    "scheduler.divide_by": Knob("float", above=1),
    "scheduler.milestones": Knob("float", low=0, length=0),
    "scheduler.gamma": Knob("float", above=0, high=1),
    "scheduler.min_factor": Knob("float", low=0, high=1),
    "scheduler.rise": Knob("float", above=0, below=1),
    "scheduler.start_factor": Knob("float", above=0, high=1),
    "scheduler.end_factor": Knob("float", low=0, high=1),
    "scheduler.anneal": Knob("str", choices=("cosine", "linear", "1-sqrt")),
    "scheduler.decay": Knob("float", above=0, high=1),
    "scheduler.power": Knob("float", above=0, high=100),
    "scheduler.patience": _COUNT_OR_OFF,
    "scheduler.threshold": _NOT_NEGATIVE,
    "average.decay": _SHARE,
    "average.warmup": Knob("bool"),
    "average.start_epoch": _COUNT_OR_OFF,
    "loss.on": Knob("str", choices=("probabilities", "logits")),
    "loss.label_smoothing": _SHARE,
    "loss.class_weights": Knob("float", above=0, length=0, words=("none", "balanced")),
    "loss.gamma": Knob("float", low=0, high=100),
}


# Keys of a sweep, not of its trainings: no part of a run's configuration.
OF_SWEEPS = ("jobs", "sweep", "launcher", "search")
SWEEP_KNOBS: dict[str, Knob] = {
    "jobs": Knob("int", low=0, high=1024),
    "launcher": Knob("str", choices=("local", "slurm", "ray")),
    "sweep.name": _TEXT(pattern=r"[^/.][^/\0]*", hint="the name of a folder below outputs/"),
    "search.strategy": Knob("str", choices=("grid", "random", "optuna", "halving")),
    "search.trials": Knob("int", low=0, high=10_000),
    "search.seed": _COUNT_OR_OFF,
    "search.factor": Knob("int", low=2, high=1000),
    "search.min_epochs": _COUNT,
    "search.prune": Knob("bool"),
}


def check_sweep(config: Mapping[str, Any]) -> None:
    """Hold the keys of a sweep against the table. Raises UserError."""
    check_values({key: config.get(key) for key in OF_SWEEPS}, SWEEP_KNOBS)


def check_values(config: Mapping[str, Any], table: Mapping[str, Knob]) -> None:
    """Raises UserError for the first value that its knob does not allow."""
    for key, knob in table.items():
        value: Any = config
        for part in key.split("."):
            value = value.get(part, _ABSENT) if isinstance(value, Mapping) else _ABSENT
        if value is not _ABSENT and not knob.allows(value):
            raise UserError(f"{key}={format_value(value):.300}: must be {knob.allowed(value)}.")


def check(config: Mapping[str, Any]) -> None:
    """Hold a resolved configuration (plain dicts and lists) against the table. Raises UserError
    that names the first key that does not fit, its value, and what is allowed."""
    known = [*GROUPS, *(key for key in KNOBS if "." not in key)]
    for key in config:
        if key == "experiment":
            raise UserError("The experiment's file must begin with the line: # @package _global_")
        if key not in (*known, *OF_SWEEPS):
            raise UserError(unknown_name_message("key", key, known))
    for key in known:
        if key not in config:
            raise UserError(f"{key}: is missing; every run needs it.")
    for key in GROUPS:
        if not isinstance(config[key], Mapping) or "_target_" not in config[key]:
            raise UserError(
                f"{key}={format_value(config[key]):.300}: must be a choice of that group."
            )
        target = config[key]["_target_"]
        if not isinstance(target, str | None) or (target is None and key != "data"):
            raise UserError(
                f"{key}._target_={format_value(target):.300}: must be the name of a class, such as "
                "models.mlp.MLP."
            )
    check_values(config, KNOBS)
    check_together(config)


_ABSENT = object()


def is_text(key: str) -> bool:
    """True if the value of a key is a text, such as a path, to be taken as it was typed."""
    knob = KNOBS.get(key)
    plain = knob is not None and knob.kind == "str" and not knob.choices and knob.length is None
    return plain or key in OTHER_TEXTS


# model.name is an option of one model alone; the others are Hydra's.
OTHER_TEXTS = (
    "model.name", "sweep.name", "hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir"
)  # fmt: skip


def known_keys() -> set[str]:
    """All that may be typed in front of a =."""
    return {*KNOBS, *GROUPS, *SWEEP_KNOBS, "experiment", "folds", *OTHER_TEXTS}

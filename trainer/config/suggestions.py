"""Suggestions: names of other programs, and what they are called here.

A word that is not known is never guessed at and run: the message names the right one, so that the
next try is a copy of it. Imports nothing heavy.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Sequence

# Other programs' names, lower case, with _ for -. What is the end of exactly one of our keys (lr,
# weight_decay, val_size) needs no entry.
SYNONYMS = {
    "learning_rate": "optimizer.lr", "base_lr": "optimizer.lr", "wd": "optimizer.weight_decay",
    "opt": "optimizer", "optim": "optimizer", "solver": "optimizer",
    "sched": "scheduler", "lr_scheduler": "scheduler", "schedule": "scheduler",
    "warmup": "scheduler.warmup_steps", "criterion": "loss", "loss_fn": "loss",
    "bs": "batch_size", "batch": "batch_size", "batchsize": "batch_size", "mb_size": "batch_size",
    "num_epochs": "epochs", "n_epochs": "epochs", "max_epochs": "epochs", "epoch": "epochs",
    "ep": "epochs", "gpu": "device", "gpus": "device", "cuda": "device", "gpu_id": "device",
    "gpu_ids": "device", "accelerator": "device", "dataset": "data", "datasets": "data",
    "ds": "data", "data_dir": "data.root", "data_path": "data.root", "dataset_path": "data.root",
    "data_root": "data.root", "dir": "data.root", "folder": "data.root", "path": "data.root",
    "train_dir": "data.root", "arch": "model", "architecture": "model", "net": "model",
    "network": "model", "backbone": "model", "model_name": "model", "img_size": "data.shape",
    "image_size": "data.shape", "imgsz": "data.shape", "input_size": "data.shape",
    "input_shape": "data.shape", "size": "data.shape", "n_classes": "data.num_classes",
    "nc": "data.num_classes", "classes": "data.num_classes", "val_split": "data.val_size",
    "validation_split": "data.val_size", "workers": "num_workers", "n_workers": "num_workers",
    "j": "num_workers", "threads": "num_threads", "random_seed": "seed", "manual_seed": "seed",
    "random_state": "seed", "pretrained": "weights", "checkpoint": "weights", "ckpt": "weights",
    "init_from": "weights", "amp": "precision", "fp16": "precision", "bf16": "precision",
    "half": "precision", "dtype": "precision", "augmentation": "augment", "aug": "augment",
    "augmentations": "augment", "grad_clip": "clip_grad_norm", "clip_grad": "clip_grad_norm",
    "max_norm": "clip_grad_norm", "gradient_clip_val": "clip_grad_norm", "jit": "compile",
    "torch_compile": "compile", "smoothing": "loss.label_smoothing", "config": "experiment",
    "recipe": "experiment", "exp": "experiment", "output": "hydra.run.dir",
    "output_dir": "hydra.run.dir", "out": "hydra.run.dir", "out_dir": "hydra.run.dir",
    "save_dir": "hydra.run.dir", "save_path": "hydra.run.dir", "log_dir": "hydra.run.dir",
    "logdir": "hydra.run.dir", "run_dir": "hydra.run.dir", "limit_train_batches": "limit_batches",
    "print_freq": "log_interval", "log_every": "log_interval",
}  # fmt: skip

EXAMPLES = {
    "device": "cuda:0", "precision": "bf16", "data.shape": "[3,64,64]", "data": "image_folder",
    "weights": "IMAGENET1K_V1", "compile": "step",
}  # fmt: skip

OTHER_COMMANDS = {
    "eval": "evaluate", "test": "evaluate", "validate": "evaluate", "val": "evaluate",
    "infer": "predict", "inference": "predict", "classify": "predict", "continue": "resume",
    "restart": "resume", "convert": "export", "import": "import-weights", "show": "report",
    "results": "report", "ls": "report", "list": "report", "info": "summary",
}  # fmt: skip
TRAINING = ("train", "fit", "run", "training", "start")

# The families of torchvision's classifiers that are no model of ours.
OF_TORCHVISION = re.compile(
    r"(densenet|efficientnet|mobilenet|convnext|vit_|swin|regnet|mnasnet|shufflenet|squeezenet"
    r"|inception|maxvit|wide_resnet|resnext)\w*"
)


def meant(name: str, known: Iterable[str]) -> str | None:
    """The known key that a word means which is none: another program's name for it, or the last
    part of exactly one key."""
    plain = name.lower().lstrip("-").replace("-", "_")
    known = set(known)
    if plain in known:
        return plain
    if SYNONYMS.get(plain) in known:
        return SYNONYMS[plain]
    ends = [key for key in known if key.rpartition(".")[2] == plain]
    return ends[0] if len(ends) == 1 else None


def with_value(key: str) -> str:
    """A key as it is written, with a value where other programs write another kind of it."""
    return f"{key}={EXAMPLES.get(key, '...')}"


def of_choice(group: str, name: str) -> str:
    """Line to type for a choice that a group does not have; empty if its meaning is not plain."""
    if group == "model" and OF_TORCHVISION.fullmatch(name.lower()):
        return f"torchvision's go by name: model=torchvision model.name={name.lower()}"
    if group == "data" and name and os.path.isdir(os.path.expanduser(name)):
        return f"Images of your own: {shlex.join(['data=image_folder', f'data.root={name}'])}"
    return ""


def of_option(argv: Sequence[str], known: Iterable[str]) -> str:
    """Line to type for `--epochs 3` or `--lr=0.1`; empty if they mean nothing."""
    known = set(known)
    for place, word in enumerate(argv):
        if not word.startswith("-") or word == "--":
            continue
        option, equals, value = word.partition("=")
        key = meant(option, known)
        following = argv[place + 1 : place + 2]
        if not equals and following and not following[0].startswith("-"):
            value = following[0]
        if key:
            value = value if value and "=" not in value else "..."
            return f"{word}: keys stand without dashes: {shlex.quote(f'{key}={value}')}"
    return ""


def of_command(name: str, argv: Sequence[str]) -> str:
    """The line that a command means which is none; empty if it means nothing."""
    start = ["python", "-m", "trainer"]
    plain = name.lower().replace("_", "-")
    if plain in TRAINING:
        return f"Training needs no command: {shlex.join([*start, *argv])}"
    if plain in ("sweep", "multirun"):
        return f"A sweep: {shlex.join([*start, '--multirun', *argv])}"
    if plain in ("version", "help"):
        return f"There is an option: {shlex.join([*start, f'--{plain}'])}"
    if plain in OTHER_COMMANDS:
        return f"Did you mean this? {shlex.join([*start, OTHER_COMMANDS[plain], *argv])}"
    return ""

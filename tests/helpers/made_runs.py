"""Folders of runs as trainings leave them, made without training: for tests of what reads them."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

MODELS = {
    "mlp": {"_target_": "models.mlp.MLP", "hidden": [128, 64], "dropout": 0.0},
    "lenet5": {"_target_": "models.lenet5.LeNet5", "activation": "relu", "dropout": 0.0},
}
OPTIMIZERS = {
    "sgd": {"_target_": "torch.optim.SGD", "lr": 0.05, "weight_decay": 5e-4, "momentum": 0.9},
    "adam": {"_target_": "torch.optim.Adam", "lr": 1e-3, "weight_decay": 0.0, "eps": 1e-8},
}
CHOICES = {"model": "mlp", "data": "mnist_5k", "optimizer": "adam", "loss": "cross_entropy",
           "scheduler": "cosine", "augment": "none"}  # fmt: skip


def config_of(words: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """What Hydra would compose of these overrides, and its choices."""
    values = dict(word.lstrip("+").split("=", 1) for word in words)
    choices = {group: values.get(group, name) for group, name in CHOICES.items()}
    config: dict[str, Any] = {
        "epochs": 20, "batch_size": 64, "seed": 0, "test": "selected",
        "data": {"_target_": f"data.{choices['data']}", "val_size": 0.1, "split_seed": 0},
        "scheduler": {"_target_": f"trainer.schedules.{choices['scheduler']}"},
        "model": dict(MODELS[choices["model"]]),
        "optimizer": dict(OPTIMIZERS[choices["optimizer"]]),
    }  # fmt: skip
    for key, value in values.items():
        *path, last = key.split(".")
        at = config
        for part in path:
            at = at.setdefault(part, {})
        if key not in choices:
            at[last] = yaml.safe_load(value)
    return config, choices


def curves(best: float, epochs: int, seed: int, diverges: bool) -> Iterator[dict[str, Any]]:
    """Rows of metrics.jsonl of a training that rises to an accuracy; or whose loss explodes."""
    draw, share = random.Random(seed), best
    for epoch in range(1, epochs + 1):
        share = best - (best - 0.3) * math.exp(-6 * epoch / epochs) + draw.gauss(0, 0.003)
        loss = 2.5 * (1 - share) + 0.02
        if diverges:
            share, loss = 0.1 + draw.gauss(0, 0.01), 2.3 * 3.0**epoch
        for split, factor in (("train", 0.8), ("val", 1.0)):
            yield {"step": epoch * 57, "epoch": epoch, "split": split, "loss": loss * factor,
                   "accuracy": min(1.0, max(0.0, 1 - (1 - share) * factor)),
                   "lr": 0.01 * (1 - epoch / epochs), "images_per_s": 20_000.0}  # fmt: skip


def make_run(
    folder: Path, words: Sequence[str], val: float = 0.9, epochs: int = 20, seed: int = 0,
    diverges: bool = False, classes: int = 0, **summary: Any,
) -> Path:  # fmt: skip
    """A finished run.

    Args:
        val: accuracy to which it rises. classes: in its findings.json; 0: it has none.
        summary: entries of summary.json that differ.
    """
    config, choices = config_of(words)
    (folder / ".hydra").mkdir(parents=True)
    noted = {"hydra": {"runtime": {"choices": choices}}}
    for name, content in (("overrides", list(words)), ("config", config), ("hydra", noted)):
        (folder / ".hydra" / f"{name}.yaml").write_text(yaml.safe_dump(content))
    rows = list(curves(val, epochs, seed, diverges))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    best = max((row for row in rows if row["split"] == "val"), key=lambda row: row["accuracy"])
    found = {
        "status": "finished", "reason": None, "val_accuracy": best["accuracy"],
        "val_loss": best["loss"], "num_val_images": 400, "test_accuracy": None, "test_loss": None,
        "num_test_images": None, "dataset": "d1", "held_out": "test", "best_epoch": best["epoch"],
        "epochs": epochs, "steps": epochs * 57, "num_parameters": 109_386, "train_s": 3.0 + seed,
        "images_per_s": 20_000.0, "weights_sha256": f"{folder.name}-{best['accuracy']}",
        "checkpoint": str(folder / "checkpoints" / "best.pth"),
    }  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(found | summary))
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "best.pth").touch()
    if classes:
        (folder / "findings.json").write_text(json.dumps(findings(classes, seed)))
    return folder


def findings(classes: int, seed: int) -> dict[str, Any]:
    draw = random.Random(seed)
    cells = [[k, k, 30 + draw.randrange(10)] for k in range(classes)]
    cells += [[k, (k + 3) % classes, 1 + draw.randrange(6)] for k in range(0, classes, 2)]
    of_split = {"confusion_cells": cells, "top5": 0.99, "calibration_error": 0.02, "mistakes": []}
    return {"epoch": 3, "classes": [f"class {k}" for k in range(classes)], "val": of_split}


def make_sweep(folder: Path, axes: dict[str, Sequence[object]], seeds: int = 1) -> list[Path]:
    """A job for each combination and seed, in folders that say what was swept. A learning rate far
    from 0.02 is worse, one above 1 diverges."""
    made = []
    for values in itertools.product(*axes.values(), range(seeds)):
        *others, seed = values
        words = [f"{key}={value}" for key, value in zip(axes, others, strict=True)]
        words += [f"seed={seed}"] if seeds > 1 else []
        lr = next((float(str(v)) for k, v in zip(axes, others, strict=False) if k.endswith("lr")),
                  0.02)  # fmt: skip
        others_cost = 0.01 * (sum(map(ord, str(others[0]))) % 5) / 5 if others else 0.0
        val = 0.96 - 0.03 * abs(math.log10(lr / 0.02)) - others_cost
        name = "_".join([str(len(made)), *words]).replace("/", "-")
        made.append(make_run(folder / name, [*words, "epochs=20"], val, seed=len(made),
                             diverges=lr > 1))  # fmt: skip
    return made

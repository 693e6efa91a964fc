"""Dataset of a run: loaded, its size known before, batches for evaluation."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from data.loading.batches import Batches, shuffled
from data.loading.part import Part
from data.loading.preprocess import Preprocess, enlarged
from data.types import Dataset, Split
from trainer.config.targets import instantiate_group, locate
from trainer.errors import UserError
from trainer.text.values import count

Shape = tuple[int, int, int]  # (C, H, W)


def load_data(options: Mapping[str, Any]) -> Dataset:
    """Dataset of the options data.*, on the CPU. The last one is cached, since `check` and `build`
    need the same."""
    return _load_data(OmegaConf.to_yaml(OmegaConf.create(dict(options))))


@functools.lru_cache(maxsize=1)
def _load_data(options: str) -> Dataset:
    return instantiate_group("data", OmegaConf.create(options))  # type: ignore[arg-type]


def class_names(options: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Class names of a dataset before it is loaded, from the function `class_names` in the loader's
    module, which takes the same keys; None if there is no such function. Raises UserError."""
    names = _of_loader("class_names", options)
    return None if names is None else tuple(names)


def load_whole(options: Mapping[str, Any]) -> Dataset | None:
    """Dataset with all its images in the test split, from the function `load_whole` in the loader's
    module, which takes the same keys; None if there is no such function, or the dataset has a test
    split of its own. For a model that was trained on none of the images. Raises UserError."""
    return _of_loader("load_whole", options)


def fix_test(options: Mapping[str, Any], output: str | None) -> tuple[Path, int]:
    """Write the drawn test split of a dataset as a list of files, from the function `fix_test` in
    the loader's module. Returns the list's path and its number of images. Raises UserError."""
    written = _of_loader("fix_test", {**options, "output": output})
    if written is None:
        raise UserError("--fix-test: the files of this dataset say its test split, which stays.")
    path, count = written
    return path, count


def _of_loader(name: str, options: Mapping[str, Any]) -> Any:
    """Result of the function of this name in the loader's module; None if there is none."""
    module = str(options["_target_"]).rpartition(".")[0]
    locate("data", options["_target_"])
    if not inspect.isfunction(getattr(sys.modules[module], name, None)):
        return None
    return instantiate_group("data", {**options, "_target_": f"{module}.{name}"})


def known_size(options: Mapping[str, Any]) -> tuple[Shape, int] | None:
    """Shape (C, H, W) and number of classes from the configuration or the class names; None if they
    are known only once the dataset is loaded."""
    num_classes, shape = options.get("num_classes"), options.get("shape")
    if shape is None:
        return None
    if num_classes is None:
        names = class_names(options)
        if names is None:
            return None
        num_classes = len(names)
    channels, height, width = shape
    return (channels, height, width), num_classes


def announced_size(options: Mapping[str, Any]) -> tuple[Shape, int]:
    """Shape (C, H, W) and number of classes; loads the dataset only if it must."""
    size = known_size(options)
    if size is None:
        dataset = load_data(options)
        return dataset.shape, len(dataset.classes)
    return size


def first_batches(config: Mapping[str, Any], dataset: Dataset) -> Dataset:
    """The dataset with the images of the first `overfit_batches` batches of the first epoch as both
    its train and its validation split; 0: the dataset."""
    if not config["overfit_batches"]:
        return dataset
    order = shuffled(len(dataset.train), config["seed"], 0)
    chosen = dataset.train.at(order[: config["overfit_batches"] * config["batch_size"]])
    note = (
        f"overfit_batches={config['overfit_batches']}: {count(len(chosen), 'image')} of the train "
        "split are trained on and validated on"
    )
    fewer = replace(dataset, train=chosen, val=chosen, notes=(*dataset.notes, note))
    vars(fewer)["fingerprint"] = dataset.fingerprint  # the same data, of which it takes a part
    return fewer


def evaluation_batches(
    config: Mapping[str, Any],
    preprocess: Preprocess,
    device: torch.device,
    split: Split,
    resident: bool = True,
    num_workers: int = 0,
    part: Part | None = None,
) -> Batches:
    """Batches of a split for evaluation: 256 small images, fewer as they grow, so that the
    activations of a deep model at 224 px take less than two gigabytes."""
    height, width = enlarged(split.images.shape[-2:], preprocess.min_size)
    batch_size = max(1, min(256, 2**20 // (height * width)))
    return Batches(
        split, batch_size, preprocess, device, limit=config["limit_batches"],
        resident=resident, num_workers=num_workers, part=part,
    )  # fmt: skip

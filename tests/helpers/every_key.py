"""A row for every key: it with another value, and the words that it needs beside it; and what can
be seen of what came out of a command, to tell whether the key had a part in it."""

from __future__ import annotations

import dataclasses
import functools
import re
import shutil
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from data import mnist
from data.cifar import load
from data.types import DataError
from tests.helpers.commands import Finished, train
from trainer import checkpoints
from trainer.config import choices, knobs

Dispatch = Callable[..., Finished]
Words = list[str]
Outcome = tuple[int, Any]


def options(*groups: str) -> set[str]:
    """Every option that a YAML of these groups has, with its group."""
    return {
        f"{group}.{key}"
        for group in groups
        for name in choices.names(group)
        for key in choices.options(group, name)
        if not key.startswith("_")
    }


ALL_KEYS = {*knobs.KNOBS, *knobs.GROUPS, *options(*knobs.GROUPS)}

TINY = [
    "data=synthetic", "data.num_train=80", "data.num_test=40", "data.num_classes=4",
    "data.shape=[3,8,8]", "batch_size=16", "epochs=2", "num_threads=1", "tensorboard=false",
]  # fmt: skip
IMAGES = ["data=image_folder", "data.root={images}", "data.shape=[3,8,8]", "data.num_classes=null",
          "data.val_size=0.2", "data.test_size=0.2"]  # fmt: skip
CIFAR, MNIST = ["data=cifar10", "data.root={empty}"], ["data=mnist", "data.root={empty}"]
MD5 = "0123456789abcdef0123456789abcdef"

# Of each key: the words that it needs beside it, and it with another value.
ROWS: dict[str, tuple[Words, str]] = {
    "epochs": ([], "epochs=3"),
    "batch_size": ([], "batch_size=8"),
    "micro_batch_size": ([], "micro_batch_size=4"),
    "seed": ([], "seed=1"),
    "device": ([], "device=cuda:77"),
    "precision": ([], "precision=bf16"),
    "layers": ([], "layers=numpy"),
    "channels_last": ([], "channels_last=true"),
    "compile": ([], "compile=step"),
    "deterministic": ([], "deterministic=true"),
    "num_threads": ([], "num_threads=2"),
    "processes": ([], "processes=9"),  # more than batch_size=16 is enough for
    "sync_batch_norm": ([], "sync_batch_norm=false"),
    "num_workers": ([], "num_workers=0"),
    "sampling": ([], "sampling=balanced"),
    "limit_batches": ([], "limit_batches=1"),
    "overfit_batches": ([], "overfit_batches=1"),
    "weights": ([], "weights={best}"),
    "replace_head": (["weights={best}", "data.num_classes=5"], "replace_head=true"),
    "teacher": ([], "teacher={best}"),
    "distill_temperature": (["teacher={best}"], "distill_temperature=2"),
    "distill_weight": (["teacher={best}"], "distill_weight=0.5"),
    "freeze": ([], "freeze=[*bias]"),
    "lr_factors": ([], "lr_factors=[[*bias,0.1]]"),
    "layer_decay": ([], "layer_decay=0.5"),
    "decay_norms_and_biases": (["optimizer=sgd"], "decay_norms_and_biases=false"),
    "freeze_batch_norm": (["model=resnet18", "freeze=['*bn*']"], "freeze_batch_norm=false"),
    "unfreeze_epoch": (["freeze=[*bias]"], "unfreeze_epoch=2"),
    "clip_grad_norm": ([], "clip_grad_norm=1"),
    "clip_grad_value": ([], "clip_grad_value=0.1"),
    "clip_grad_adaptive": ([], "clip_grad_adaptive=0.01"),
    "log_interval": ([], "log_interval=7"),
    "eval_every_epochs": ([], "eval_every_epochs=2"),
    "patience": ([], "patience=1"),
    "min_delta": (["patience=1"], "min_delta=0.1"),
    "patience_on": (["patience=1"], "patience_on=loss"),
    "max_minutes": ([], "max_minutes=9"),
    "l1": ([], "l1=0.1"),
    "l2": ([], "l2=0.1"),
    "best_by": ([], "best_by=loss"),
    "test": ([], "test=none"),
    "stop_epoch": ([], "stop_epoch=1"),
    "save_every_steps": ([], "save_every_steps=3"),
    "save_every_minutes": ([], "save_every_minutes=1"),
    "tensorboard": ([], "tensorboard=true"),
    "histograms": (["tensorboard=true"], "histograms=true"),
    "profile": ([], "profile=true"),
    "trust": ([], "trust=[my_nets]"),
    "model": ([], "model=lenet_caffe"),
    "data": ([], "data=mnist_5k"),
    "augment": ([], "augment=basic"),
    "optimizer": ([], "optimizer=sgd"),
    "scheduler": ([], "scheduler=step"),
    "loss": ([], "loss=mse"),
    "average": ([], "average=ema"),
    "average.decay": (["average=ema"], "average.decay=0.5"),
    "average.warmup": (["average=ema"], "average.warmup=false"),
    "average.start_epoch": (["average=ema"], "average.start_epoch=1"),
    "data.root": (IMAGES, "data.root={others}"),
    "data.download": (CIFAR, "data.download=false"),
    "data.mirrors": (CIFAR, "data.mirrors=[http://127.0.0.1:9/]"),
    "data.archive_md5": (CIFAR, f"data.archive_md5='{MD5}'"),
    "data.file_md5": (MNIST, f"data.file_md5.train-images-idx3-ubyte='{MD5}'"),
    "data.verify": (["data=cifar10", "data.root={junk}"], "data.verify=false"),
    "data.cache_dir": (IMAGES, "data.cache_dir=packs"),
    "data.max_pixels": ([*IMAGES, "data.cache_dir=packs"], "data.max_pixels=10"),
    "data.fit": ([*IMAGES, "data.root={wide}"], "data.fit=squash"),
    "data.resize": (IMAGES, "data.resize=10"),
    "data.pixel_range": ([*IMAGES, "data.root={deep}"], "data.pixel_range=[0,4000]"),
    "data.on_bad_image": ([*IMAGES, "data.root={bad}"], "data.on_bad_image=skip"),
    "data.on_leak": ([*IMAGES, "data.root={twice}"], "data.on_leak=drop"),
    "data.test_size": (IMAGES, "data.test_size=0.4"),
    "data.val_size": ([], "data.val_size=0.4"),
    "data.split_seed": ([], "data.split_seed=2"),
    "data.group": (IMAGES, r"data.group=(class_\d/\d)"),
    "data.test_files": (IMAGES, "data.test_files={test_files}"),
    "data.fraction": ([], "data.fraction=0.5"),
    "data.folds": ([], "data.folds=3"),
    "data.fold": (["data.folds=3"], "data.fold=1"),
    "data.shape": ([], "data.shape=[3,9,9]"),
    "data.num_classes": ([], "data.num_classes=5"),
    "data.mean": ([], "data.mean=[0.1]"),
    "data.std": ([], "data.std=[0.7]"),
    "data.hflip": ([], "data.hflip=true"),
    "data.num_train": ([], "data.num_train=100"),
    "data.num_test": ([], "data.num_test=50"),
    "data.noise": ([], "data.noise=0.1"),
    "data.seed": ([], "data.seed=3"),
    "augment.flip": (["data.hflip=true"], "augment.flip=0.3"),
    "augment.alternate": (["data.hflip=true", "augment.flip=0.5"], "augment.alternate=true"),
    "augment.rotation": ([], "augment.rotation=5"),
    "augment.crop_padding": ([], "augment.crop_padding=0.3"),
    "augment.random_resized_crop": ([], "augment.random_resized_crop=0.3"),
    "augment.trivial": ([], "augment.trivial=0.3"),
    "augment.strength": (["augment.rotation=10"], "augment.strength=0.3"),
    "augment.brightness": ([], "augment.brightness=0.3"),
    "augment.contrast": ([], "augment.contrast=0.3"),
    "augment.saturation": ([], "augment.saturation=0.3"),
    "augment.hue": ([], "augment.hue=0.3"),
    "augment.cutout": ([], "augment.cutout=0.3"),
    "augment.mixup": ([], "augment.mixup=0.3"),
    "augment.cutmix": ([], "augment.cutmix=0.3"),
    "augment.mix_probability": (["augment.mixup=1"], "augment.mix_probability=0.3"),
    "optimizer.lr": ([], "optimizer.lr=0.3"),
    "optimizer.weight_decay": ([], "optimizer.weight_decay=0.3"),
    "optimizer.momentum": (["optimizer=sgd"], "optimizer.momentum=0.3"),
    "optimizer.nesterov": (["optimizer=sgd"], "optimizer.nesterov=false"),
    "optimizer.betas": ([], "optimizer.betas=[0.3,0.9]"),
    "optimizer.amsgrad": ([], "optimizer.amsgrad=true"),
    "optimizer.ns_steps": (["optimizer=muon"], "optimizer.ns_steps=3"),
    "optimizer.eps": ([], "optimizer.eps=0.3"),
    "optimizer.alpha": (["optimizer=rmsprop"], "optimizer.alpha=0.3"),
    "optimizer.rho": (["optimizer=adadelta"], "optimizer.rho=0.3"),
    "optimizer.lr_decay": (["optimizer=adagrad"], "optimizer.lr_decay=0.3"),
    "scheduler.warmup_steps": ([], "scheduler.warmup_steps=1"),
    "scheduler.first": (["scheduler=step"], "scheduler.first=3"),
    "scheduler.every": (["scheduler=step"], "scheduler.every=3"),
    "scheduler.divide_by": (["scheduler=step"], "scheduler.divide_by=3"),
    "scheduler.milestones": (["scheduler=multistep"], "scheduler.milestones=[3]"),
    "scheduler.gamma": (["scheduler=exponential"], "scheduler.gamma=0.3"),
    "scheduler.min_factor": ([], "scheduler.min_factor=0.3"),
    "scheduler.rise": (["scheduler=one_cycle"], "scheduler.rise=0.5"),
    "scheduler.start_factor": (["scheduler=one_cycle"], "scheduler.start_factor=0.3"),
    "scheduler.end_factor": (["scheduler=one_cycle"], "scheduler.end_factor=0.3"),
    "scheduler.anneal": (["scheduler=one_cycle"], "scheduler.anneal=linear"),
    "scheduler.decay": (["scheduler=wsd"], "scheduler.decay=0.5"),
    "scheduler.power": (["scheduler=polynomial"], "scheduler.power=2"),
    "scheduler.patience": (["scheduler=plateau"], "scheduler.patience=1"),
    "scheduler.threshold": (["scheduler=plateau"], "scheduler.threshold=0.3"),
    "loss.on": (["loss=mse"], "loss.on=logits"),
    "loss.label_smoothing": ([], "loss.label_smoothing=0.3"),
    "loss.class_weights": ([], "loss.class_weights=[1,2,3,4]"),
    "loss.gamma": (["loss=focal"], "loss.gamma=1"),
    "model.shape": ([], "model.shape=[3,9,9]"),
    "model.num_classes": ([], "model.num_classes=5"),
    "model.init": ([], "model.init=xavier"),
    "model.hidden": ([], "model.hidden=[7]"),
    "model.activation": ([], "model.activation=tanh"),
    "model.dropout": ([], "model.dropout=0.3"),
    "model.variant": (["model=alexnet"], "model.variant=paper"),
    "model.lrn": (["model=alexnet"], "model.lrn=true"),
    "model.batch_norm": (["model=googlenet"], "model.batch_norm=true"),
    "model.branch5x5": (["model=googlenet"], "model.branch5x5=3"),
    "model.aux_pool": (["model=googlenet", "data.shape=[1,224,224]"], "model.aux_pool=adaptive"),
    "model.depth": (["model=resnet18"], "model.depth=34"),
    "model.stem": (["model=resnet18"], "model.stem=imagenet"),
    "model.width": (["model=resnet18"], "model.width=16"),
    "model.stride_on": (["model=resnet50"], "model.stride_on=1x1"),
    "model.zero_init_last": (["model=resnet18"], "model.zero_init_last=false"),
    "model.stochastic_depth": (["model=resnet18"], "model.stochastic_depth=0.3"),
    "model.head": (["model=vgg11"], "model.head=imagenet"),
    "model.widths": (["model=airbench"], "model.widths=[4,8,8]"),
    "model.kernel": (["model=airbench"], "model.kernel=3"),
    "model.stride": (["model=airbench"], "model.stride=2"),
    "model.whitening": (["model=airbench"], "model.whitening=false"),
    "model.identity": (["model=airbench"], "model.identity=false"),
    "model.views": (["model=airbench"], "model.views=shifts"),
    "model.name": (["model=torchvision"], "model.name=squeezenet1_1"),
}  # fmt: skip


# --- what can be seen of a thing ------------------------------------------------------------------


def traits(thing: Any, depth: int = 8, seen: frozenset[int] = frozenset()) -> Any:
    """All that a tree of objects holds, as plain values that compare; but not what time it is."""
    if id(thing) in seen or depth == 0:
        return type(thing).__name__
    if isinstance(thing, str | int | float | bool | None | torch.device | torch.dtype | Path):
        return repr(thing)
    if isinstance(thing, torch.memory_format):
        return str(thing)
    if isinstance(thing, torch.Tensor):
        raw = thing.detach().cpu().contiguous().flatten().view(torch.uint8)
        return str(thing.dtype), tuple(thing.shape), thing.requires_grad, crc(raw.numpy())
    if isinstance(thing, np.ndarray):
        return str(thing.dtype), thing.shape, crc(thing)
    within = seen | {id(thing)}
    if isinstance(thing, torch.nn.Module):
        weights = {name: traits(value) for name, value in thing.state_dict().items()}
        trained = [name for name, value in thing.named_parameters() if value.requires_grad]
        own = {k: repr(v) for k, v in vars(thing).items() if k[0] != "_"}
        return repr(thing), own, weights, trained
    if isinstance(thing, torch.optim.Optimizer):
        shown = [{k: v for k, v in group.items() if k != "params"} for group in thing.param_groups]
        return type(thing).__name__, repr(shown)
    if isinstance(thing, Mapping):
        kept = {str(k): v for k, v in thing.items() if k != "saved_at"}
        return {k: traits(v, depth - 1, within) for k, v in kept.items()}
    if isinstance(thing, list | tuple | set):
        return [traits(value, depth - 1, within) for value in thing]
    if isinstance(thing, functools.partial):
        return traits((thing.func, thing.args, thing.keywords), depth - 1, within)
    if dataclasses.is_dataclass(thing) or hasattr(thing, "__dict__"):
        name = getattr(thing, "__qualname__", type(thing).__name__)
        own = {
            key: value for key, value in vars(thing).items()
            if not isinstance(getattr(type(thing), key, None), functools.cached_property)
        }  # fmt: skip
        return name, traits(own, depth - 1, within)
    return type(thing).__name__


def crc(values: Any) -> int:
    return zlib.crc32(np.ascontiguousarray(values).tobytes())


KNOWN: dict[Any, Outcome] = {}  # of words without the key, which many rows share


def known(outcome: Callable[..., Outcome], *words: Any, of: str, **how: Any) -> Outcome:
    """What came out of these words, computed once."""
    key = (of, *words, *how.items())
    if key not in KNOWN:
        KNOWN[key] = outcome(*words, **how)
    return KNOWN[key]


# What is said where another net or other data were made, as the key asked.
OTHER = r"not fit the model|are not those that the training started with"


def changes(key: str, before: Outcome, after: Outcome) -> None:
    """The key has changed something, or is refused by name; it has changed something, too, where
    the net that it makes is not the one that the weights are of."""
    assert {before[0], after[0]} <= {0, 2}, (before, after)
    assert after != before, f"{key} is taken and ignored"
    if before[0] == 0 and after[0] == 2:
        obeyed = key.startswith(("model", "data")) and re.search(OTHER, after[1])
        assert obeyed or key in after[1], after


# --- where things lie -----------------------------------------------------------------------------


def make_places(top: Path) -> dict[str, Path]:
    """The folders and files that rows name in braces."""
    for name in ("images", "others", "deep", "bad", "wide"):
        for label in range(4):
            folder = top / name / f"class_{label}"
            folder.mkdir(parents=True)
            for number in range(10 + (name == "others")):
                pixels = np.full((12, 24 if name == "wide" else 12), 20 * number + label, np.uint8)
                pixels[:, 0] = 255
                image = Image.fromarray(pixels if name != "deep" else pixels.astype(np.uint16) * 9)
                image.save(folder / f"{number}.png")
    shutil.copytree(top / "images", top / "twice")
    for number in range(10):  # some of these fall into another split than what they are equal to
        shutil.copy(
            top / "twice/class_0" / f"{number}.png", top / "twice/class_0" / f"{number}c.png"
        )
    (top / "bad" / "class_0" / "3.png").write_bytes(b"no image")
    listed = (f"class_{label}/{(7 * label) % 10}.png" for label in range(4))
    (top / "test_files.txt").write_text("\n".join(listed))
    for label in range(3):
        shutil.copytree(top / "images" / f"class_{label}", top / "three" / f"other_{label}")
        shutil.copytree(top / "images" / f"class_{label}", top / "renamed" / f"other_{label}")
    shutil.copytree(top / "images" / "class_3", top / "renamed" / "other_3")
    (top / "empty").mkdir()
    (top / "junk" / "cifar-10-batches-py").mkdir(parents=True)
    for name in (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch", "batches.meta"):
        (top / "junk" / "cifar-10-batches-py" / name).write_bytes(b"junk")
    (top / "archive").mkdir()
    (top / "archive" / "cifar-10-python.tar.gz").write_bytes(b"junk")
    best = train(top, *TINY, "epochs=1").best
    torch.save(torch.load(best, weights_only=True)["model"], top / "bare.pth")
    foreign = checkpoints.read(best)
    foreign["config"] = foreign["config"].replace("models.mlp.MLP", "my_nets.Net")
    checkpoints.write(top / "foreign.pth", foreign)
    return {path.stem: path for path in top.iterdir()} | {"best": best}


def placed(words: Words, places: Mapping[str, Path]) -> Words:
    """The words with the places that they name in braces."""
    return [re.sub(r"\{(\w+)\}", lambda found: str(places[found[1]]), word) for word in words]


def joined(words: Words, *more: str) -> Words:
    """With more words: a data set that is named there takes the place of the other, its keys
    included."""
    if any(word.startswith("data=") for word in more):
        words = [word for word in words if not re.match(r"data[.=]", word)]
    return [*words, *more]


def refuse_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would be fetched, and from where, is said instead."""

    def fetch(root: Path, md5: Any, mirrors: Any, *_: Any) -> None:
        raise DataError(f"would fetch {md5} from {mirrors}")

    monkeypatch.setattr(load, "fetch", fetch)
    monkeypatch.setattr(mnist, "fetch", fetch)

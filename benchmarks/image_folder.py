"""A folder of JPEGs: torchvision's ImageFolder and DataLoader, and ours, side by side.

    python -m benchmarks.image_folder [--repeats 5] [--model mlp]

2,000 images of 500 x 375 of ten classes, brought to 64 x 64, batch 64, Adam. Both sides train the
same small net and take turns in one run, from the second epoch on: theirs has started its two
workers and keeps them, ours has packed the images. Theirs decodes, resizes, crops and normalises
each image in each epoch, as its documentation shows. Loading alone is the same without the net;
the larger the net, the less of the difference is left.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from benchmarks.training_loop import usual_epoch
from trainer.builders import datasets, networks, training_run
from trainer.config import compose
from trainer.system.signals import StopSignals
from trainer.training import loop

NUM_CLASSES, BATCH_SIZE, SIDE, NUM_WORKERS = 10, 64, 64, 2
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def write_jpegs(root: Path, num_images: int) -> None:
    """train/<class>/<number>.jpg, smooth colours with fine grain, 50 kB each as photographs have;
    of each class one more in val/ and test/."""
    generator = np.random.default_rng(0)
    places = [("train", i) for i in range(num_images)]
    places += [(part, i) for part in ("val", "test") for i in range(NUM_CLASSES)]
    for part, i in places:
        path = root / part / f"class {i % NUM_CLASSES}" / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(generator.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC))
        grain = generator.normal(0, 6, smooth.shape)
        Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)).save(path, quality=88)


def their_batches(root: Path) -> DataLoader[Any]:
    transform = transforms.Compose([
        transforms.Resize(SIDE), transforms.CenterCrop(SIDE), transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ])  # fmt: skip
    return DataLoader(
        ImageFolder(str(root / "train"), transform), batch_size=BATCH_SIZE, shuffle=True,
        num_workers=NUM_WORKERS, persistent_workers=True,
    )  # fmt: skip


def their_epoch(batches: DataLoader[Any], config: dict[str, Any]) -> float:
    """Seconds of an epoch as tutorials write it."""
    model = networks.make_model(config, (3, SIDE, SIDE), NUM_CLASSES)
    return usual_epoch(model, batches)


def our_config(root: Path, model: str) -> dict[str, Any]:
    words = ["data=image_folder", f"data.root='{root}'", f"data.shape=[3,{SIDE},{SIDE}]",
             f"model={model}", f"batch_size={BATCH_SIZE}", "epochs=1"]  # fmt: skip
    composer = compose.Composer(compose.parse(words))
    return compose.plain(composer.jobs(composer.master())[0])


def our_run(config: dict[str, Any], use: Callable[[Any], float]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        run = training_run.build(config, Path(folder), StopSignals())
        seconds = use(run)
        run.close()
    return seconds


def our_epoch(run: Any) -> float:
    """Seconds of the training epoch, as the run reports them."""
    loop.fit(run)
    return run.progress.train_s


def loading_alone(batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    start = time.perf_counter()
    for images, _ in batches:
        assert images.shape[1:] == (3, SIDE, SIDE)
    return time.perf_counter() - start


def show(what: str, theirs: list[float], ours: list[float], num_images: int) -> None:
    for name, times in (("ImageFolder", theirs), ("ours", ours)):
        middle = statistics.median(times)
        print(f"{what:<14} {name:<12} {middle:7.3f} s (from {min(times):.3f} to {max(times):.3f})"
              f"   {num_images / middle:>9,.0f} images/s")  # fmt: skip
    ratio = statistics.median(their / our for their, our in zip(theirs, ours, strict=True))
    print(f"{what:<14} {ratio:.1f} times as fast")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--model", default="mlp", help="a choice of configs/model")
    args = parser.parse_args()
    default_threads = torch.get_num_threads()
    training: tuple[list[float], list[float]] = ([], [])
    loading: tuple[list[float], list[float]] = ([], [])
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_jpegs(root, args.images)
        config, theirs = our_config(root, args.model), their_batches(root)
        start = time.perf_counter()
        datasets.load_data(config["data"])
        print(f"packed at first use in {time.perf_counter() - start:.1f} s")
        loading_alone(theirs)  # the first epoch of both, which is not counted
        our_run(config, our_epoch)
        for _ in range(args.repeats):
            torch.set_num_threads(default_threads)
            training[0].append(their_epoch(theirs, config))
            loading[0].append(loading_alone(theirs))
            training[1].append(our_run(config, our_epoch))
            loading[1].append(our_run(config, lambda run: loading_alone(run.train.epoch())))
        del theirs  # ends its workers
    print(f"{os.cpu_count()} cores, torch {torch.__version__}; {args.model}, {args.images:,} "
          f"images, {args.repeats} rounds; {default_threads} thread(s) and {NUM_WORKERS} workers "
          f"for ImageFolder, {torch.get_num_threads()} thread(s) for ours")  # fmt: skip
    show("training", *training, args.images)
    show("loading alone", *loading, args.images)


if __name__ == "__main__":
    main()

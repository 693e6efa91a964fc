"""One epoch of the MLP on 60,000 images: the usual loop, a bare loop, and ours, side by side.

    python -m benchmarks.training_loop [--repeats 5] [--turns 120]

The usual loop is torchvision's data set, ToTensor, DataLoader, Adam and `.item()` each batch, as in
most tutorials. The bare loop does the same arithmetic over resident uint8 tensors with fused Adam
and nothing else: no metrics, no checks, no log. The usual loop and ours take turns of an epoch, the
bare one and ours turns of 50 steps (a log interval), all in one process, so that a machine whose
speed drifts, drifts for all; what counts is the middle of the ratios of neighbours. The images
are random (the arithmetic does not care), in IDX files that every side reads with its own reader.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from benchmarks import turns
from trainer.builders import datasets as loaded
from trainer.builders import training_run
from trainer.config import compose
from trainer.system.signals import StopSignals
from trainer.training import loop

NUM_IMAGES, BATCH_SIZE = 60_000, 64
MEAN, STD = 0.1307, 0.3081


def write_idx(root: Path) -> None:
    """Random images and labels as MNIST's four files, in torchvision's layout."""
    folder, generator = root / "MNIST" / "raw", np.random.default_rng(0)
    folder.mkdir(parents=True)
    for part, count in (("train", NUM_IMAGES), ("t10k", 1000)):
        images = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = generator.permutation(np.arange(count) % 10).astype(np.uint8)
        for name, array, magic in (("images-idx3", images, 2051), ("labels-idx1", labels, 2049)):
            head = np.array([magic, *array.shape], dtype=">u4").tobytes()
            (folder / f"{part}-{name}-ubyte").write_bytes(head + array.tobytes())


def mlp() -> nn.Sequential:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(),
        nn.Linear(64, 10),
    )  # fmt: skip


def usual_loop(root: Path) -> float:
    """Seconds of an epoch as tutorials write it."""
    transform = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize((MEAN,), (STD,))]
    )  # fmt: skip
    dataset = datasets.MNIST(str(root), train=True, transform=transform)
    return usual_epoch(mlp(), DataLoader(dataset, batch_size=BATCH_SIZE, shuffle=True))


def usual_epoch(model: nn.Module, batches: DataLoader[Any]) -> float:
    """The loop in them."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    start, total_loss, correct = time.perf_counter(), 0.0, 0
    for images, labels in batches:
        optimizer.zero_grad()
        logits = model(images)
        loss = F.cross_entropy(logits, labels)
        loss.backward()
        optimizer.step()
        total_loss += loss.item()
        correct += (logits.argmax(1) == labels).sum().item()
    return time.perf_counter() - start


def bare_steps(images: torch.Tensor, labels: torch.Tensor) -> Iterator[None]:
    """Nothing but the arithmetic, in eager torch, step by step, epoch after epoch."""
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    while True:
        order = torch.randperm(len(images))
        for index in order.split(BATCH_SIZE):
            x = images.index_select(0, index).float().mul_(1 / (255 * STD)).sub_(MEAN / STD)
            loss = F.cross_entropy(model(x), labels.index_select(0, index))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield


def our_config(root: Path) -> dict[str, Any]:
    """The defaults, on these files; validation on ten images, so that the epoch is training."""
    words = ["data=mnist", f"data.root='{root}'", "data.download=false", "data.val_size=0.0002",
             "epochs=1"]  # fmt: skip
    composer = compose.Composer(compose.parse(words))
    return compose.plain(composer.jobs(composer.master())[0])


def noting_the_time(function: Callable[..., Any], clock: list[float]) -> Callable[..., Any]:
    def noted(*args: Any, **options: Any) -> Any:
        clock.append(time.perf_counter())
        return function(*args, **options)

    return noted


def our_loop(config: dict[str, Any]) -> tuple[float, float]:
    """Seconds of the training epoch as the run reports them, and as a stopwatch has them that
    starts with the first batch asked for and stops when validation begins."""
    with tempfile.TemporaryDirectory() as folder:
        run = training_run.build(config, Path(folder), StopSignals())
        clock: list[float] = []
        for batches in (run.train, run.val):
            batches.epoch = noting_the_time(batches.epoch, clock)  # type: ignore[method-assign]
        loop.fit(run)
        run.close()
    return run.progress.train_s, clock[1] - clock[0]


def our_steps(config: dict[str, Any], folder: Path) -> Iterator[None]:
    return turns.steps_of(training_run.build(config, folder, StopSignals()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5, help="epochs beside the usual loop")
    parser.add_argument("--turns", type=int, default=120, help="of 50 steps beside the bare loop")
    args = parser.parse_args()
    default_threads = torch.get_num_threads()
    epochs: dict[str, list[float]] = {"usual loop": [], "ours": []}
    reported: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_idx(root)
        config = our_config(root)
        for _ in range(args.repeats):
            torch.set_num_threads(default_threads)
            epochs["usual loop"].append(usual_loop(root))
            seconds, stopwatch = our_loop(config)  # sets its threads
            epochs["ours"].append(seconds)
            reported.append(stopwatch / seconds)
        train = loaded.load_data(config["data"]).train
        sides = {
            "ours": our_steps(config, root),
            "bare loop": bare_steps(train.images, train.labels),
        }
        steps = turns.take_turns(sides, args.turns, 50)
    print(f"{os.cpu_count()} cores, torch {torch.__version__}, {args.repeats} epochs; "
          f"{torch.get_num_threads()} thread(s) for ours and the bare loop")  # fmt: skip
    for name, times in epochs.items():
        middle = statistics.median(times)
        print(f"{name:<12} {middle:6.2f} s (from {min(times):.2f} to {max(times):.2f})"
              f"   {len(train) / middle:>9,.0f} images/s")  # fmt: skip
    print(f"ours is {turns.ratio(epochs['usual loop'], epochs['ours']):.2f} times as fast as the "
          f"usual loop")  # fmt: skip
    print(f"images/s as reported, over the same by a stopwatch: {statistics.median(reported):.3f}")
    turns.show(steps, BATCH_SIZE)
    print(f"ours takes {turns.ratio(steps['ours'], steps['bare loop']):.3f} times as long as the "
          f"bare loop, in {args.turns} turns")  # fmt: skip


if __name__ == "__main__":
    main()

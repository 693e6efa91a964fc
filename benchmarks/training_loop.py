"""One epoch of the MLP on 60,000 pictures: the usual loop, a bare loop, and ours, side by side.

    python -m benchmarks.training_loop [--repeats 5]

The usual loop is torchvision's data set, ToTensor, DataLoader, Adam and `.item()` each batch, as in
most tutorials. The bare loop does the same arithmetic over resident uint8 tensors with fused Adam
and nothing else: no metrics, no checks, no log. The three take turns in one process, so that a
machine whose speed drifts, drifts for all; what counts is the ratios of the medians. The pictures
are random (the arithmetic does not care), in IDX files that every side reads with its own reader.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from trainer import build, compose, loop, parts, runtime

NUM_IMAGES, BATCH_SIZE = 60_000, 64
MEAN, STD = 0.1307, 0.3081


def write_idx(root: Path) -> None:
    """Random pictures and labels as MNIST's four files, in torchvision's layout."""
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


def bare_loop(images: torch.Tensor, labels: torch.Tensor) -> float:
    """Seconds of an epoch of nothing but the arithmetic, in eager torch."""
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    start = time.perf_counter()
    order = torch.randperm(len(images))
    for index in order.split(BATCH_SIZE):
        x = images.index_select(0, index).float().mul_(1 / (255 * STD)).sub_(MEAN / STD)
        loss = F.cross_entropy(model(x), labels.index_select(0, index))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.perf_counter() - start


def our_config(root: Path) -> dict[str, Any]:
    """The defaults, on these files; validation on ten pictures, so that the epoch is training."""
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
        run = build.build(config, Path(folder), runtime.StopSignals())
        clock: list[float] = []
        for batches in (run.train, run.val):
            batches.epoch = noting_the_time(batches.epoch, clock)  # type: ignore[method-assign]
        loop.fit(run)
        run.log.close()
    return run.progress.train_s, clock[1] - clock[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    default_threads = torch.get_num_threads()
    times: dict[str, list[float]] = {"usual loop": [], "bare loop": [], "ours": []}
    reported: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_idx(root)
        config = our_config(root)
        train = parts.load_data(config["data"]).train
        for _ in range(repeats):
            torch.set_num_threads(default_threads)
            times["usual loop"].append(usual_loop(root))
            seconds, stopwatch = our_loop(config)  # sets the threads that the bare loop keeps
            times["ours"].append(seconds)
            reported.append(stopwatch / seconds)
            times["bare loop"].append(bare_loop(train.images, train.labels))
    print(f"{os.cpu_count()} cores, torch {torch.__version__}, {repeats} rounds, "
          f"{torch.get_num_threads()} thread(s) for ours and the bare loop")  # fmt: skip
    for name, seconds_of in times.items():
        middle = statistics.median(seconds_of)
        pairs = zip(seconds_of, times["ours"], strict=True)
        ratio = statistics.median(theirs / ours for theirs, ours in pairs)
        print(f"{name:<12} {middle:6.2f} s (from {min(seconds_of):.2f} to {max(seconds_of):.2f})"
              f"   {len(train) / middle:>9,.0f} images/s   {ratio:5.2f} times ours")  # fmt: skip
    print(f"images/s as reported, over the same by a stopwatch: {statistics.median(reported):.3f}")


if __name__ == "__main__":
    main()

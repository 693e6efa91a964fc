"""Seconds that the searches for equal and nearly equal images take, on made-up images.

python -m benchmarks.leaks [--train 60000] [--test 10000] [--side 28] [--threads 1]
"""

from __future__ import annotations

import argparse
import os
import time

import torch

from data.duplicates.exact import equal_images
from data.duplicates.near import near_copies
from data.synthetic import load_synthetic
from data.types import Split


def timed(name: str, work: object, *args: object) -> None:
    wall, cpu = time.perf_counter(), time.process_time()
    found = work(*args)  # type: ignore[operator]
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"{name:12} {wall:7.2f} s, {cpu:7.2f} s of CPU, {len(found):,} groups")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=int, default=60_000)
    parser.add_argument("--test", type=int, default=10_000)
    parser.add_argument("--side", type=int, default=28)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    made = load_synthetic(
        num_train=args.train, num_test=args.test, noise=0.6, seed=0, num_classes=10,
        shape=[1, args.side, args.side], mean=[0.5], std=[0.2], hflip=False,
        val_size=0.1, split_seed=0,
    )  # fmt: skip
    splits: list[Split] = [made.train, made.val, made.test]
    print(f"{args.train + args.test:,} images of {args.side} px, {args.threads} threads")
    timed("exact copies", equal_images, splits)
    timed("near copies", near_copies, splits)


if __name__ == "__main__":
    main()

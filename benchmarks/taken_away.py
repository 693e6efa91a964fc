"""What each thing that makes the step fast is worth: measured by taking it away.

    python -m benchmarks.taken_away [--turns 9] [--steps 50] [--threads 1]

The same network with all its defaults and with one of them changed take turns of some steps in one
process. What has no key (uint8 images on the device, freed memory kept) is in `training_loop` and
`resnet18`.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks import turns
from trainer.builders import training_run
from trainer.config import compose
from trainer.system.signals import StopSignals
from trainer.training.run import Run

NETS = {
    "mlp, Adam, 64": ["model=mlp", "data.shape=[1,28,28]"],
    "lenet5, Adam, 64": ["model=lenet5", "data.shape=[1,28,28]"],
    "cifar_net, Adam, 64": ["model=cifar_net", "data.shape=[3,32,32]"],
    "resnet18 of 16 maps, SGD, 64": [
        "model=resnet18", "model.width=16", "data.shape=[3,32,32]", "optimizer=sgd",
    ],
}  # fmt: skip
TAKEN_AWAY = {
    "as it is": [],
    "a reading at every step": ["log_interval=1"],
    "optimizer not fused": ["+optimizer.fused=false"],
    "channels first": ["channels_last=false"],
    "images not resident": [],
    "compile=step": ["compile=step"],
}


def built(words: Sequence[str], threads: int, folder: Path, resident: bool) -> Run:
    words = [*words, "data=synthetic", "data.num_train=10000", "data.num_test=100",
             f"num_threads={threads}", "tensorboard=false"]  # fmt: skip
    composer = compose.Composer(compose.parse(words))
    config = compose.plain(composer.jobs(composer.master())[0])
    folder.mkdir()
    run = training_run.build(config, folder, StopSignals())
    run.train.resident = resident  # type: ignore[attr-defined]
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="with compile=step beside it")
    args = parser.parse_args()
    print(f"{os.cpu_count()} cores, {args.threads} threads, torch {torch.__version__}")
    sides = {name: words for name, words in TAKEN_AWAY.items()
             if args.compile or name != "compile=step"}  # fmt: skip
    for net, words in NETS.items():
        with tempfile.TemporaryDirectory() as folder:
            runs = {
                name: built([*words, *change], args.threads, Path(folder) / str(i),
                            resident=name != "images not resident")
                for i, (name, change) in enumerate(sides.items())
            }  # fmt: skip
            steps = {name: turns.steps_of(run) for name, run in runs.items()}
            seconds = turns.take_turns(steps, args.turns, args.steps)
            for run in runs.values():
                run.close()
        print(f"\n{net}")
        for name, times in seconds.items():
            middle = sorted(times)[len(times) // 2]
            ratio = turns.ratio(times, seconds["as it is"])
            print(f"  {name:<26}{1000 * middle:8.3f} ms a step  {ratio:.2f} times as long")


if __name__ == "__main__":
    main()

"""compile=step against eager steps, in our own loop.

    python -m benchmarks.compiled_step [--net mlp|resnet18] [--turns 120] [--threads 1]

mlp: 784-128-64-10, batch 64, Adam, 60,000 resident images, turns of 50 steps. resnet18: 32 px,
batch 128, SGD with momentum, channels_last, turns of 2 steps. Two runs of the same command, but for
`compile`, take turns in one process. Compile times are those of two fresh processes that share a
cache, empty at first. By itself the program gives the mlp one thread, since a second one computes
little more and costs a lot on a busy machine; --threads 2 shows both sides with two.

For the mlp, beside them the products of matrices of one step alone: no step with the same
arithmetic can take less, however it is compiled.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks import turns
from trainer.builders import training_run
from trainer.config import compose
from trainer.system.signals import StopSignals
from trainer.training import loop
from trainer.training.run import Run

NETS = {
    "mlp": ["model=mlp", "data=synthetic", "data.num_train=60100", "data.val_size=0.001664"],
    "resnet18": ["model=resnet18", "data=synthetic", "data.shape=[3,32,32]",
                 "data.mean=[0.5,0.5,0.5]", "data.std=[0.2,0.2,0.2]", "optimizer=sgd",
                 "limit_batches=6"],
}  # fmt: skip
BATCH_SIZE = {"mlp": 64, "resnet18": 128}
TURN = {"mlp": 50, "resnet18": 2}  # steps; 50 is a log interval, with its one sync


def make_run(net: str, folder: Path, is_compiled: bool, num_threads: int = 0) -> Run:
    words = [*NETS[net], "data.num_test=100", f"batch_size={BATCH_SIZE[net]}",
             f"num_threads={num_threads}", "tensorboard=false",
             f"compile={'step' if is_compiled else 'none'}"]  # fmt: skip
    composer = compose.Composer(compose.parse(words))
    config = compose.plain(composer.jobs(composer.master())[0])
    folder.mkdir()
    return training_run.build(config, folder, StopSignals())


def products(batch_size: int) -> Iterator[None]:
    """The products of matrices in a step of the mlp: forward, and backward for the weights and for
    the inputs of all layers but the first."""
    sizes = (784, 128, 64, 10)
    layers = [
        (torch.randn(batch_size, i), torch.randn(o, i), torch.randn(batch_size, o))
        for i, o in itertools.pairwise(sizes)
    ]
    while True:
        for inputs, weight, _ in layers:
            torch.mm(inputs, weight.t())
        for number, (inputs, weight, gradient) in enumerate(layers):
            torch.mm(gradient.t(), inputs)
            if number:
                torch.mm(gradient, weight)
        yield


def compile_seconds(net: str, cache: str) -> float:
    """In a process of its own, checks included."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.compiled_step", "--net", net, "--only-compile"],
        env=os.environ | {"TORCHINDUCTOR_CACHE_DIR": cache},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    (found,) = re.findall(r"compile=step: ([\d.]+) s", done.stdout)
    return float(found)


def only_compile(net: str) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(net, Path(folder) / "run", is_compiled=True)
        batches = run.train.epoch()
        for _ in range(2):  # the first is eager
            loop.train_step(run, *next(batches))
        run.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--net", choices=NETS, default="mlp")
    parser.add_argument("--turns", type=int, default=120)
    parser.add_argument("--threads", type=int, default=0, help="0: what the program takes itself")
    parser.add_argument("--only-compile", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only_compile:
        only_compile(args.net)
        return
    with tempfile.TemporaryDirectory() as folder:
        cold, warm = (compile_seconds(args.net, f"{folder}/cache") for _ in range(2))
        runs = {
            name: make_run(args.net, Path(folder) / name, name == "compiled", args.threads)
            for name in ("eager", "compiled")
        }
        sides = {name: turns.steps_of(run) for name, run in runs.items()}
        if args.net == "mlp":
            sides["products"] = products(BATCH_SIZE[args.net])
        next(sides["compiled"]), next(sides["compiled"])  # the second compiles
        seconds = turns.take_turns(sides, args.turns, TURN[args.net])
        for run in runs.values():
            run.close()
    print(f"{args.net}: {os.cpu_count()} cores, torch {torch.__version__}, {args.turns} turns of "
          f"{TURN[args.net]} steps, {torch.get_num_threads()} thread(s)")  # fmt: skip
    turns.show(seconds, BATCH_SIZE[args.net])
    print(f"compiled is {turns.ratio(seconds['eager'], seconds['compiled']):.2f} times as fast; "
          f"compiling took {cold:.1f} s, with a warm cache {warm:.1f} s")  # fmt: skip
    if args.net == "mlp":
        bound = turns.ratio(seconds["eager"], seconds["products"])
        print(f"the products alone would be {bound:.2f} times as fast as the eager step")


if __name__ == "__main__":
    main()

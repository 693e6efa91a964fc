"""Training in two processes of one thread each against one process of two threads, and of one.

Whole trainings, in turns: images/s as their summaries tell them; and milliseconds of CPU a step, of
all processes, which a busy machine disturbs less: of a long training less those of a short one.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ALWAYS = ["data=synthetic", "data.num_test=64", "data.num_classes=10", "tensorboard=false",
          "test=none", "scheduler=constant", "epochs=2", "eval_every_epochs=2"]  # fmt: skip
NETWORKS = {
    "mlp, batch 64": ["model=mlp", "data.shape=[1,28,28]", "batch_size=64"],
    "mlp, batch 512": ["model=mlp", "data.shape=[1,28,28]", "batch_size=512"],
    "cifar_net, batch 64": ["model=cifar_net", "data.shape=[3,32,32]", "batch_size=64"],
    "cifar_net, batch 256": ["model=cifar_net", "data.shape=[3,32,32]", "batch_size=256"],
    "resnet18, batch 64": ["model=resnet18", "data.shape=[3,32,32]", "batch_size=64"],
}
SIDES = {
    "1 x 1": ["num_threads=1"],
    "1 x 2": ["num_threads=2"],
    "2 x 1": ["num_threads=1", "processes=2"],
}


@dataclass
class Cost:
    """Speed of one side, and milliseconds of CPU a step."""

    images_per_s: list[float]
    cpu_ms: list[float]


def train(folder: Path, words: Sequence[str]) -> tuple[float, float]:
    """A training in a new folder. Returns images/s and seconds of CPU of all its processes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "trainer", *ALWAYS, *words, f"hydra.run.dir={folder}"]
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    subprocess.run(command, check=True, capture_output=True, env=environment, cwd=folder.parent)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return float(json.loads((folder / "summary.json").read_text())["images_per_s"]), cpu_s


def compare(words: Sequence[str], steps: int, turns: int) -> dict[str, Cost]:
    """Costs of each side, of `steps` steps an epoch."""
    batch_size = int(words[-1].partition("=")[2])
    words = [*words, f"data.num_train={batch_size * (steps + 1) * 10 // 9}"]
    costs = {side: Cost([], []) for side in SIDES}
    with tempfile.TemporaryDirectory() as top:
        for turn in range(turns):
            for number, (side, own) in enumerate(SIDES.items()):
                folder, cost = Path(top) / f"{turn}-{number}", costs[side]
                _, short_s = train(Path(f"{folder}-short"), [*words, *own, "limit_batches=1"])
                speed, long_s = train(folder, [*words, *own, f"limit_batches={steps}"])
                cost.images_per_s.append(speed)
                cost.cpu_ms.append(1000 * (long_s - short_s) / (2 * (steps - 1)))
    return costs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6, help="of a training, about")
    parser.add_argument("--only", default="", help="networks whose name holds this")
    args = parser.parse_args()
    print("processes x threads; images/s, and ms of CPU a step")
    for name, words in NETWORKS.items():
        if args.only not in name:
            continue
        step_s = {"mlp, batch 64": 0.002, "resnet18, batch 64": 3}.get(name, 0.03)
        costs = compare(words, max(3, int(args.seconds / step_s / 2)), args.turns)
        shown = "   ".join(
            f"{side} {statistics.median(cost.images_per_s):>7,.0f} "
            f"{statistics.median(cost.cpu_ms):>7,.1f}"
            for side, cost in costs.items()
        )
        pairs = zip(costs["2 x 1"].images_per_s, costs["1 x 2"].images_per_s, strict=True)
        ratio = statistics.median(two / one for two, one in pairs)
        print(f"{name:<22}{shown}   2 x 1 over 1 x 2 {ratio:.2f}", flush=True)


if __name__ == "__main__":
    main()

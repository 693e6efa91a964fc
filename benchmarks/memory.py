"""Peak resident memory of whole trainings against the same in a bare loop, each a process.

    python -m benchmarks.memory [--rounds 3]

The bare loops hold the same images, network and optimizer, and make the same kind of step: no
metrics, no log, no state that is saved, no TensorBoard.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

BARE = """
import torch
from torch.nn import functional as F
torch.set_num_threads({threads})
images = torch.randint(256, ({number}, {channels}, {side}, {side}), dtype=torch.uint8)
labels = torch.arange({number}) % 10
{net}
net = net.to(memory_format=torch.channels_last)
optimizer = {optimizer}
for step in range({steps}):
    index = torch.randint({number}, ({batch},))
    x = images[index].float().div_(255).contiguous(memory_format=torch.channels_last)
    optimizer.zero_grad()
    F.cross_entropy(net(x), labels[index]).backward()
    optimizer.step()
"""
MLP = """from models.mlp import MLP
net = MLP((1, 28, 28), 10)"""
RESNET = """from models.resnet import ResNet
net = ResNet((3, 32, 32), 10, depth=18)"""
DEFAULT = BARE.format(
    threads=1, number=5000, channels=1, side=28, batch=64, steps=500, net=MLP,
    optimizer="torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)",
)  # fmt: skip
LARGE = BARE.format(
    threads=2, number=5000, channels=3, side=32, batch=128, steps=4, net=RESNET,
    optimizer="torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, fused=True)",
)  # fmt: skip
SIDES: dict[str, tuple[list[str], list[str]]] = {
    "the default run": (["hydra.run.dir=run", "epochs=3"], ["-c", DEFAULT]),
    "ResNet-18, batch 128": (
        ["model=resnet18", "data=synthetic", "data.shape=[3,32,32]", "data.num_train=5000",
         "data.num_test=100", "data.val_size=0.02", "optimizer=sgd", "batch_size=128", "epochs=1",
         "limit_batches=4", "num_threads=2", "hydra.run.dir=run"],
        ["-c", LARGE],
    ),
}  # fmt: skip


def peak(words: Sequence[str], cwd: Path) -> float:
    """Largest resident set of such a Python process, in MB."""
    process = subprocess.Popen([sys.executable, *words], cwd=cwd, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)  # fmt: skip
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, words
    return usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parent.parent)
    for name, (ours, bare) in SIDES.items():
        found: list[tuple[float, float]] = []
        for _ in range(args.rounds):
            with tempfile.TemporaryDirectory() as cwd:
                found.append((peak(["-m", "trainer", *ours], Path(cwd)), peak(bare, Path(cwd))))
        mine, theirs = (statistics.median(side) for side in zip(*found, strict=True))
        ratio = statistics.median(a / b for a, b in found)
        print(f"{name}: ours {mine:,.0f} MB, bare {theirs:,.0f} MB, ratio {ratio:.2f}")


if __name__ == "__main__":
    main()

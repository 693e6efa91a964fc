"""Is this checkout slower than another one? Both sides in one run, in turns.

    git worktree add --detach /tmp/base COMMIT
    python -m benchmarks.against --other /tmp/base [--turns 40] [--starts 7]

Three things are timed: a training step of the MLP (two processes that wait for each other, turns
of 50 steps), `python -m trainer --help`, and `predict` of one image, whole processes each. What
counts is how this checkout's median compares with the other's. On a busy machine the clock says
little, and the seconds of CPU that a process was given say more: both are printed. The first turn
of each is not counted, and who begins a turn alternates.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

STEPS = 50  # of training in a turn
HERE = Path(__file__).resolve().parent.parent

# Each checkout trains with its own code: of it only these two functions are asked for.
TRAINING = f"""
import sys, time
from pathlib import Path
from benchmarks import training_loop
root = Path(sys.argv[1])
steps = training_loop.our_steps(training_loop.our_config(root), root / sys.argv[2])
for _ in sys.stdin:
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range({STEPS}):
        next(steps)
    print("turn", time.perf_counter() - wall, time.process_time() - cpu, flush=True)
"""


class Times(NamedTuple):
    """Seconds by the clock, and of CPU."""

    wall: float
    cpu: float


Turn = Callable[[], Times]


def environment(tree: Path) -> dict[str, str]:
    """One thread, as the program itself takes for so small a network."""
    return os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}


class Trainer:
    """A process of that checkout which trains `STEPS` steps whenever it is told to."""

    def __init__(self, tree: Path, root: Path, name: str) -> None:
        (root / name).mkdir()
        self.process = subprocess.Popen(
            [sys.executable, "-c", TRAINING, str(root), name], cwd=root, env=environment(tree),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def turn(self) -> Times:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("turn "):
                return Times(*(float(word) / STEPS for word in line.split()[1:]))
        raise SystemExit(f"the training ended with exit code {self.process.wait()}")

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def command(tree: Path, cwd: Path, *words: str) -> Times:
    """`python -m trainer WORDS` of that checkout, from its start to its end."""
    before = os.times()
    subprocess.run(
        [sys.executable, "-m", "trainer", *words], cwd=cwd, env=environment(tree), check=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    after = os.times()
    cpu = after.children_user + after.children_system - (
        before.children_user + before.children_system
    )  # fmt: skip
    return Times(after.elapsed - before.elapsed, cpu)


def take_turns(here: Turn, other: Turn, num_turns: int) -> tuple[list[Times], list[Times]]:
    """Of this checkout and of the other one, without the first turn of each."""
    sides: tuple[list[Times], list[Times]] = ([], [])
    for number in range(1 + num_turns):
        for side in (0, 1) if number % 2 else (1, 0):
            sides[side].append((here, other)[side]())
    return sides[0][1:], sides[1][1:]


def compared(name: str, here: list[Times], other: list[Times]) -> str:
    """A line: the medians and their ratio, by the clock and in CPU seconds."""
    words = [f"{name:<18}"]
    for kind in Times._fields:
        ours, theirs = (statistics.median(getattr(t, kind) for t in side) for side in (here, other))
        words.append(
            f"{kind} {1000 * ours:9.3f} ms, other {1000 * theirs:9.3f} ms, ratio "
            f"{ours / theirs:.3f}"
        )
    return "   ".join(words)


def make_input(other: Path, root: Path) -> Mapping[str, str]:
    """Data to train on, a checkpoint that both can read, for it is the other's, and an image."""
    import numpy as np
    from PIL import Image

    from benchmarks.training_loop import write_idx

    write_idx(root)
    command(other, root, "epochs=1", "limit_batches=2", "tensorboard=false", "hydra.run.dir=run")
    with np.load(HERE / "data" / "mnist_5k.npz") as file:
        Image.fromarray(file["test_images"][0]).save(root / "digit.png")
    return {"checkpoint": "run/checkpoints/best.pth", "image": "digit.png"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--other", type=Path, required=True, help="folder of the other checkout")
    parser.add_argument("--turns", type=int, default=40, help=f"of {STEPS} training steps each")
    parser.add_argument("--starts", type=int, default=7, help="of each command")
    args = parser.parse_args()
    other = args.other.resolve()
    if not (other / "trainer" / "__main__.py").is_file():
        parser.error(f"--other {args.other}: this is no checkout of the program")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        made = make_input(other, root)
        trainers = [Trainer(HERE, root, "here"), Trainer(other, root, "other")]
        times = take_turns(trainers[0].turn, trainers[1].turn, args.turns)
        print(compared("MLP, a step", *times), flush=True)
        for trainer in trainers:
            trainer.close()
        for name, words in {
            "--help": ["--help"],
            "predict": ["predict", made["checkpoint"], made["image"]],
        }.items():
            times = take_turns(
                lambda words=words: command(HERE, root, *words),  # type: ignore[misc]
                lambda words=words: command(other, root, *words),  # type: ignore[misc]
                args.starts,
            )
            print(compared(name, *times), flush=True)


if __name__ == "__main__":
    main()

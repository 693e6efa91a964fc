"""Does every net learn with nothing but `model=` and `data=` given?

    python -m benchmarks.defaults_learn --root FOLDER [NET ...]

200 steps of batch 32 on Fashion-MNIST at 32 px, each net with all its defaults, in the trainer's
own loop. Prints a row per net: the loss at the first step, and the mean of the last ten at 50, 100
and 200. A net at chance has log(10) = 2.303. Heavy: ResNet-152 alone takes the better part of an
hour on two cores; --steps 100 shortens it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from trainer.builders import training_run
from trainer.config import compose, knobs
from trainer.system.signals import StopSignals
from trainer.system.torch_internals import leave_compiler_unimported
from trainer.training import loop

CHEAP_FIRST = [
    "mlp", "lenet5", "lenet_caffe", "cifar_net", "torchvision", "googlenet", "alexnet", "vgg11",
    "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn", "resnet18",
    "resnet34", "resnet50", "resnet101", "resnet152",
]  # fmt: skip


def losses_of(net: str, root: Path, num_steps: int) -> list[float]:
    """The main head's batch losses of the first steps of that net's default training."""
    words = [f"model={net}", "data=fashion_mnist", f"data.root='{root}'", "data.download=false",
             "data.shape=[1,32,32]", "batch_size=32"]  # fmt: skip
    composer = compose.Composer(compose.parse(words))
    settings = compose.plain(composer.jobs(composer.master())[0])
    knobs.check(settings)
    leave_compiler_unimported()
    with tempfile.TemporaryDirectory() as folder:
        run = training_run.build(settings, Path(folder), StopSignals())
        run.model.train()
        losses = []
        for images, targets in run.train.epoch(0):
            _, logits = loop.train_step(run, images, targets)
            losses.append(float(run.eval_loss(logits.detach(), targets)))
            run.progress.step += 1
            if run.progress.step == num_steps:
                break
        run.check_steps()
        run.close()
    return losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("nets", nargs="*", default=CHEAP_FIRST)
    parser.add_argument("--root", type=Path, required=True, help="folder of the four IDX files")
    parser.add_argument("--steps", type=int, default=200)
    args = parser.parse_args()
    marks = [mark for mark in (50, 100, 200) if mark <= args.steps]
    print("| net | step 1 | " + " | ".join(map(str, marks)) + " | highest | seconds a step |")
    print("| --- | " + " | ".join(["---"] * (len(marks) + 3)) + " |")
    for net in args.nets:
        start = time.perf_counter()
        losses = losses_of(net, args.root, args.steps)
        means = [sum(losses[mark - 10 : mark]) / 10 for mark in marks]
        cells = [f"{losses[0]:.2f}", *(f"{mean:.2f}" for mean in means), f"{max(losses):.1f}"]
        seconds = (time.perf_counter() - start) / args.steps
        print(f"| {net} | {' | '.join(cells)} | {seconds:.2f} |", flush=True)


if __name__ == "__main__":
    main()

"""`trainer schedule [key=value ...]`: the learning rate of a training, drawn without training."""

from __future__ import annotations

import argparse
from typing import Any

from trainer.cli import drawn
from trainer.errors import UserError
from trainer.system.progress_bars import starting

HELP = """usage: trainer schedule [key=value ...] [--images N] [-o FILE] [--force]

The learning rate of a training over its steps, and at its epochs, without training:
`trainer schedule scheduler=one_cycle data=cifar10 epochs=30 -o lr.png`. Keys: those of scheduler,
optimizer, data, model and experiment, and epochs, batch_size, limit_batches. The data are loaded
for their number of training images; with --images N they need not be there.
-o FILE.png or FILE.html: the drawing as an image or a page; may be given twice. --force: replace.
"""

GROUPS = ("scheduler", "optimizer", "data", "model", "experiment")
KEYS = ("epochs", "batch_size", "limit_batches")
MOST_ROWS = 20


def main(argv: list[str]) -> int:
    if {"-h", "--help"} & set(argv):
        print(HELP.rstrip())
        return 0
    parser = argparse.ArgumentParser(prog="trainer schedule", add_help=False, allow_abbrev=False)
    parser.add_argument("--images", type=int)
    drawn.add_output(parser)
    own, words = parser.parse_known_args(argv)
    drawn.check_output(own)
    config, typed = drawn.checked(words, "schedule")
    drawn.refuse_no_part(
        typed, lambda key: key.partition(".")[0] in GROUPS or key in KEYS, "the learning rate"
    )
    if own.images is not None and own.images < 1:
        raise UserError(f"--images {own.images}: must be a whole number at least 1.")
    if own.images is None:
        starting()
    draw(config, own)
    return 0


def draw(config: dict[str, Any], own: argparse.Namespace) -> None:
    from data.loading.batches import images_per_epoch
    from trainer.builders.datasets import load_data
    from trainer.builders.optimizers import make_schedule
    from trainer.config.targets import check_options
    from trainer.evaluation.line_plot import Curve, as_text
    from trainer.schedules import Plateau

    for group in ("scheduler", "optimizer"):
        check_options(group, config[group])
    if "lr" not in config["optimizer"]:
        raise UserError("optimizer.lr: is missing; the schedule is a factor of it.")
    number = own.images or len(load_data(config["data"]).train)
    number = images_per_epoch(number, config["batch_size"], True, config["limit_batches"])
    per_epoch = -(-number // config["batch_size"])
    total, lr = config["epochs"] * per_epoch, config["optimizer"]["lr"]
    schedule = make_schedule(config["scheduler"], total, per_epoch)
    rates = [lr * schedule.factor(step) for step in range(total)]
    epochs = [step / per_epoch for step in range(total)]
    name = config["scheduler"]["_target_"].rpartition(".")[2]
    curve = Curve(f"{name}, {total:,} steps", epochs, rates, "epoch", "learning rate")
    lines = [curve.title, as_text(curve), "", f"{'epoch':>6} {'step':>9}  learning rate"]
    shown = sorted({*range(0, config["epochs"], max(1, config["epochs"] // MOST_ROWS))})
    at = [*((epoch, epoch * per_epoch) for epoch in shown), (config["epochs"], total - 1)]
    lines += [f"{epoch:>6} {step:>9,}  {rates[step]:.4g}" for epoch, step in at]
    lines.append("(at the beginning of the epoch; the last row: the last step)")
    if schedule.warmup_steps < schedule.asked_warmup_steps:
        lines.append(f"scheduler.warmup_steps={schedule.asked_warmup_steps} is cut to "
                     f"{schedule.warmup_steps}, a tenth of the run's steps")  # fmt: skip
    if isinstance(schedule, Plateau):
        lines.append(f"falls to {schedule.gamma:g} times itself whenever the validation loss stops "
                     "falling, which only a training tells")  # fmt: skip
    print("\n".join(lines))
    drawn.write(own, curve, "\n".join(lines))

"""`trainer find-lr [key=value ...]`: a learning rate by a short sweep, which leaves no run."""

from __future__ import annotations

import argparse
import math
from typing import Any

from trainer.cli import drawn
from trainer.errors import UserError
from trainer.system.progress_bars import starting

HELP = """usage: trainer find-lr [key=value ...] [--from LR] [--to LR] [--steps N] [-o FILE]

A learning rate for a training, by a sweep: one step at each of 200 rates, from 1e-7 to 10, each
larger by the same factor, until the loss is 4 times its lowest (Smith 2017). Data, augmentation,
model, optimizer and loss are those of the training: `trainer find-lr model=lenet5 data=mnist_5k`.
It proposes a tenth of the rate at the lowest smoothed loss, and tells where the loss falls fastest.
No run is written. -o FILE.png or FILE.html: the curve as an image or a page; may be given twice.
--force: replace a file that is there.
Keys: those of a training, but for its schedule, its length, validation, test and saving."""

IDLE = (
    "scheduler", "epochs", "eval_every_epochs", "test", "stop_epoch", "save_every_steps",
    "save_every_minutes", "tensorboard", "histograms", "profile", "log_interval", "trust",
    "processes", "sync_batch_norm", "compile", "optimizer.lr",
)  # fmt: skip
TAKES = {"processes": 1, "compile": "none"}


def main(argv: list[str]) -> int:
    if {"-h", "--help"} & set(argv):
        print(HELP)
        return 0
    parser = argparse.ArgumentParser(prog="trainer find-lr", add_help=False, allow_abbrev=False)
    parser.add_argument("--from", type=float, default=1e-7, dest="low")
    parser.add_argument("--to", type=float, default=10.0, dest="high")
    parser.add_argument("--steps", type=int, default=200)
    drawn.add_output(parser)
    own, words = parser.parse_known_args(argv)
    if not 0 < own.low < own.high < math.inf:
        raise UserError(f"--from {own.low:g} --to {own.high:g}: must be rates above 0, rising.")
    if not 20 <= own.steps <= 10_000:
        raise UserError(f"--steps {own.steps}: must be a whole number from 20 to 10,000.")
    drawn.check_output(own)
    config, typed = drawn.checked(words, "find-lr")
    drawn.refuse_no_part(
        typed, lambda key: key not in IDLE and key.partition(".")[0] not in IDLE,
        "the search for a learning rate",
    )  # fmt: skip
    for key, value in TAKES.items():
        if config[key] != value:
            raise UserError(f"{key}={config[key]}: find-lr takes {key}={value}.")
    starting()
    find(config, typed, own)
    return 0


def find(config: dict[str, Any], typed: set[str], own: argparse.Namespace) -> None:
    from trainer.builders.lr_sweep import swept_losses
    from trainer.cli.asked import check_with_torch
    from trainer.evaluation.line_plot import Curve, as_text
    from trainer.training.lr_sweep import propose, rates, smoothed

    check_with_torch([config], typed)
    lrs = rates(own.low, own.high, own.steps)
    losses = swept_losses(config, lrs)
    sound = [loss for loss in losses if math.isfinite(loss)]
    if len(sound) < 2:
        raise UserError(f"The loss is NaN or infinite at a learning rate of {own.low:g}.")
    found = propose(lrs, losses)
    marks = []
    if found is not None:
        marks = [(found.lowest, "lowest"), (found.steepest, "steepest"), (found.lr, "proposed")]
    smooth = smoothed(sound)
    start = len(smooth) // 20  # what the first batches say alone
    curve = Curve(
        "Learning rate", lrs[start : len(smooth)], smooth[start:], "learning rate",
        "smoothed training loss", [mark for mark in marks if mark[0] >= lrs[start]], log_x=True,
    )  # fmt: skip
    text = f"{as_text(curve)}\n\n{reason(found, own, len(losses), lrs)}"
    print(text)
    drawn.write(own, curve, text)


def reason(found: Any, own: argparse.Namespace, steps: int, lrs: list[float]) -> str:
    """Proposal, and why, in words."""
    end = f"the loss diverged at {lrs[steps - 1]:.2g}, step {steps} of {own.steps}"
    if steps == own.steps:
        end = f"the loss did not diverge up to {lrs[-1]:.2g}"
    if found is None:
        return (
            f"no proposal: the smoothed loss did not fall; {end}. Another --from or --to may help."
        )
    return (
        f"optimizer.lr={found.lr:g}\n"
        f"a tenth of {found.lowest:.2g}, the rate at the lowest smoothed loss; it falls fastest at "
        f"{found.steepest:.2g}; {end}"
    )

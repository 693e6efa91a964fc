"""Kill a training again and again: does it end in the bits of one that nobody touched?

    python -m tests.campaigns.kills [--row NAME ...] [--kills 20] [--seed 0]

Rows are networks, and what a training does beside its steps: averages, rules, a teacher.

SIGKILL goes to the whole process group, at random moments: in three of four legs a little after
the training has saved a step drawn at random, in the others within its first second, while it
starts. Each leg must go on from the newest state that the one before left. At the end weights,
best epoch, all rows of metrics.jsonl and all points of TensorBoard must be those of the
uninterrupted run. Two controls must differ, or the comparison would prove nothing: a resume with
another seed, and one from a state without the optimizer's memory.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import functools
import random
import shutil
import tempfile
import time
from pathlib import Path

from tests.helpers import processes, results
from trainer import checkpoints

MLP = ("model=mlp", "model.dropout=0.2", "optimizer.lr=0.005", "data=synthetic",
       "data.num_train=260", "data.val_size=0.3", "data.num_test=50", "data.noise=0.3",
       "data.shape=[1,8,8]", "batch_size=16", "epochs=30", "save_every_steps=5")  # fmt: skip

# Dropout, augmentation and batch norm, as far as the net has them: what would tell a forgotten
# generator. A schedule that looks at the validation: its memory has to come back, too.
COMMON = ("augment=strong", "scheduler=plateau", "scheduler.patience=1", "scheduler.gamma=0.7",
          "scheduler.min_factor=0.1", "log_interval=3")  # fmt: skip
WORDS = {
    "mlp": MLP,
    "lenet5": ("model=lenet5", "data=mnist_5k", "batch_size=32", "limit_batches=10", "epochs=16",
               "save_every_steps=3"),
    "resnet18": ("model=resnet18", "data=synthetic", "data.num_train=200", "data.num_test=50",
                 "data.shape=[3,8,8]", "data.mean=[0.5,0.5,0.5]", "data.std=[0.2,0.2,0.2]",
                 "optimizer=sgd", "batch_size=8", "limit_batches=5", "epochs=8",
                 "save_every_steps=2"),
    "ema": (*MLP, "average=ema", "clip_grad_norm=1", "patience=99", "max_minutes=99", "loss=focal",
            "l1=1e-5", "l2=1e-4", "sampling=balanced", "best_by=macro_f1", "optimizer=muon",
            "lr_factors=[[*bias,0.5]]", "layer_decay=0.8", "micro_batch_size=5",
            "data.fraction=0.8"),
    "swa": (*MLP, "average=swa", "average.start_epoch=2", "clip_grad_value=0.1", "patience=99",
            "patience_on=loss", "loss.class_weights=balanced", "optimizer=adamw",
            "optimizer.amsgrad=true", "decay_norms_and_biases=false",
            "augment.random_resized_crop=0.3"),
    "unfrozen": (*MLP, "model.activation=leaky_relu", "clip_grad_adaptive=0.01", "freeze=[*bias]",
                 "unfreeze_epoch=4", "augment.trivial=0.5", "overfit_batches=5"),
    "taught": (*MLP, "teacher={teacher}", "average=ema"),
}  # fmt: skip


@dataclasses.dataclass
class Report:
    kills: int = 0
    steps: int = 0  # of the whole training
    starting: int = 0  # kills before the leg had saved anything
    in_a_write: int = 0  # kills that left a half-written file behind
    mid_epoch: int = 0  # legs that began in the middle of an epoch


def words_of(row: str, folder: Path) -> tuple[str, ...]:
    """Words of a row; a teacher that it needs is trained in the folder."""
    words = (*COMMON, *WORDS[row])
    if not any("{teacher}" in word for word in words):
        return words
    (folder / "teacher").mkdir()
    processes.train(folder / "teacher", *COMMON, *MLP, "seed=7", "epochs=3")
    best = folder / "teacher" / "run" / "checkpoints" / "best.pth"
    return tuple(word.replace("{teacher}", str(best)) for word in words)


def campaign(folder: Path, words: tuple[str, ...], kills: int, seed: int) -> Report:
    """Runs below `folder` in whole/run and killed/run. Raises AssertionError."""
    whole, killed = folder / "whole", folder / "killed"
    whole.mkdir()
    killed.mkdir()
    processes.train(whole, *words)
    chooser, report = random.Random(seed), Report()
    report.steps = results.summary(whole / "run")["steps"]
    steps_per_epoch = report.steps // results.summary(whole / "run")["epochs"]
    targets = sorted(chooser.randrange(1, int(0.9 * report.steps)) for _ in range(kills))
    run = killed / "run"
    argv = [*words, "hydra.run.dir=run"]
    for number, target in enumerate(targets):
        had = results.newest_step(run)
        leg = processes.Command(killed, argv)
        if number == 0 or chooser.random() < 0.75:
            leg.wait_for(functools.partial(has_saved, run, target))
            time.sleep(chooser.uniform(0, 0.03))
        else:
            time.sleep(chooser.uniform(0, 1))
        saved = results.newest_step(run)
        ended = leg.kill()
        assert ended.code == -9, f"it ended before kill {number + 1}:\n{ended.output}"
        check_start(ended.output, had)
        report.kills += 1
        report.starting += saved == had
        report.in_a_write += bool(results.leftovers(run))
        report.mid_epoch += had % steps_per_epoch != 0
        assert results.newest_step(run) >= saved
        argv = ["resume", "run"]
    had = results.newest_step(run)
    last = processes.run(killed, *argv)
    assert last.code == 0, last.output
    check_start(last.output, had)
    results.assert_same(run, whole / "run")
    return report


def has_saved(run: Path, step: int) -> bool:
    return results.newest_step(run) >= step


def check_start(output: str, saved: int) -> None:
    """A kill damages nothing, so a leg goes on from the newest state, whatever its step."""
    assert "damaged" not in output, output
    if "resuming" in output:  # else it was killed before it came so far, or is the first
        assert results.started_at(output) == saved, output


def controls(folder: Path, words: tuple[str, ...]) -> dict[str, bool]:
    """Whether a resume that is spoiled on purpose ends in other bits, below `folder`, where
    `campaign` was: a kill half-way, then the seed changed, or the optimizer's memory lost."""
    want = results.summary(folder / "whole" / "run")
    cut = folder / "cut"
    cut.mkdir()
    leg = processes.Command(cut, [*words, "hydra.run.dir=run"])
    leg.wait_for(functools.partial(has_saved, cut / "run", want["steps"] // 2))
    leg.kill()
    found = {}
    for name, more in (("untouched", ()), ("seed", ("--force", "seed=1")), ("memory", ())):
        copy = folder / name
        shutil.copytree(cut, copy)
        if name == "memory":
            forget(copy / "run")
        ended = processes.run(copy, "resume", "run", *more)
        assert ended.code == 0, ended.output
        found[name] = results.summary(copy / "run")["weights_sha256"] != want["weights_sha256"]
    return found


def forget(run: Path) -> None:
    """Take the optimizer's moments out of the newest state, and sign it anew."""
    path = checkpoints.states_in(run / "checkpoints")[-1]
    entries = checkpoints.read(path)
    for kept in entries["optimizer"]["state"].values():
        for name, value in kept.items():
            kept[name] = value.new_zeros(value.shape)
    checkpoints.write(path, entries)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--row", choices=WORDS, action="append", help="default: all")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(f"{datetime.date.today()}, seed {args.seed}\n")
    print("| row | steps | kills | while it started | in a write | legs begun inside an epoch | "
          "same bits, rows, curves | controls differ | s |")  # fmt: skip
    print("| --- " * 9 + "|")
    for row in args.row or WORDS:
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as name:
            words = words_of(row, Path(name))
            report = campaign(Path(name), words, args.kills, args.seed)
            differ = controls(Path(name), words)
        assert differ == {"untouched": False, "seed": True, "memory": True}, differ
        print(f"| {row} | {report.steps} | {report.kills} | {report.starting} | "
              f"{report.in_a_write} | {report.mid_epoch} | yes | yes | "
              f"{time.monotonic() - began:.0f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()

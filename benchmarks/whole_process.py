"""Five epochs of the MLP as a whole process, ours and Lightning's: start, training, validation,
checkpoints, TensorBoard.

    pip install pytorch-lightning
    python -m benchmarks.whole_process [--rounds 3]

Both train the same net on the same 60,000 random images of 28 x 28 in MNIST's files, batch 64,
Adam, validate on the same share after each epoch, keep the best and the last checkpoint and write
event files. Lightning is used as its own introduction does: a LightningModule, torchvision's data
set, DataLoader. The two take turns; each time is that of a process from start to end.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.training_loop import BATCH_SIZE, MEAN, STD, mlp, write_idx

EPOCHS, VAL_SIZE = 5, 0.1


def lightning(root: Path, folder: Path) -> None:
    """The same training as Lightning's users write it."""
    import pytorch_lightning as pl
    import torch
    from pytorch_lightning.callbacks import ModelCheckpoint
    from pytorch_lightning.loggers import TensorBoardLogger
    from torch.nn import functional as F
    from torch.utils.data import DataLoader, random_split
    from torchvision import datasets, transforms

    class Classifier(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp()

        def step(self, batch: tuple[torch.Tensor, torch.Tensor], split: str) -> torch.Tensor:
            images, labels = batch
            logits = self.net(images)
            loss = F.cross_entropy(logits, labels)
            accuracy = (logits.argmax(1) == labels).float().mean()
            self.log_dict({f"{split}_loss": loss, f"{split}_accuracy": accuracy},
                          on_step=False, on_epoch=True)  # fmt: skip
            return loss

        def training_step(
            self, batch: tuple[torch.Tensor, torch.Tensor], index: int
        ) -> torch.Tensor:
            return self.step(batch, "train")

        def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor], index: int) -> None:
            self.step(batch, "val")

        def test_step(self, batch: tuple[torch.Tensor, torch.Tensor], index: int) -> None:
            self.step(batch, "test")

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=1e-3)

    pl.seed_everything(0)
    transform = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize((MEAN,), (STD,))]
    )  # fmt: skip
    whole = datasets.MNIST(str(root), train=True, transform=transform)
    train, val = random_split(whole, [1 - VAL_SIZE, VAL_SIZE])
    trainer = pl.Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        logger=TensorBoardLogger(str(folder)),
        callbacks=[ModelCheckpoint(monitor="val_accuracy", mode="max", save_last=True)],
        enable_progress_bar=False,
    )
    batches: dict[str, Any] = {"batch_size": BATCH_SIZE}
    trainer.fit(
        Classifier(), DataLoader(train, shuffle=True, **batches), DataLoader(val, **batches)
    )
    test = datasets.MNIST(str(root), train=False, transform=transform)
    trainer.test(dataloaders=DataLoader(test, **batches), ckpt_path="best")


def seconds_of(side: str, root: Path) -> float:
    with tempfile.TemporaryDirectory() as folder:
        ours = [
            "trainer",
            "data=mnist",
            f"data.root='{root}'",
            "data.download=false",
            f"epochs={EPOCHS}",
            f"data.val_size={VAL_SIZE}",
            f"hydra.run.dir={folder}/run",
        ]
        theirs = ["benchmarks.whole_process", "--lightning", str(root), folder]
        start = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", *(ours if side == "ours" else theirs)],
            capture_output=True, text=True,
        )  # fmt: skip
        seconds = time.monotonic() - start
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--lightning", type=Path, nargs=2, metavar=("ROOT", "FOLDER"),
                        help="only that side, in this process")  # fmt: skip
    args = parser.parse_args()
    if args.lightning:
        lightning(*args.lightning)
        return
    times: dict[str, list[float]] = {"Lightning": [], "ours": []}
    with tempfile.TemporaryDirectory() as folder:
        write_idx(Path(folder))
        for _ in range(args.rounds):
            for side, seconds in times.items():
                seconds.append(seconds_of(side, Path(folder)))
    ratios = [a / b for a, b in zip(times["Lightning"], times["ours"], strict=True)]
    for side, seconds in times.items():
        print(f"{side:<10} {statistics.median(seconds):6.1f} s "
              f"(from {min(seconds):.1f} to {max(seconds):.1f})")  # fmt: skip
    print(f"{os.cpu_count()} cores, {args.rounds} rounds: Lightning takes "
          f"{statistics.median(ratios):.2f} times as long")  # fmt: skip


if __name__ == "__main__":
    main()

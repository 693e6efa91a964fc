"""Table over runs, for the terminal."""

from __future__ import annotations

from pathlib import Path

from trainer.runs.read import Row, duration, over_seeds, share, shared_overrides, text
from trainer.text.tables import align


def table(rows: list[Row], folder: Path) -> str:
    """All runs, then the mean over seeds where runs differ in nothing else, then failures."""
    shared = shared_overrides(rows)
    header = ["run", "status", "val", "test", "best", "epochs", "time", "images/s", "overrides"]
    lines = [header]
    for row in rows:
        lines.append([
            str(row.folder.relative_to(folder)), row.status, share(row.val_accuracy),
            share(row.test_accuracy), text(row.best_epoch), text(row.epochs),
            duration(row.train_s), "-" if row.images_per_s is None else f"{row.images_per_s:,.0f}",
            " ".join(word for word in row.overrides if word not in shared) or "-",
        ])  # fmt: skip
    blocks = [align(lines, left=(0, len(header) - 1))]
    if shared:
        blocks.append(f"all: {' '.join(sorted(shared))}")
    if seeds := over_seeds(rows, shared):
        lines = [["over seeds", "runs", "test mean", "std"]]
        lines += [[name, str(n), share(mean), share(std)] for name, n, mean, std in seeds]
        blocks.append("\n" + align(lines, left=(0,)))
    failed = [row for row in rows if row.status == "failed"]
    blocks += [f"{row.folder}: {row.reason}; see trainer.log there" for row in failed]
    return "\n\n".join(blocks[:1]) + "".join(f"\n{block}" for block in blocks[1:])

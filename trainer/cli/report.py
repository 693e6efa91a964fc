"""`trainer report DIR`: a table over the runs in a folder, or over the jobs of a sweep, and pages.

Reads only small files (summary.json, metrics.jsonl, findings.json, .hydra/), so it answers at once
and shows runs that are still going or were killed, too. Each run gets a report.html, and so does
a folder of several.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from trainer.cli.arguments import refuse_in_words
from trainer.errors import UserError, complain
from trainer.runs.read import (
    NOT_STARTED,
    Row,
    duration,
    natural,
    not_started,
    over_seeds,
    read_runs,
    share,
    shared_overrides,
    sweep_command,
    text,
)
from trainer.runs.report import pages
from trainer.system.paths import at_home
from trainer.text.tables import align

PAGE = "report.html"


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="trainer report",
        description="A table over the runs in a folder: what each changed, what it reached.",
    )
    parser.add_argument(
        "dir", type=Path, nargs="?", default=Path("outputs"),
        help="a run, a sweep, or any folder with runs below it (default: outputs)",
    )  # fmt: skip
    refuse_in_words(parser, argv, ())
    folder = at_home(parser.parse_args(argv).dir)
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder.")
    closed = unreadable(folder)
    rows = runs_and_jobs(folder)
    for error in closed if rows else []:
        complain(f"{error.filename}: {error.strerror}: what lies there is left out.")
    if closed and not rows:
        raise closed[0]
    if not rows:
        raise UserError(f"{folder}: no runs in this folder. A run's folder holds .hydra/.")
    print(table(rows, folder))
    write_pages(rows, folder)
    return 0


def unreadable(folder: Path) -> list[OSError]:
    """What may hold runs, at any depth, and cannot be listed."""
    errors: list[OSError] = []
    for _ in os.walk(folder, onerror=errors.append):
        pass
    return errors


def runs_and_jobs(folder: Path) -> list[Row]:
    """The runs at or below a folder and, of sweeps that ended early, the jobs without a folder."""
    rows = read_runs(folder)
    for sweep in sorted({folder, *(row.folder.parent for row in rows)}):
        if command := sweep_command(sweep):
            from trainer.config.compose import sweep_jobs  # Hydra takes a third of a second

            rows += not_started(sweep, sweep_jobs(command), rows)
    return sorted(rows, key=lambda row: natural(row.folder))


def write_pages(rows: list[Row], folder: Path) -> None:
    """report.html in each run's folder and, over several, in `folder`, and what is to be said of
    it. A folder that cannot be written to is no failure: the table has been printed."""
    page, problem = folder / PAGE, None
    for row in rows:
        if row.status == NOT_STARTED:
            continue
        try:
            content = pages.run_page(row)
        except OSError as error:
            problem = f"{error.filename}: cannot be read: {error.strerror}."
            continue
        problem = write_page(row.folder / PAGE, content) or problem
    if rows[0].folder != folder:
        problem = write_page(page, pages.runs_page(rows, folder, PAGE)) or problem
    if problem:
        print(problem, file=sys.stderr)
    if page.is_file():
        print(f"\nlook at {page}")


def write_page(file: Path, content: str) -> str | None:
    """Whole or not at all; what went wrong, if it did."""
    from trainer.system.files import write_bytes

    try:
        write_bytes(file, content.encode("utf-8", errors="backslashreplace"))  # file names
    except OSError as error:
        return f"{file}: could not be written: {error.strerror}."
    return None


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

"""Report of folders: the table is printed, a page is written for each run and for all of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.errors import UserError, complain
from trainer.runs.read import NOT_STARTED, Row, runs_and_jobs, unlisted
from trainer.runs.report.order import DEFAULT, sorted_by, with_status
from trainer.runs.report.programs import as_csv, as_json
from trainer.runs.report.table import listing, table
from trainer.runs.selection import ordered
from trainer.system.files import write_bytes

PAGE, SIDES_PAGE = "report.html", "side_by_side.html"


@dataclass(frozen=True)
class Options:
    """What is printed.

    Attributes:
        kind: table; or json, csv or paths, which write no pages.
        sort: key of the order.
        status: only runs with one of these, as typed; None: all runs. Writes no pages either.
    """

    kind: str = "table"
    sort: str = DEFAULT
    status: str | None = None


def report(folders: Sequence[Path], options: Options) -> None:
    """Print the runs at or below folders, and write the pages. Raises UserError or OSError where
    there is nothing to be reported."""
    if missing := [str(folder) for folder in folders if not folder.is_dir()]:
        raise UserError(f"{', '.join(missing)}: there is no such folder.")
    sides = [rows_of(folder) for folder in folders]
    rows = list({os.path.abspath(row.folder): row for side in sides for row in side}.values())
    base = folders[0] if len(folders) == 1 else folder_above(folders)
    wanted = rows if options.status is None else with_status(rows, options.status)
    shown = sorted_by(rows, options.sort)
    shown = [row for row in shown if row in wanted]
    compared = [ordered(side)[0].folder for side in sides] if len(folders) > 1 else []
    if options.kind == "json":
        print(as_json(rows, base, shown, compared))
    elif options.kind == "csv":
        print(as_csv(rows, shown), end="")
    elif options.kind == "paths":
        print("".join(f"{row.folder}\n" for row in shown), end="")
    elif options.status is not None:
        print(listing(rows, shown, base))
    else:
        print(table(rows, base, shown, compared))
        write_pages(rows, base, compared)


def rows_of(folder: Path) -> list[Row]:
    """Rows of the runs at or below a folder, which must have some. Raises UserError or OSError."""
    closed = unlisted(folder)
    rows = runs_and_jobs(folder)
    for error in closed if rows else []:
        complain(f"{error.filename}: {error.strerror}: what lies there is left out.")
    if closed and not rows:
        raise closed[0]
    if not rows:
        raise UserError(f"{folder}: no runs in this folder. A run's folder holds .hydra/.")
    return rows


def folder_above(folders: Sequence[Path]) -> Path:
    """The deepest folder that holds all of these."""
    return Path(os.path.relpath(os.path.commonpath(map(os.path.abspath, folders))))


def write_pages(rows: list[Row], folder: Path, compared: Sequence[Path]) -> None:
    """report.html in each run's folder and, over several, a page in `folder`, and what is to be
    said of it. A folder that cannot be written to is no failure: the table has been printed.

    Args:
        compared: runs whose keys and confusions stand side by side.
    """
    # Imported here, when the table has been printed: jinja2 takes a tenth of a second.
    from trainer.runs.report import pages, runs_page

    page, problem = folder / (SIDES_PAGE if compared else PAGE), None
    for row in rows:
        if row.status == NOT_STARTED:
            continue
        try:
            content = pages.run_page(row)
        except OSError as error:
            if error.errno is None:  # jinja2's, of a template
                raise
            problem = f"{error.filename}: cannot be read: {error.strerror}."
            continue
        problem = write_page(row.folder / PAGE, content) or problem
    if rows[0].folder != folder:
        problem = write_page(page, runs_page.runs_page(rows, folder, PAGE, compared)) or problem
    if problem:
        print(problem, file=sys.stderr)
    if page.is_file():
        print(f"\nlook at {page}")


def write_page(file: Path, content: str) -> str | None:
    """Whole or not at all; what went wrong, if it did."""
    try:
        write_bytes(file, content.encode("utf-8"))
    except OSError as error:
        return f"{file}: could not be written: {error.strerror}."
    return None

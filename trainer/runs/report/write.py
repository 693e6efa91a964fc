"""Report of a folder: the table is printed, a page is written for each run and for all of them."""

from __future__ import annotations

import sys
from pathlib import Path

from trainer.errors import UserError, complain
from trainer.runs.read import NOT_STARTED, Row, runs_and_jobs, unlisted
from trainer.runs.report.table import as_csv, as_json, table
from trainer.system.files import write_bytes

PAGE = "report.html"


def report(folder: Path, kind: str = "table") -> None:
    """Print the runs, and write the pages.

    Args:
        kind: table; or json or csv, without pages.

    Raises UserError or OSError where there is nothing to be reported."""
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder.")
    closed = unlisted(folder)
    rows = runs_and_jobs(folder)
    for error in closed if rows else []:
        complain(f"{error.filename}: {error.strerror}: what lies there is left out.")
    if closed and not rows:
        raise closed[0]
    if not rows:
        raise UserError(f"{folder}: no runs in this folder. A run's folder holds .hydra/.")
    if kind == "json":
        print(as_json(rows, folder))
    elif kind == "csv":
        print(as_csv(rows), end="")
    else:
        print(table(rows, folder))
        write_pages(rows, folder)


def write_pages(rows: list[Row], folder: Path) -> None:
    """report.html in each run's folder and, over several, in `folder`, and what is to be said of
    it. A folder that cannot be written to is no failure: the table has been printed."""
    # Imported here, when the table has been printed: jinja2 takes a tenth of a second.
    from trainer.runs.report import pages

    page, problem = folder / PAGE, None
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
        problem = write_page(page, pages.runs_page(rows, folder, PAGE)) or problem
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

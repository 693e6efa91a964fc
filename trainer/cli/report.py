"""`trainer report DIR`: a table over the runs in a folder, or over the jobs of a sweep, and pages.

Reads only small files (summary.json, metrics.jsonl, findings.json, .hydra/), so it answers at once
and shows runs that are still going or were killed, too. Each run gets a report.html, and so does
a folder of several.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from trainer.cli.arguments import refuse_in_words
from trainer.runs.report.write import report
from trainer.system.paths import at_home


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
    report(at_home(parser.parse_args(argv).dir))
    return 0

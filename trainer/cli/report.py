"""`trainer report DIR`: a table over the runs in a folder, or over the jobs of a sweep, and pages.

Reads only small files (summary.json, metrics.jsonl, findings.json, .hydra/), so it answers at once
and shows runs that are still going or were killed, too. Each run gets a report.html, and so does
a folder of several.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from trainer.cli.arguments import refuse_in_words
from trainer.errors import UserError
from trainer.runs.report.write import report
from trainer.system.paths import at_home


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="trainer report",
        description="A table over the runs in a folder, best first by validation: what each "
        "changed, what it reached, how sure that is; and a page of it, and of each run.",
    )
    parser.add_argument(
        "dir", type=Path, nargs="?", default=Path("outputs"),
        help="a run, a sweep, or any folder with runs below it (default: outputs)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="all of it as JSON, without pages")
    parser.add_argument("--csv", action="store_true", help="the runs as CSV, without pages")
    parser.add_argument(
        "--suspects", action="store_true",
        help="labels that are probably wrong, by the predictions of a run or of a folds=K sweep, "
        "with a page that shows the images",
    )  # fmt: skip
    refuse_in_words(parser, argv, ())
    args = parser.parse_args(argv)
    if args.json and args.csv:
        raise UserError("--json --csv: one of them at a time.")
    if args.suspects:
        if args.csv:
            raise UserError("--suspects --csv: suspects are printed as a table or --json.")
        # Imported here: it loads the dataset, by torch.
        from trainer.inference.suspects import report_suspects

        report_suspects(at_home(args.dir), args.json)
        return 0
    report(at_home(args.dir), "json" if args.json else "csv" if args.csv else "table")
    return 0

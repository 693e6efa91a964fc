"""`trainer report DIR [DIR ...]`: a table over the runs in folders, or over the jobs of a sweep,
and pages; of several folders side by side.

Reads only small files (summary.json, metrics.jsonl, findings.json, .hydra/), so it answers at once
and shows runs that are still going or were killed, too. Each run gets a report.html, and so does
a folder of several.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from trainer.cli.arguments import refuse_in_words
from trainer.errors import UserError
from trainer.runs.report.order import DEFAULT, STATUSES
from trainer.runs.report.write import Options, report
from trainer.system.paths import at_home


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="trainer report",
        description="A table over the runs in a folder, best first by validation: what each "
        "changed, what it reached, how sure that is; and a page of it, and of each run.",
    )
    parser.add_argument(
        "dir", type=Path, nargs="*", default=[Path("outputs")],
        help="a run, a sweep, or any folder with runs below it (default: outputs); several: side "
        "by side, with the keys in which they differ",
    )  # fmt: skip
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--json", action="store_true", help="all of it as JSON, without pages")
    kinds.add_argument("--csv", action="store_true", help="the runs as CSV, without pages")
    kinds.add_argument(
        "--paths", action="store_true", help="the folders of the runs and no more, one a line"
    )
    parser.add_argument(
        "--sort", metavar="KEY", default=DEFAULT,
        help="order of the runs: folder, train_s, epochs, ... or an override such as optimizer.lr "
        f"(default: {DEFAULT}; never by the test split)",
    )  # fmt: skip
    parser.add_argument(
        "--status", metavar="STATUS",
        help=f"only such runs, without pages: {', '.join(STATUSES)}; several with commas",
    )  # fmt: skip
    parser.add_argument(
        "--suspects", action="store_true",
        help="labels that are probably wrong, by the predictions of a run or of a folds=K sweep, "
        "with a page that shows the images",
    )  # fmt: skip
    refuse_in_words(parser, argv, ())
    args = parser.parse_intermixed_args(argv)
    kind = next((name for name in ("json", "csv", "paths") if getattr(args, name)), "table")
    folders = [at_home(folder) for folder in args.dir]
    options = Options(kind, args.sort, args.status)
    if args.suspects:
        return report_suspects(folders, options)
    report(folders, options)
    return 0


def report_suspects(folders: list[Path], options: Options) -> int:
    """Raises UserError for what plays no part in it."""
    if len(folders) > 1 or options not in (Options(), Options("json")):
        raise UserError("--suspects: takes one run or sweep, and --json beside it.")
    # Imported here: it loads the dataset, by torch.
    from trainer.inference import suspects

    suspects.report_suspects(folders[0], options.kind == "json")
    return 0

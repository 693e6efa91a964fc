"""`trainer compare A B [C ...]`: which of several runs is better, and how sure that is."""

from __future__ import annotations

import argparse
import sys

from trainer.cli.arguments import parse_words
from trainer.errors import UserError


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="trainer compare",
        description="Compares runs, or groups of runs over seeds, on the same images: the "
        "difference of their accuracies with its 95 % interval, and the probability of one as "
        "large between equally good ones (corrected by Holm's rule for several comparisons). "
        "docs/comparing.md says what each figure means.",
        epilog="Keys: split=test (or val).",
    )
    parser.add_argument(
        "side", nargs="+",
        help="a run's folder, a checkpoint, a sweep over seeds, or SWEEP:key=value[,key=value] for "
        "its runs with these overrides",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one JSON object a line and pair")
    args, values = parse_words(parser, argv, ("split",))
    split = values.get("split", "test")
    if split not in ("test", "val"):
        raise UserError(f"split={split}: must be test or val.")
    if len(args.side) < 2:
        raise UserError("compare: at least two sides are needed: trainer compare RUN_A RUN_B.")

    # Imported here: NumPy takes a tenth of a second that --help should not wait for.
    from trainer.runs.compare import compared
    from trainer.runs.compare_text import accuracy_tables, notes, notes_on_training
    from trainer.runs.sides import side_of
    from trainer.text.json_text import json_of

    sides = [side_of(words, split) for words in args.side]
    pairs = compared(sides)
    if args.json:
        print("\n".join(json_of(pair.as_json()) for pair in pairs))
        for note in notes_on_training(sides):
            print(note, file=sys.stderr)
        return 0
    print(accuracy_tables(sides, pairs))
    print()
    for pair in pairs:
        print(pair.verdict)
    print()
    for note in notes(sides, pairs, split):
        print(note)
    return 0

"""`trainer compare A B [C ...]`: which of several runs is better, and how sure that is."""

from __future__ import annotations

import argparse
import json

from trainer.cli.arguments import parse_words


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="trainer compare",
        description="Compares runs, or groups of runs over seeds, on the same images: the "
        "difference of their accuracies with its 95 % interval, and the probability of one as "
        "large between equally good ones (corrected by Holm's rule for several comparisons).",
    )
    parser.add_argument(
        "side", nargs="+",
        help="a run's folder, a checkpoint, a sweep over seeds, or SWEEP:key=value[,key=value] for "
        "its runs with these overrides",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one JSON object a line and pair")
    args, values = parse_words(parser, argv, ("split",))

    from trainer.errors import UserError
    from trainer.evaluation.statistics import wilson
    from trainer.runs.compare import compared, side_of
    from trainer.text.tables import align

    split = values.get("split", "test")
    if split not in ("test", "val"):
        raise UserError(f"split={split}: must be test or val.")
    if len(args.side) < 2:
        raise UserError("compare: at least two sides are needed: trainer compare RUN_A RUN_B.")
    sides = [side_of(words, split) for words in args.side]
    pairs = compared(sides)
    if args.json:
        print("\n".join(json.dumps(pair.as_json()) for pair in pairs))
        return 0
    lines = [["", "runs", "images", "accuracy", "95 %"]]
    for side in sides:
        right = side.right(side.runs[0].images)
        if len(right) == 1:
            interval = wilson(int(right.sum()), right.shape[1])
        else:
            from trainer.evaluation.statistics import spread

            interval = spread(right.mean(axis=1).tolist()).interval
        lines.append([side.name, str(len(right)), f"{right.shape[1]:,}", f"{right.mean():.4f}",
                      f"{interval.low:.4f} to {interval.high:.4f}"])  # fmt: skip
    print(align(lines, left={0}))
    print()
    for pair in pairs:
        print(pair.verdict)
    methods = dict.fromkeys(pair.method for pair in pairs)
    holm = "; p-values corrected by Holm's rule" if len(pairs) > 1 else ""
    print(f"\n{split} split, paired on the same images: {', '.join(methods)}{holm}")
    return 0

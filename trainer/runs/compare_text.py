"""Comparison of runs as text: accuracies of the sides, and how the verdicts were reached."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterator, Sequence

from trainer.evaluation.statistics import spread, wilson
from trainer.runs import image_keys
from trainer.runs.compare import Comparison
from trainer.runs.predictions import NAME
from trainer.runs.shared_images import has_unknown_pixels
from trainer.runs.sides import Side
from trainer.text.tables import align
from trainer.text.values import count


def accuracy_tables(sides: Sequence[Side], pairs: Sequence[Comparison]) -> str:
    """A table of all sides where they are compared on the same images; else one of each pair."""
    if len({tuple(pair.images) for pair in pairs}) == 1:
        return accuracy_table(sides, pairs[0].images)
    both = zip(itertools.combinations(sides, 2), pairs, strict=True)
    return "\n\n".join(accuracy_table(two, pair.images) for two, pair in both)


def accuracy_table(sides: Sequence[Side], images: Sequence[str]) -> str:
    """Accuracy of each side on these images with its interval: Wilson's over the images of one run,
    Student's over the seeds of several."""
    lines = [["", "runs", "images", "accuracy", "std", "95 %"]]
    for side in sides:
        right = side.right(images)
        of_runs, first = right.mean(axis=1).tolist(), right[0]
        if len(of_runs) == 1:
            std, interval = "-", wilson(int(first.sum()), len(first))
        else:
            found = spread(of_runs)
            std, interval = f"{found.std:.4f}", found.interval
        mean = sum(of_runs) / len(of_runs)
        name, numbers = shlex.quote(side.name), [f"{len(of_runs)}", f"{len(first):,}"]
        lines.append([name, *numbers, f"{mean:.4f}", std, str(interval)])
    return align(lines, left={0})


def notes_on_training(sides: Sequence[Side]) -> Iterator[str]:
    """Lines on images that a side was, or may have been, trained on."""
    for side in sides:
        numbers = [run.num_trained_on for run in side.runs]
        drawn = "data.split_seed or another key of the splits was not that of the training"
        if None in numbers:
            yield (
                f"{side.name}: may have been trained on some of these images, which makes it look "
                f"too good: {drawn}, and the run's own {NAME} is not there to tell"
            )
        elif most := max(number or 0 for number in numbers):
            images = count(most, "image that it was", "images that it was")
            yield f"{side.name}: left out {images} trained on: {drawn}"


def notes(sides: Sequence[Side], pairs: Sequence[Comparison], split: str) -> Iterator[str]:
    """Lines on the images that were compared, and on the methods."""
    yield from notes_on_training(sides)
    if any(has_unknown_pixels(a, b) for a, b in itertools.combinations(sides, 2)):
        yield (
            f"images were matched by the names of their files: without {image_keys.NAME} beside "
            f"each {NAME}, which `evaluate` writes, nothing tells whether their pixels are the same"
        )
    sizes = {side.name: len(side.runs[0].images) for side in sides}
    if fewer := [pair for pair in pairs if pair.n < max(sizes[pair.a], sizes[pair.b])]:
        yield (
            f"{fewer[0].a} and {fewer[0].b} were compared on the "
            f"{count(fewer[0].n, 'image that is', 'images that are')} in "
            f"the {split} split of both, so that neither was trained on them; left out: "
            + " and ".join(
                f"{sizes[name] - fewer[0].n:,} of {name}" for name in (fewer[0].a, fewer[0].b)
            )
        )
    holm = ""
    if len(pairs) > 1:
        holm = "; p-values corrected by Holm's rule, intervals those of single comparisons"
    methods = ", ".join(dict.fromkeys(pair.method for pair in pairs))
    of = "held-out folds" if any(side.data.get("folds") for side in sides) else f"{split} split"
    yield f"{of}, paired on the same images: {methods}{holm}"

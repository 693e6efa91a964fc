"""Suspicious labels of a run's images: listed, and shown on a page with their images.

They are told by predictions of images that the model was not trained on: of the validation split of
a run, or of all images but the test split by the runs of a `folds` sweep, each of the fold that it
has held out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.types import Split
from trainer.builders import datasets
from trainer.checkpoints.entries import read
from trainer.config import stored
from trainer.errors import UserError
from trainer.evaluation import plots
from trainer.evaluation.label_errors import suspects
from trainer.runs import predictions
from trainer.runs.read import read_runs
from trainer.runs.report import html
from trainer.system.files import write_bytes
from trainer.text.json_text import json_of
from trainer.text.tables import align
from trainer.text.values import count

PAGE = "suspects.html"
MOST_LISTED, MOST_SHOWN = 20, 200  # on the terminal, on the page
LABEL, LOSS, FIRST_CLASS = 3, 6, 7  # columns of predictions.csv
FIRST_SHARE = FIRST_CLASS + predictions.TOP


@dataclass(frozen=True)
class Source:
    """Split of a run whose images were predicted without being trained on."""

    run: Path
    split: str
    rows: list[list[str]]


@dataclass(frozen=True)
class Suspect:
    """Image whose label is probably wrong. position: in the split of its source."""

    source: Source
    position: int
    label: str
    suggested: str
    of_label: float
    of_suggested: float

    @property
    def row(self) -> list[str]:
        return self.source.rows[self.position]

    @property
    def name(self) -> str:
        return self.row[2] or f"image {self.row[1]}"

    def as_json(self) -> dict[str, Any]:
        return {
            "file": self.row[2] or None, "index": int(self.row[1]), "label": self.label,
            "suggested": self.suggested, "probability_of_label": self.of_label,
            "probability_of_suggested": self.of_suggested,
        }  # fmt: skip


def report_suspects(folder: Path, as_json: bool) -> None:
    """Print the suspects of a run or a `folds` sweep, and write suspects.html into its folder.
    Raises UserError."""
    sources = sources_of(folder)
    found = find(sources)
    if as_json:
        print(json_of([one.as_json() for one in found], indent=1))
        return
    num_images = sum(len(source.rows) for source in sources)
    print(f"{len(found):,} of {count(num_images, 'label')} "
          f"{'is' if len(found) == 1 else 'are'} probably wrong, by predictions of images "
          "that the model was not trained on")  # fmt: skip
    if not found:
        (folder / PAGE).unlink(missing_ok=True)  # of an earlier look
        return
    lines = [["image", "label", "probably", "p(label)", "p(probably)"]]
    lines += [
        [one.name, one.label, one.suggested, f"{one.of_label:.4f}", f"{one.of_suggested:.4f}"]
        for one in found[:MOST_LISTED]
    ]
    print(f"\n{align(lines, left=(0, 1, 2))}")
    if len(found) > MOST_LISTED:
        print(f"and {len(found) - MOST_LISTED:,} more")
    write_bytes(folder / PAGE, page(folder, found, num_images).encode())
    print(f"\nlook at {folder / PAGE}")


def sources_of(folder: Path) -> list[Source]:
    """The held-out folds of a sweep's runs, or the validation split of a run."""
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder.")
    rows = read_runs(folder)
    folds = [row.folder for row in rows if row.fold is not None and row.folder != folder]
    if len({row.fold for row in rows}) < len(folds):
        raise UserError(
            f"{folder}: several runs hold out the same fold. Name a sweep of one run for each "
            "fold, or a run."
        )
    if not folds and [row.folder for row in rows] != [folder]:
        raise UserError(
            f"{folder}: suspects are those of a run, by its validation split, or of a sweep with "
            "folds=K, by all images. Name one."
        )
    split = "test" if folds else "val"
    if unfinished := [row for row in rows if folds and row.status != "finished"]:
        waiting = count(len(unfinished), "fold is", "folds are")
        print(f"{waiting} not finished, and their images left out")
        folds = [run for run in folds if run not in {row.folder for row in unfinished}]
    return [Source(run, split, rows_of(run, split)) for run in folds or [folder]]


def rows_of(run: Path, split: str) -> list[list[str]]:
    file = run / predictions.NAME
    try:
        found = predictions.read_rows(file, split)
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read: {error}") from error
    if not found:
        raise UserError(f"{file}: has no predictions of the {split} split.")
    return found


def find(sources: Sequence[Source]) -> list[Suspect]:
    """Suspects of all sources together, the most certain first."""
    places = [(source, i) for source in sources for i in range(len(source.rows))]
    rows = [row for source in sources for row in source.rows]
    names = sorted({row[LABEL] for row in rows} | {name for row in rows for name in top_of(row)})
    number = {name: k for k, name in enumerate(names)}
    found = suspects(
        np.array([number[row[LABEL]] for row in rows], dtype=np.int64),
        np.exp([-float(row[LOSS] or "inf") for row in rows]),
        np.array([[number.get(n, -1) for n in top_of(row, pad=True)] for row in rows]),
        np.array([[float(p or 0) for p in row[FIRST_SHARE:]] for row in rows]),
    )
    shown = []
    columns = (found.rows, found.suggested, found.of_label, found.of_suggested)
    for i, k, of_label, share in zip(*(column.tolist() for column in columns), strict=True):
        source, position = places[i]
        shown.append(Suspect(source, position, rows[i][LABEL], names[k], of_label, share))
    return shown


def top_of(row: Sequence[str], pad: bool = False) -> list[str]:
    """The most probable classes of a row; with `pad`, "" for those that are missing."""
    return [name for name in row[FIRST_CLASS:FIRST_SHARE] if name or pad]


def page(folder: Path, found: Sequence[Suspect], num_images: int) -> str:
    splits: dict[Path, Split] = {}
    shown = []
    for one in found[:MOST_SHOWN]:
        if one.source.run not in splits:
            splits[one.source.run] = images_of(one.source)
        split = splits[one.source.run]
        pixels = split.images_at(split.labels.new_tensor([one.position]))[0]
        shown.append({
            "source": plots.data_uri(pixels), "name": one.name, "label": one.label,
            "suggested": one.suggested, "of_label": f"{one.of_label:.1%}",
            "of_suggested": f"{one.of_suggested:.1%}",
        })  # fmt: skip
    return html.render(
        "suspects.html", title="Suspicious labels", folder=folder.resolve(), num_images=num_images,
        num_found=len(found), shown=shown,
    )  # fmt: skip


def images_of(source: Source) -> Split:
    """Images of a source, loaded as its best checkpoint says. Raises UserError."""
    entries = read(source.run / "checkpoints" / "best.pth")
    config, _ = stored.own_sources(stored.configuration(entries), {})
    split: Split = getattr(datasets.load_data(config["data"]), source.split)
    if len(split) < len(source.rows):
        raise UserError(
            f"{source.run}: its {source.split} split has {count(len(split), 'image')} now, and "
            f"{predictions.NAME} {len(source.rows):,}. Train again, or restore the files."
        )
    return split

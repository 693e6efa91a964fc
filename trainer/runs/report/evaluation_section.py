"""What was found in a split, as a part of a page: confusion, mistakes, each class."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from trainer.evaluation.confusion import commonest_confusions, per_class
from trainer.runs.report import html, svg
from trainer.text.printable import in_html as escape

MOST_CLASSES = 1000  # in a matrix and in a table: with more, no browser shows the page


def findings(found: dict[str, Any], classes: Sequence[str]) -> str:
    """What findings.json says of a split. Raises KeyError, TypeError, ValueError or IndexError if
    it is not what it should be."""
    cells = [(int(true), int(said), int(count)) for true, said, count in found["confusion"]]
    if any(not (0 <= t < len(classes) and 0 <= s < len(classes) and 0 <= n < 2**53)
           for t, s, n in cells):  # fmt: skip
        raise ValueError("a cell of no class")
    numbers = [("top-5 accuracy", found["top5"]), ("calibration error", found["calibration_error"])]
    if len(classes) <= 5:
        numbers = numbers[1:]
    words = [f"{name} {float(value):.4f}" for name, value in numbers if value is not None]
    return "".join([
        html.text(", ".join(words)) if words else "",
        f'<div class="beside">{matrix(cells, classes)}',
        f"<div>{most_confused(cells, classes)}</div></div>",
        mistakes(found["mistakes"], classes),
        html.folded(
            "Each class" if len(classes) <= MOST_CLASSES else
            f"The {MOST_CLASSES:,} of {len(classes):,} classes with the lowest F1",
            by_class(cells, classes),
        ),
    ])  # fmt: skip


def matrix(cells: Sequence[tuple[int, int, int]], classes: Sequence[str]) -> str:
    if len(classes) > MOST_CLASSES:
        return html.text(
            f"A matrix of {len(classes):,} classes is too large to be drawn; findings.json has its "
            "cells.", "quiet",
        )  # fmt: skip
    return f'<div class="scroll">{svg.confusion_matrix(cells, classes)}</div>'


def most_confused(
    cells: Sequence[tuple[int, int, int]], classes: Sequence[str], most: int = 8
) -> str:
    wrong = commonest_confusions(cells, most)
    if not wrong:
        return html.text("No picture was taken for one of another class.")
    items = "".join(
        f"<li><b>{escape(classes[true])}</b> taken for <b>{escape(classes[said])}</b> "
        f"<span>{count:,}</span></li>"
        for true, said, count in wrong
    )
    return f'<h3>Most often confused</h3><ul class="pairs">{items}</ul>'


def mistakes(found: Sequence[dict[str, Any]], classes: Sequence[str]) -> str:
    """The pictures, the surest mistake first."""
    shown = []
    for mistake in found:
        if not re.fullmatch(r"data:image/png;base64,[A-Za-z0-9+/=]+", mistake["picture"]):
            raise ValueError("a picture is no data: URI")
        said, was = classes[mistake["said"]], classes[mistake["was"]]
        sure = "" if mistake["probability"] is None else f" {float(mistake['probability']):.0%}"
        file = mistake.get("file")  # older runs have none, nor have sets without files
        name = f"<br>{escape(str(file))}" if file else ""
        shown.append(
            f'<figure><img src="{mistake["picture"]}" alt="picture {int(mistake["index"])}">'
            f"<figcaption>said <b>{escape(said)}</b>{sure}<br>was <b>{escape(was)}</b>{name}"
            "</figcaption></figure>"
        )
    inside = "".join(shown)
    return f'<h3>Surest mistakes</h3><div class="mistakes">{inside}</div>' if shown else ""


def by_class(cells: Sequence[tuple[int, int, int]], classes: Sequence[str]) -> str:
    figures = per_class(cells, len(classes))
    shown: Sequence[int] = range(len(classes))
    if len(classes) > MOST_CLASSES:
        shown = sorted(shown, key=lambda k: figures[k]["f1"])[:MOST_CLASSES]
    rows = [
        [
            html.cell(classes[k]), html.cell(f"{figures[k]['count']:,}"),
            *(html.cell(f"{figures[k][key]:.4f}") for key in ("precision", "recall", "f1")),
        ]
        for k in shown
    ]  # fmt: skip
    return html.table(["class", "pictures", "precision", "recall", "F1"], rows)

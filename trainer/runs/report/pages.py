"""The pages of `report`: of one run, and of several side by side."""

from __future__ import annotations

import math
import os
import shlex
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from trainer.evaluation.statistics import Interval
from trainer.runs import side_files
from trainer.runs.read import (
    LARGEST,
    Row,
    duration,
    noted_choices,
    read_metrics,
    read_summary,
    share,
    shared_overrides,
    text,
)
from trainer.runs.report import html
from trainer.runs.report.data_section import counts, data
from trainer.runs.report.evaluation_section import Evaluation, evaluation
from trainer.runs.report.result import result
from trainer.runs.report.svg import Chart, Line, line_chart
from trainer.runs.report.table import held_out_name, interval, over_seeds
from trainer.runs.selection import RULE, Configuration, ordered, selected
from trainer.runs.side_files import is_number, read_json, readable
from trainer.text.values import count

MOST_NAMED = 8  # runs in a legend
SHARE, POSITIVE = (0.0, 1.0), (0.0, math.inf)  # limits of values
OVERLAID = (
    ("Validation accuracy", "val", "accuracy", SHARE), ("Validation loss", "val", "loss", POSITIVE),
    ("Training loss", "train", "loss", POSITIVE), ("Learning rate", "train", "lr", POSITIVE),
)  # fmt: skip
TRAIN, VAL, TEST, OTHER = 0, 1, 2, 3  # colours of a run's lines
FACTS: dict[str, Callable[[Any], str]] = {  # keys of summary.json
    "device": str, "steps": "{:,}".format, "test_loss": "{:.4f}".format,
    "peak_memory_bytes": lambda count: f"{count / 1e6:,.0f} MB", "checkpoint": str,
    "weights_sha256": str,
}  # fmt: skip


def run_page(row: Row) -> str:
    """Curves, result, mistakes and configuration of one run, as far as it has come."""
    folder = row.folder
    metrics = readable([], read_metrics, folder / "metrics.jsonl")
    summary = readable({}, read_summary, folder)
    chosen = readable({}, noted_choices, folder / ".hydra" / "hydra.yaml")
    known = {"model", "data"} <= chosen.keys()
    title = f"{chosen['model']} on {chosen['data']}" if known else name_of(folder)
    return html.render(
        "run.html",
        title=title,
        name=name_of(folder),
        folder=folder.resolve(),
        row=row,
        held_out=f"{row.fold[:1].upper()}{row.fold[1:]}" if row.fold else "Test split",
        kind=kind_of(row),
        command=shlex.join(["python", "-m", "trainer", *map(typed, row.overrides)]),
        notes=[*readable([], counts, folder), *result([row], folder, set())],
        figures=readable([], figures, row, summary),
        charts=curves(metrics, row.best_epoch),
        evaluated=readable({}, evaluated, folder),
        data=readable(None, data, folder),
        facts=readable([], facts, folder, summary),
        files=files(folder),
    )


def typed(word: str) -> str:
    """An override as it was typed, without the quotes that were put around a text."""
    if "'" not in word:
        return word
    from trainer.config.overrides import as_pasted  # Hydra takes a third of a second

    return as_pasted(word)


def name_of(folder: Path) -> str:
    """The last two names of its path: a day and a time, or a sweep and a job."""
    return "/".join(folder.resolve().parts[-2:])


def kind_of(row: Row) -> str:
    """Style in which the reason of a run is shown: who stopped one knows why."""
    return "bad" if row.status == "failed" else "quiet"


def figures(row: Row, summary: dict[str, Any]) -> list[tuple[str, str]]:
    tested = f"{row.held_out or 'test'} accuracy"
    found: list[tuple[str, Any, Callable[[Any], str]]] = [
        (
            "best val accuracy" + of_images(row.num_val_images, row.val_interval),
            row.val_accuracy,
            share,
        ),
        (tested + of_images(row.num_test_images, row.test_interval), row.test_accuracy, share),
        ("best epoch", row.best_epoch, lambda epoch: f"{epoch} of {text(row.epochs)}"),
        ("training time", row.train_s, duration),
        ("images/s", row.images_per_s, "{:,.0f}".format),
        ("parameters", summary.get("num_parameters"), "{:,}".format),
    ]
    return [(name, spell(value)) for name, value, spell in found if is_shown(value)]


def of_images(number: int | None, interval: Interval | None) -> str:
    """Rest of an accuracy's name; empty of an older run."""
    return "" if interval is None else f" of {count(number or 0, 'image')}, 95 %: {interval}"


def is_shown(value: Any) -> bool:
    return is_number(value) and abs(value) < LARGEST


def points(metrics: list[Any], split: str, key: str) -> list[tuple[float, float | None]]:
    """(epoch, value) of the whole rows; the value None where a row has none."""
    found = []
    for row in metrics:
        if isinstance(row, dict) and row.get("split") == split:
            epoch, value = row.get("epoch"), row.get(key)
            if isinstance(epoch, int):
                found.append((float(epoch), value if is_shown(value) else None))
    return found


def curves(metrics: list[Any], best_epoch: int | None) -> list[Chart]:
    drawn = []
    for key, limits in (("loss", POSITIVE), ("accuracy", SHARE)):
        # The test is of the weights of the best epoch, whenever it took place.
        test = [(best_epoch or epoch, value) for epoch, value in points(metrics, "test", key)]
        lines = [
            Line("train", points(metrics, "train", key), TRAIN),
            Line("val", points(metrics, "val", key), VAL),
            Line("test", test, TEST),
        ]
        drawn.append(line_chart(key.capitalize(), lines, best_epoch, True, limits))
    for title, key in (("Learning rate", "lr"), ("Training images per second", "images_per_s")):
        line = Line(title.lower(), points(metrics, "train", key), OTHER)
        drawn.append(line_chart(title, [line]))
    return [chart for chart in drawn if chart]


def evaluated(folder: Path) -> dict[str, Evaluation]:
    """Evaluation of each split by findings.json, which finished runs have."""
    content = read_json(folder / "findings.json")
    classes = [str(name) for name in content["classes"]]
    splits = [split for split in ("val", "test") if split in content]
    return {split: evaluation(content[split], classes) for split in splits}


def facts(folder: Path, summary: dict[str, Any]) -> list[tuple[str, str]]:
    known = {key: value for key, value in summary.items() if value is not None}
    versions = known.pop("versions", {})
    versions = versions if isinstance(versions, dict) else {}
    rows = [("folder", str(folder.resolve()))]
    for key, spell in FACTS.items():
        is_text = spell is str and isinstance(known.get(key), str)
        if is_text or (spell is not str and is_shown(known.get(key))):
            rows.append((key.removesuffix("_bytes").replace("_", " "), spell(known[key])))
    rows += [(name, v) for name, v in versions.items() if isinstance(v, str)]
    last = max(
        file.stat().st_mtime for file in folder.iterdir() if file.suffix in (".json", ".jsonl")
    )
    return [*rows, ("last written", time.strftime("%Y-%m-%d %H:%M", time.localtime(last)))]


def files(folder: Path) -> list[tuple[str, str]]:
    """Those that are shown as they are: name, content."""
    shown = {
        path.name: readable(b"", side_files.content, path).decode("utf-8", "replace")
        for path in (folder / ".hydra" / "config.yaml", folder / "trainer.log")
    }
    return [(name, content) for name, content in shown.items() if content]


def runs_page(rows: list[Row], folder: Path, page: str) -> str:
    """A table of the runs, which leads to their pages, and their curves over each other."""
    rows, shared = ordered(rows), shared_overrides(rows)
    chosen = selected(rows)
    of_chosen = {row.folder for one in chosen for row in one.rows}
    lines = [Line(name, (), i) for i, name in enumerate(names_of(rows, folder, shared))]
    return html.render(
        "runs.html",
        title=name_of(folder),
        folder=folder.resolve(),
        figures=sums(rows, chosen),
        shared=" ".join(sorted(shared)),
        rule=RULE if chosen else "",
        result=result(rows, folder, shared),
        runs=[
            run_line(i, row, folder, page, shared, row.folder in of_chosen)
            for i, row in enumerate(rows)
        ],
        reasons=[
            (row.folder.relative_to(folder), row.reason, kind_of(row)) for row in rows if row.reason
        ],
        seeds=over_seeds(rows, shared),
        held_out=held_out_name(rows),
        charts=overlaid(rows, lines),
        legend=lines if len(rows) <= MOST_NAMED else (),
    )


def sums(rows: list[Row], chosen: Sequence[Configuration]) -> list[tuple[str, str]]:
    """Figures at the top: the runs, and of the selected configuration, where there is one, its
    validation and test accuracy."""
    found = [("runs", text(len(rows)))]
    found += [(status, text(n)) for status, n in Counter(row.status for row in rows).items()]
    if len(chosen) == 1:
        best = chosen[0]
        if len(best.rows) == 1:
            row = best.rows[0]
            val = "best val accuracy" + of_images(row.num_val_images, row.val_interval)
            test = "its test accuracy" + of_images(row.num_test_images, row.test_interval)
            figures = [(val, row.val_accuracy), (test, row.test_accuracy)]
        else:
            what, test = ("folds", "held-out") if best.num_folds else ("seeds", "test")
            figures = [(f"best val mean of {best.val.n} {what}, 95 %: {best.val.interval}",
                        best.val.mean)]  # fmt: skip
            if best.test is not None:
                figures.append((f"its {test} mean, 95 %: {best.test.interval}", best.test.mean))
        found += [(name, share(value)) for name, value in figures if value is not None]
    return [*found, ("training time", duration(sum(row.train_s or 0.0 for row in rows)))]


def changed(row: Row, shared: set[str]) -> str:
    """Overrides of a run that not all of the others share."""
    return " ".join(word for word in row.overrides if word not in shared)


@dataclass(frozen=True)
class RunLine:
    """A run in the table. page: its address, or "". css: of its curves. Numbers: (as shown, as
    sorted)."""

    name: str
    page: str
    changed: str
    css: str
    status: str
    is_selected: bool
    accuracies: list[tuple[str, float]]
    costs: list[tuple[str, float]]


def run_line(
    i: int, row: Row, folder: Path, page: str, shared: set[str], is_selected: bool
) -> RunLine:
    name, target = str(row.folder.relative_to(folder)), row.folder / page
    address = quote(os.fsencode(target.relative_to(folder))) if target.is_file() else ""
    rate = "-" if row.images_per_s is None else f"{row.images_per_s:,.0f}"
    val, test = row.val_interval, row.test_interval
    numbers = [
        (share(row.val_accuracy), row.val_accuracy), (interval(val), val and val.low),
        (share(row.test_accuracy), row.test_accuracy), (interval(test), test and test.low),
        (text(row.best_epoch), row.best_epoch), (text(row.epochs), row.epochs),
        (duration(row.train_s), row.train_s), (rate, row.images_per_s),
    ]  # fmt: skip
    cells = [(shown, -1 if value is None else value) for shown, value in numbers]
    return RunLine(
        name, address, changed(row, shared), Line(name, (), i).css, row.status, is_selected,
        cells[:4], cells[4:],
    )  # fmt: skip


def names_of(rows: list[Row], folder: Path, shared: set[str]) -> list[str]:
    """A run is called by what it changed, if no other changed the same."""
    names = [changed(row, shared) for row in rows]
    if not all(names) or len(set(names)) < len(names):
        names = [str(row.folder.relative_to(folder)) for row in rows]
    return names


def overlaid(rows: list[Row], lines: Sequence[Line]) -> list[Chart]:
    """The same figure of all runs in one chart each; of many, the table alone names the colours."""
    metrics = [readable([], read_metrics, row.folder / "metrics.jsonl") for row in rows]
    drawn = [
        line_chart(title, [
            replace(line, points=points(of_run, split, key))
            for line, of_run in zip(lines, metrics, strict=True)
        ], limits=limits)
        for title, split, key, limits in OVERLAID
    ]  # fmt: skip
    return [chart for chart in drawn if chart]

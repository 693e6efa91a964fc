"""The pages of `report`: of one run, and of several side by side."""

from __future__ import annotations

import re
import shlex
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from trainer.runs import side_files
from trainer.runs.read import (
    LARGEST,
    Row,
    duration,
    over_seeds,
    read_metrics,
    read_summary,
    share,
    shared_overrides,
    text,
)
from trainer.runs.report import evaluation_section, html
from trainer.runs.report.svg import Line
from trainer.runs.side_files import UNREADABLE, is_number, read_json, read_text
from trainer.text.printable import in_html as escape

T = TypeVar("T")

SELECTION = "Bold: the best by validation accuracy. The test split selects nothing."

TRAIN, VAL, TEST, OTHER = 0, 1, 2, 3  # colours of a run's lines
FACTS: dict[str, Callable[[Any], str]] = {  # keys of summary.json
    "device": str, "steps": "{:,}".format, "test_loss": "{:.4f}".format,
    "peak_memory_bytes": lambda count: f"{count / 1e6:,.0f} MB", "checkpoint": str,
    "weights_sha256": str,
}  # fmt: skip


def readable(otherwise: Any, read: Callable[..., T], *arguments: Any) -> T:
    """What can be read of a run, which may have been killed while it wrote."""
    try:
        return read(*arguments)
    except UNREADABLE:
        return otherwise


def run_page(row: Row) -> str:
    """Curves, result, mistakes and configuration of one run, as far as it has come."""
    folder = row.folder
    metrics = readable([], read_metrics, folder / "metrics.jsonl")
    summary = readable({}, read_summary, folder)
    chosen = readable({}, choices, folder)
    title = f"{chosen['model']} on {chosen['data']}" if len(chosen) == 2 else name_of(folder)
    body = [
        html.heading(title, row.status, html.text(str(folder.resolve()), "quiet") + command(row)),
        html.text(row.reason, kind_of(row)) if row.reason else "",
        html.figures(readable([], figures, row, summary)),
        html.section("Curves", curves(metrics, row.best_epoch)),
        *readable([], splits, folder),
        html.section("Run", html.facts(readable([], facts, folder, summary))),
        html.section(
            "Configuration and log",
            file_of(folder / ".hydra" / "config.yaml", "config.yaml"),
            file_of(folder / "trainer.log", "trainer.log"),
        ),
    ]
    return html.page(f"{title} - {name_of(folder)}", body)


def name_of(folder: Path) -> str:
    """The last two names of its path: a day and a time, or a sweep and a job."""
    return "/".join(folder.resolve().parts[-2:])


def kind_of(row: Row) -> str:
    """How its reason is shown: who stopped a run knows why."""
    return "bad" if row.status == "failed" else "quiet"


def command(row: Row) -> str:
    return html.code(shlex.join(["python", "-m", "trainer", *row.overrides]))


def choices(folder: Path) -> dict[str, str]:
    """The model and the data set, as Hydra noted what was chosen of each group."""
    noted = read_text(folder / ".hydra" / "hydra.yaml").partition("\n    choices:\n")[2]
    return dict(re.findall(r"^      (model|data): (\S+)$", noted, re.MULTILINE))


def figures(row: Row, summary: dict[str, Any]) -> list[tuple[str, str]]:
    found: list[tuple[str, Any, Callable[[Any], str]]] = [
        ("test accuracy", row.test_accuracy, share),
        ("best val accuracy", row.val_accuracy, share),
        ("best epoch", row.best_epoch, lambda epoch: f"{epoch} of {text(row.epochs)}"),
        ("training time", row.train_s, duration),
        ("images/s", row.images_per_s, "{:,.0f}".format),
        ("parameters", summary.get("num_parameters"), "{:,}".format),
    ]
    return [(name, spell(value)) for name, value, spell in found if is_shown(value)]


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


def curves(metrics: list[Any], best_epoch: int | None) -> str:
    drawn = []
    for key in ("loss", "accuracy"):
        # The test is of the weights of the best epoch, whenever it took place.
        test = [(best_epoch or epoch, value) for epoch, value in points(metrics, "test", key)]
        lines = [
            Line("train", points(metrics, "train", key), TRAIN),
            Line("val", points(metrics, "val", key), VAL),
            Line("test", test, TEST),
        ]
        drawn.append(html.chart(key.capitalize(), lines, best_epoch))
    for title, key in (("Learning rate", "lr"), ("Training images per second", "images_per_s")):
        line = Line(title.lower(), points(metrics, "train", key), OTHER)
        drawn.append(html.chart(title, [line], legend=False))
    return html.charts(*drawn)


def splits(folder: Path) -> list[str]:
    """What findings.json tells, which a run that has ended well has."""
    content = read_json(folder / "findings.json")
    classes = [str(name) for name in content["classes"]]
    test, val = (evaluation_section.findings(content[split], classes) for split in ("test", "val"))
    return [
        html.section("Test split, with the weights of the best epoch", test),
        html.folded("Validation split", val, "top"),
    ]


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


def file_of(file: Path, name: str) -> str:
    content = readable(b"", side_files.content, file).decode("utf-8", "replace")
    return html.folded(name, html.code(content)) if content else ""


def runs_page(rows: list[Row], folder: Path, page: str) -> str:
    """A table of the runs, which leads to their pages, and their curves over each other."""
    shared = shared_overrides(rows)
    counts = Counter(row.status for row in rows)
    best = best_of(rows)
    title = name_of(folder)
    seeds = [
        [html.cell(name), html.cell(text(n)), html.cell(share(mean)), html.cell(share(deviation))]
        for name, n, mean, deviation in over_seeds(rows, shared)
    ]
    failures = [
        html.text(f"{row.folder.relative_to(folder)}: {row.reason}", kind_of(row))
        for row in rows
        if row.reason
    ]
    body = [
        html.heading(title, below=html.text(str(folder.resolve()), "quiet")),
        html.figures([
            ("runs", text(len(rows))),
            *((status, text(count)) for status, count in counts.items()),
            *([("best val accuracy", share(best.val_accuracy)),
               ("its test accuracy", share(best.test_accuracy))] if best else []),
            ("training time", duration(sum(row.train_s or 0.0 for row in rows))),
        ]),
        html.section("Runs", html.text(f"All: {' '.join(sorted(shared))}") if shared else "",
                     html.text(SELECTION, "quiet") if best else "",
                     runs_table(rows, folder, page, shared, best)),
        html.section("Reasons", *failures),
        html.section("Over seeds", html.table(["runs that differ in the seed alone", "runs",
                     "test mean", "std"], seeds) if seeds else ""),
        html.section("Curves", overlaid(rows, folder, shared)),
    ]  # fmt: skip
    return html.page(title, body, html.SORT)


def best_of(rows: list[Row]) -> Row | None:
    """The run with the greatest validation accuracy, if all were validated on the same data:
    nothing is selected by the test split."""
    known = [row for row in rows if row.val_accuracy is not None]
    if len({readable("", data_options, row.folder) for row in known}) != 1:
        return None
    return max(known, key=lambda row: row.val_accuracy or 0.0)


def data_options(folder: Path) -> str:
    """Those of its data set, as Hydra noted them."""
    noted = read_text(folder / ".hydra" / "config.yaml")
    return "".join(re.findall(r"^data:\n(?: .*\n)+", noted, re.MULTILINE))


def changed(row: Row, shared: set[str]) -> str:
    """What its command line changed and others' did not."""
    return " ".join(word for word in row.overrides if word not in shared)


def runs_table(rows: list[Row], folder: Path, page: str, shared: set[str], best: Row | None) -> str:
    header = ["run", "val", "test", "status", "best epoch", "epochs", "time", "images/s"]
    lines = []
    for i, row in enumerate(rows):
        name, target = str(row.folder.relative_to(folder)), row.folder / page
        leads_to = quote(target.relative_to(folder).as_posix())
        shown = html.link(leads_to, name) if target.is_file() else escape(name)
        numbers = [
            (row.val_accuracy, share(row.val_accuracy)),
            (row.test_accuracy, share(row.test_accuracy)),
            (row.best_epoch, text(row.best_epoch)), (row.epochs, text(row.epochs)),
            (row.train_s, duration(row.train_s)),
            (row.images_per_s, "-" if row.images_per_s is None else f"{row.images_per_s:,.0f}"),
        ]  # fmt: skip
        cells = [html.cell(shown, -1 if value is None else value) for value, shown in numbers]
        words = changed(row, shared)
        below = f"<small>{escape(words)}</small>" if words else ""
        lines.append([
            (f"{html.swatch(i)} {shown}{below}", name),
            *cells[:2], html.badge(row.status), *cells[2:],
        ])  # fmt: skip
    return html.table(header, lines, left=(0, 3), sortable=True,
                      marked=rows.index(best) if best else None)  # fmt: skip


def overlaid(rows: list[Row], folder: Path, shared: set[str]) -> str:
    """The same figure of all runs in one chart each; of many, the table alone names the colours.
    A run is called by what it changed, if no other changed the same."""
    names = [changed(row, shared) for row in rows]
    if not all(names) or len(set(names)) < len(names):
        names = [str(row.folder.relative_to(folder)) for row in rows]
    metrics = [readable([], read_metrics, row.folder / "metrics.jsonl") for row in rows]
    drawn = []
    for title, split, key in (
        ("Validation accuracy", "val", "accuracy"), ("Validation loss", "val", "loss"),
        ("Training loss", "train", "loss"), ("Learning rate", "train", "lr"),
    ):  # fmt: skip
        lines = [
            Line(name, points(of_run, split, key), i)
            for i, (name, of_run) in enumerate(zip(names, metrics, strict=True))
        ]
        drawn.append(html.chart(title, lines, legend=False))
    return html.charts(*drawn, legend=lines if len(rows) <= 8 else ())

"""Page of one run."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainer.evaluation.statistics import Interval
from trainer.runs import side_files
from trainer.runs.read import (
    Row,
    duration,
    noted_choices,
    read_metrics,
    read_summary,
    share,
    text,
)
from trainer.runs.report import html
from trainer.runs.report.curves import POSITIVE, SHARE, is_shown, points
from trainer.runs.report.data_section import counts, data
from trainer.runs.report.evaluation_section import Evaluation, evaluation
from trainer.runs.report.result import result
from trainer.runs.report.svg import Chart, Line, line_chart
from trainer.runs.side_files import read_json, readable
from trainer.text.values import count

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

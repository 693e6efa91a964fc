"""Page of several runs: what validation chose, curves, the swept values, the table of all."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from trainer.runs.read import Row, duration, share, shared_overrides, text
from trainer.runs.report import html, pages, swept
from trainer.runs.report.curves import overlaid
from trainer.runs.report.differences import MOST_KEYS, side_by_side, silent
from trainer.runs.report.evaluation_section import MOST_CLASSES, Evaluation
from trainer.runs.report.groups import Group, groups_of
from trainer.runs.report.names import changed, override_values, run_name
from trainer.runs.report.result import best_run, result
from trainer.runs.report.svg import OTHER
from trainer.runs.report.table import held_out_name, interval, over_seeds
from trainer.runs.selection import Configuration, is_repeat, ordered, rule, selected
from trainer.runs.side_files import read_json, readable
from trainer.text.values import count

MOST_COLUMNS = 6  # overrides with a column of their own
MOST_CONFUSIONS = 6


def runs_page(rows: list[Row], folder: Path, page: str, compared: Sequence[Path] = ()) -> str:
    """A table of the runs, which leads to their pages, and their curves over each other.

    Args:
        page: name of a run's own page.
        compared: runs whose keys and confusions stand side by side.
    """
    found = silent(rows) if not compared else []
    rows, shared = ordered(rows), shared_overrides(rows)
    chosen, groups = selected(rows), groups_of(rows, shared)
    of_chosen = {row.folder for one in chosen for row in one.rows}
    places = {row.folder: i for i, group in enumerate(groups) for row in group.rows}
    columns = columns_of(rows, shared)
    maps, parallel = swept.drawings(groups) if len(chosen) == 1 else ([], None)
    return html.render(
        "runs.html",
        title=pages.name_of(folder),
        folder=folder.resolve(),
        command=command_of(folder),
        figures=sums(rows, chosen),
        shared=" ".join(sorted(shared)),
        rule=rule(rows) if chosen else "",
        result=result(rows, folder, shared),
        best=["\n".join(best_run(one, folder, shared)) for one in chosen],
        silent=found[:MOST_KEYS],
        more=counted(len(found) - MOST_KEYS, "more key"),
        columns=columns,
        runs=[
            run_line(row, folder, page, shared, columns, row.folder in of_chosen,
                     groups[places[row.folder]].css, places[row.folder])
            for row in rows
        ],
        reasons=[
            (run_name(row.folder, folder), row.reason, pages.kind_of(row))
            for row in rows if row.reason
        ],
        seeds=over_seeds(rows, shared),
        held_out=held_out_name(rows),
        charts=overlaid(groups, shared),
        has_bands=any(len(group.rows) > 1 for group in groups),
        legend=legend(groups),
        others=counted(sum(group.style == OTHER for group in groups), "other"),
        maps=maps,
        parallel=parallel,
        **sides(compared, folder),
    )  # fmt: skip


def command_of(folder: Path) -> str:
    """Command of the sweep in a folder; "" if it holds none."""
    words = readable({}, read_json, folder / "sweep.json").get("command")
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        return ""
    flag = [] if {"--multirun", "-m"} & set(words) else ["--multirun"]
    return " ".join(["python -m trainer", *map(quoted, [*flag, *words])])


def quoted(word: str) -> str:
    """For a shell; a word with Hydra's own quotes in double ones, which are easier to read."""
    return f'"{word}"' if "'" in word and not set('"$`!\\') & set(word) else shlex.quote(word)


def sums(rows: list[Row], chosen: Sequence[Configuration]) -> list[tuple[str, str]]:
    """Figures at the top: the runs, and of the selected configuration, where there is one, its
    validation and test accuracy."""
    found = [("runs", text(len(rows)))]
    found += [(status, text(n)) for status, n in Counter(row.status for row in rows).items()]
    if len(chosen) == 1:
        best = chosen[0]
        if len(best.rows) == 1:
            row = best.rows[0]
            val = "best val accuracy" + pages.of_images(row.num_val_images, row.val_interval)
            test = "its test accuracy" + pages.of_images(row.num_test_images, row.test_interval)
            figures = [(val, row.val_accuracy), (test, row.test_accuracy)]
        else:
            what, test = ("folds", "held-out") if best.num_folds else ("seeds", "test")
            figures = [(f"best val mean of {best.val.n} {what}, 95 %: {best.val.interval}",
                        best.val.mean)]  # fmt: skip
            if best.test is not None:
                figures.append((f"its {test} mean, 95 %: {best.test.interval}", best.test.mean))
        found += [(name, share(value)) for name, value in figures if value is not None]
    return [*found, ("training time", duration(sum(row.train_s or 0.0 for row in rows)))]


def columns_of(rows: Sequence[Row], shared: set[str]) -> list[str]:
    """Keys of the overrides that differ, each a column; none if they are too many for it, or the
    seed alone."""
    words = [word for row in rows for word in row.overrides if word not in shared]
    keys = list(dict.fromkeys(word.lstrip("+").partition("=")[0] for word in words))
    return keys if len(keys) <= MOST_COLUMNS and not all(map(is_repeat, keys)) else []


@dataclass(frozen=True)
class RunLine:
    """A run in the table. page: its address, or "". changed: its overrides, where they have no
    columns. values: of the columns. css: of its configuration's curves, whose number is group.
    Numbers: (as shown, as sorted)."""

    name: str
    page: str
    changed: str
    values: list[str]
    css: str
    group: int
    status: str
    is_selected: bool
    accuracies: list[tuple[str, float]]
    costs: list[tuple[str, float]]


def run_line(
    row: Row, folder: Path, page: str, shared: set[str], columns: Sequence[str], is_selected: bool,
    css: str, group: int,
) -> RunLine:  # fmt: skip
    target, own = row.folder / page, override_values(row.overrides)
    address = quote(os.fsencode(run_name(target, folder))) if target.is_file() else ""
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
        run_name(row.folder, folder), address, "" if columns else changed(row, shared),
        [own.get(key, "-") for key in columns], css, group, row.status, is_selected, cells[:4],
        cells[4:],
    )  # fmt: skip


def counted(number: int, noun: str) -> str:
    return count(number, noun) if number > 0 else ""


def legend(groups: Sequence[Group]) -> list[Group]:
    """The configurations that have a colour, if there are several."""
    return [group for group in groups if group.style != OTHER] if len(groups) > 1 else []


def sides(compared: Sequence[Path], folder: Path) -> dict[str, object]:
    """Of runs that are compared: their names, the keys that differ, and their confusions on the
    test split, or on the validation split, where all have them."""
    found = [readable({}, pages.evaluated, run) for run in compared[:MOST_CONFUSIONS]]
    split = next((s for s in ("test", "val") if found and all(s in one for one in found)), "")
    confusions: list[tuple[str, Evaluation]] = []
    names = [run_name(run, folder) for run in compared]
    if split and all(one[split].num_classes <= MOST_CLASSES for one in found):
        confusions = [(name, one[split]) for name, one in zip(names, found, strict=False)]
    return {
        "sides": names,
        "differing": side_by_side(compared),
        "confusions": confusions,
        "confusion_split": {"test": "Test", "val": "Validation"}.get(split, ""),
    }

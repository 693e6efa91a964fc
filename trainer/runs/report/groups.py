"""Configurations as the page draws them: a colour each, the best first by validation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from trainer.runs.read import Row
from trainer.runs.report.names import changed, configuration_name, override_values
from trainer.runs.report.svg import NUM_COLOURS, OTHER, Line
from trainer.runs.selection import configurations, ordered, own_overrides


@dataclass(frozen=True)
class Group:
    """Runs that repeat each other, whatever has become of them.

    Attributes:
        name: overrides that not all runs share; label: their values alone, for the end of a line.
        style: colour; OTHER: it is behind those that have one.
        val: mean validation accuracy of its num_finished runs; None: there are none.
        values: of the overrides that not all runs share, and that are no repeats.
    """

    name: str
    label: str
    style: int
    rows: tuple[Row, ...]
    val: float | None
    num_finished: int
    values: dict[str, str]

    @property
    def css(self) -> str:
        return Line(self.name, (), self.style).css


def groups_of(rows: Sequence[Row], shared: set[str]) -> list[Group]:
    """The configurations of all runs, those with finished runs first; of a single one its runs, as
    far as there are colours."""
    members: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in ordered(rows):
        # The epochs of a run that has not finished say how far it has come, not what it is.
        whole = row if row.status == "finished" else replace(row, epochs=None)
        members[own_overrides(whole)].append(row)
    means = {one.overrides: one.val for one in configurations(rows)}
    names = {own: configuration_name(own, shared) for own in members}
    own_values = {
        own: override_values(word for word in own if word not in shared) for own in members
    }
    is_one_grid = len({tuple(values) for values in own_values.values()}) == 1
    found: list[Group] = []
    for own in [*means, *(own for own in members if own not in means)]:
        place, values = len(found), own_values[own]
        label = " ".join(values.values()) if is_one_grid and values else names[own]
        style = place if place < NUM_COLOURS else OTHER
        val, num_finished = (means[own].mean, means[own].n) if own in means else (None, 0)
        rows_of = tuple(members[own])
        found.append(Group(names[own], label, style, rows_of, val, num_finished, values))
    if len(found) == 1 and 1 < len(rows) <= NUM_COLOURS:
        return by_run(found[0], shared)
    return found


def by_run(group: Group, shared: set[str]) -> list[Group]:
    return [
        Group(name, name, style, (row,), row.val_accuracy, 1, {})
        for style, row in enumerate(group.rows)
        for name in (run_label(row, shared),)
    ]


def run_label(row: Row, shared: set[str]) -> str:
    """A run in a note: its overrides, or its folder's name where it has none of its own."""
    return changed(row, shared) or row.folder.name

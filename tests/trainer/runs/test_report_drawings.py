"""What a page draws: curves, the confusion of the classes, their figures."""

from __future__ import annotations

import re
from typing import Any

import pytest
from scipy.stats import binomtest

from tests.trainer.runs.test_report import Page
from trainer.runs.report import evaluation_section, html, svg
from trainer.runs.report.matrix import confusion_matrix


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.0, 1.0, [0, 0.2, 0.4, 0.6, 0.8, 1]), (0.03, 1.9, [0, 0.5, 1, 1.5, 2]),
        (0.93, 0.95, [0.93, 0.935, 0.94, 0.945, 0.95]), (7, 7, [2, 4, 6, 8, 10, 12]),
        (-3, 12e3, [-5000, 0, 5000, 10000, 15000]),
    ],
)  # fmt: skip
def test_ticks_are_round_and_cover_the_values(low: float, high: float, ticks: list[float]) -> None:
    assert svg.nice_ticks(low, high) == pytest.approx(ticks)
    labels = [svg.spell(tick, ticks) for tick in ticks]
    assert len(set(labels)) == len(ticks)
    assert [float(label.replace(",", "")) for label in labels] == pytest.approx(ticks)


@pytest.mark.parametrize(
    ("value", "ticks"), [(1.0, (0.5, 1)), (0.0, (0, 0.5)), (0.5, (0.2, 0.8)), (7.0, (3, 7))]
)
def test_room_around_an_equal_value_stays_within_the_limits(
    value: float, ticks: tuple[float, float]
) -> None:
    """A share is 0 to 1; a damaged file may say anything."""
    found = svg.nice_ticks(value, value, limits=(0, 1))
    assert (found[0], found[-1]) == pytest.approx(ticks)
    assert svg.nice_ticks(value, value)[-1] > value


def test_a_gap_stays_a_gap() -> None:
    points = [(1.0, 0.5), (2.0, 0.4), (3.0, None), (4.0, 0.2), (5.0, 0.1)]
    drawn = html.render("chart.html", chart=svg.line_chart("Loss", [svg.Line("loss", points, 0)]))
    path = re.search(r'class="line" d="([^"]+)"', drawn)
    assert path
    assert re.sub(r"[\d. ]", "", path[1]) == "MLML"
    assert svg.line_chart("Loss", [svg.Line("loss", [(1.0, None)], 0)]) is None
    one = svg.line_chart("Loss", [svg.Line("loss", [(1.0, 0.3)], 0)])
    assert html.render("chart.html", chart=one).count("<circle") == 1


@pytest.mark.parametrize("num", [1, 2, 10, 100, 1000])
def test_confusion_matrices_of_any_size(num: int) -> None:
    cells = [(k, k, 9) for k in range(num)] + ([(0, num - 1, 3)] if num > 1 else [])
    matrix = confusion_matrix(cells, [f"class {k}" for k in range(num)])
    drawn = html.render("matrix.html", matrix=matrix)
    squares = re.findall(r"M(\d+) (\d+)h(\d+)v", drawn)[1:]  # the first is the frame
    side = int(squares[0][2])
    places = [(int(y) // side, int(x) // side) for x, y, _ in squares]
    assert sorted(places) == sorted((true, said) for true, said, _ in cells)
    assert (">9<" in drawn) == (num <= 10)
    Page(drawn)
    assert len(drawn) < 100_000


def shown_of(
    cells: list[tuple[int, int, int]], classes: list[str], key: str = "confusion_cells"
) -> str:
    content: dict[str, Any] = {
        key: cells, "top5": 0.9, "calibration_error": 0.1, "mistakes": [],
    }  # fmt: skip
    return html.render("evaluation.html", found=evaluation_section.evaluation(content, classes))


@pytest.mark.parametrize("key", ["confusion_cells", "confusion"])  # of today's files, of older ones
def test_every_class_has_its_figures(key: str) -> None:
    """Against the formulas by hand: class a has 8 of 10 right, and 1 of b was taken for it."""
    shown = Page(shown_of([(0, 0, 8), (0, 1, 2), (1, 1, 4), (1, 0, 1)], ["a", "b"], key)).text
    a, b = (binomtest(*counts).proportion_ci(method="wilson") for counts in ((8, 10), (4, 5)))
    of_a, of_b = (f"{one.low:.3f} to {one.high:.3f}" for one in (a, b))
    assert f"a 10 {8 / 9:.4f} {8 / 10:.4f} {of_a} {16 / 19:.4f}" in shown
    assert f"b 5 {4 / 6:.4f} {4 / 5:.4f} {of_b} {8 / 11:.4f}" in shown


@pytest.mark.parametrize(("num", "drawn"), [(1000, True), (1001, False), (20_000, False)])
def test_a_page_of_many_classes_is_one_that_a_browser_shows(num: int, drawn: bool) -> None:
    """Neither a matrix of more cells than pixels, nor a table of all classes."""
    cells = [(k, k, 9) for k in range(num - 1)] + [(num - 1, 0, 4)]
    shown = shown_of(cells, [f"class {k}" for k in range(num)])
    page = Page(shown)
    assert bool(page.all("svg")) == drawn
    assert ("findings.json has its cells" in page.text) == (not drawn)
    assert (f"The 1,000 of {num:,} classes with the lowest F1" in page.text) == (not drawn)
    assert len(page.all("tr")) == 1001
    assert (
        f"class {num - 1} 4 0.0000 0.0000 0.000 to 0.490 0.0000" in page.text
    )  # the worst is in it
    assert f"class {num - 1} predicted as class 0 4" in page.text
    assert len(shown) < 700_000

"""`report` over sweeps, and over several folders side by side: table, order, page."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.commands import Finished
from tests.helpers.made_runs import make_run, make_sweep
from tests.trainer.runs.test_report import Page
from trainer.runs.read import read_metrics, read_run, read_runs
from trainer.runs.report import curves, runs_page, swept
from trainer.runs.report.groups import groups_of
from trainer.runs.selection import rule

Dispatch = Callable[..., Finished]


def first_cells(done: Finished) -> list[str]:
    """Names of the runs in the table."""
    assert done.returncode == 0, done.output
    lines = done.stdout.partition("\n\n")[0].splitlines()[1:]
    return [line.split()[0] for line in lines if not line.startswith(("all: ", "* "))]


def page_of(folder: Path, rows: int = 0) -> str:
    found = read_runs(folder)
    assert not rows or len(found) == rows
    return runs_page.runs_page(found, folder, "report.html")


def test_the_best_run_and_its_commands(tmp_path: Path, dispatch: Dispatch) -> None:
    """Which a shell takes as they are, whatever stands in the folder's name."""
    make_run(tmp_path / "my sweep" / "0_a=b c", ["optimizer.lr=0.1"], 0.90)
    best = make_run(tmp_path / "my sweep" / "1_a=$HOME", ["optimizer.lr=0.2"], 0.95)
    said = dispatch("report", "my sweep").stdout
    assert "best: optimizer.lr=0.2, run 1_a=$HOME\n" in said
    commands = [shlex.split(line.partition("   ")[2]) for line in said.splitlines()
                if "python -m trainer" in line]  # fmt: skip
    assert [words[3] for words in commands] == ["predict", "evaluate", "resume"]
    assert all(Path(words[4]).resolve() == best / "checkpoints" / "best.pth"
               for words in commands[:2])  # fmt: skip
    assert (Path(commands[2][4]).resolve(), commands[2][5]) == (best, "test=all")
    shown = Page((tmp_path / "my sweep" / "report.html").read_text()).text
    assert " ".join(said[said.index("best: ") : said.index("read test")].split()) in shown
    make_run(tmp_path / "my sweep" / "2", ["optimizer.lr=0.3"], 0.97, test_accuracy=0.96,
             num_test_images=100)  # fmt: skip
    assert "test=all" not in dispatch("report", "my sweep").stdout


@pytest.mark.parametrize(
    ("axes", "told"),
    [
        ({"optimizer": ["sgd", "adam"]}, {
            "optimizer.lr": "0.05 with optimizer=sgd, 0.001 with optimizer=adam",
            "optimizer.weight_decay": "0.0005 with optimizer=sgd, 0.0 with optimizer=adam",
        }),
        ({"optimizer": ["sgd", "adam"], "optimizer.lr": [0.1, 0.2]}, {
            "optimizer.weight_decay": "0.0005 with optimizer=sgd, 0.0 with optimizer=adam",
        }),
        ({"model": ["mlp", "lenet5"]}, {}),  # their own options come with them
        ({"optimizer.lr": [0.1, 0.2], "epochs": [3, 4]}, {}),
    ],
)  # fmt: skip
def test_what_differs_beside_the_overrides(
    tmp_path: Path, dispatch: Dispatch, axes: dict[str, list[object]], told: dict[str, str]
) -> None:
    make_sweep(tmp_path / "s", axes, seeds=2)
    assert json.loads(dispatch("report", "s", "--json").stdout)["differ_silently"] == told
    said = dispatch("report", "s").stdout
    assert ("differ beside the overrides" in said) == bool(told)
    for key, values in told.items():
        assert re.search(rf"{re.escape(key)} +{re.escape(values)}\n", said)
        assert f"{key} {values}" in Page((tmp_path / "s" / "report.html").read_text()).text


def test_a_default_is_a_cause_too(tmp_path: Path, dispatch: Dispatch) -> None:
    make_run(tmp_path / "a", [])
    make_run(tmp_path / "b", ["optimizer=sgd"])
    found = json.loads(dispatch("report", ".", "--json").stdout)["differ_silently"]
    assert found["optimizer.lr"] == "0.001 with optimizer=adam, 0.05 with optimizer=sgd"


def test_the_order_is_the_one_asked_for(tmp_path: Path, dispatch: Dispatch) -> None:
    for name, lr, val, train_s, test in (("a", 0.003, 0.9, 5, 0.7), ("b", 0.02, 0.8, 20, 0.9),
                                         ("c", 0.1, 0.7, 9, 0.8)):  # fmt: skip
        make_run(tmp_path / "s" / name, [f"optimizer.lr={lr}"], val, train_s=train_s,
                 test_accuracy=test, num_test_images=100)  # fmt: skip
    make_run(tmp_path / "s" / "d", ["model=mlp"], 0.6, train_s=None)
    for key, order in (("val_accuracy", "abcd"), ("train_s", "acbd"), ("optimizer.lr", "abcd"),
                       ("folder", "abcd"), ("val_loss", "abcd")):  # fmt: skip
        assert first_cells(dispatch("report", "s", "--sort", key)) == list(order)
    runs = json.loads(dispatch("report", "s", "--json", "--sort", "train_s").stdout)["runs"]
    assert [run["folder"] for run in runs] == ["s/a", "s/c", "s/b", "s/d"]
    for key in ("test_accuracy", "test", "test_interval"):
        refused = dispatch("report", "s", "--sort", key)
        assert refused.returncode == 2
        assert rule([]) in refused.stderr
    wrong = dispatch("report", "s", "--sort", "train")
    assert wrong.returncode == 2
    assert "Did you mean train_s?" in wrong.stderr


def test_runs_with_a_status_and_their_paths(tmp_path: Path, dispatch: Dispatch) -> None:
    for name, status in (
        ("0 a", "failed"),
        ("1", "finished"),
        ("2", "failed"),
        ("3", "unfinished"),
    ):
        make_run(tmp_path / "s" / name, [f"seed={name}"], status=status, reason="because")
    assert dispatch("report", "s", "--status", "failed", "--paths").stdout == "s/0 a\ns/2\n"
    assert dispatch("report", "s", "--status", "running", "--paths").stdout == ""
    both = dispatch("report", "--paths", "s", "--status", "failed,unfinished", "--sort", "folder")
    assert both.stdout == "s/0 a\ns/2\ns/3\n"
    assert first_cells(dispatch("report", "s", "--status", "finished")) == ["1"]
    assert not (tmp_path / "s" / "report.html").exists()  # of some runs it would mislead
    wrong = dispatch("report", "s", "--status", "fialed")
    assert wrong.returncode == 2
    assert "Did you mean failed?" in wrong.stderr
    assert dispatch("report", "s", "--paths", "--json").returncode == 2
    assert dispatch("report", "s", "--suspects", "--status", "failed").returncode == 2


def test_every_failure_has_its_reason_and_log(tmp_path: Path, dispatch: Dispatch) -> None:
    for name, log in (("0", "trainer.log"), ("1 a", "terminal.log"), ("2", None)):
        folder = make_run(tmp_path / "s" / name, [f"seed={name}"], status="failed", reason="boom")
        for file in ("trainer.log", log) if log else ():
            (folder / file).touch()
    make_run(tmp_path / "s" / "3", ["seed=3"], status="interrupted", reason="stopped")
    said = [line for line in dispatch("report", "s").stdout.splitlines() if "boom" in line]
    assert said == [
        "failed: 0: boom; log: s/0/trainer.log",
        "failed: 1 a: boom; log: 's/1 a/terminal.log'",
        "failed: 2: boom",
    ]


def test_runs_side_by_side(tmp_path: Path, dispatch: Dispatch) -> None:
    make_run(tmp_path / "x" / "a", ["model=mlp"], 0.93, classes=4, seed=1)
    make_run(tmp_path / "b", ["model=lenet5", "optimizer.lr=0.002"], 0.95, classes=4)
    done = dispatch("report", "x/a", "b")
    assert first_cells(done) == ["b", "x/a"]
    lines = dict(re.findall(r"^(\S+) {2,}(\S+ {2,}\S+)$", done.stdout, re.M))
    assert lines["model"].split() == ["mlp", "lenet5"]
    assert lines["optimizer.lr"].split() == ["0.001", "0.002"]
    assert "optimizer.weight_decay" not in lines
    assert done.stdout.endswith("look at side_by_side.html\n")
    content = (tmp_path / "side_by_side.html").read_text()
    page = Page(content)
    assert content.count('aria-label="confusion matrix"') == 2
    assert "optimizer.lr 0.001 0.002" in page.text
    assert [link["href"] for link in page.all("a")] == ["b/report.html", "x/a/report.html"]
    found = json.loads(dispatch("report", "x/a", "b", "--json").stdout)
    assert found["differ"]["optimizer.lr"] == {"x/a": "0.001", "b": "0.002"}
    assert [run["folder"] for run in found["runs"]] == ["b", "x/a"]
    (tmp_path / "b" / "findings.json").unlink()
    dispatch("report", "x/a", "b")
    assert "confusion" not in (tmp_path / "side_by_side.html").read_text()
    assert dispatch("report", "x/a", "nothing").returncode == 2
    assert "nothing" in dispatch("report", "x/a", "nothing").stderr


def test_the_page_lies_in_the_folder_above_all(
    tmp_path: Path, dispatch: Dispatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path / "x" / "a", ["model=mlp"])
    make_run(tmp_path / "b", ["model=lenet5"])
    monkeypatch.chdir(tmp_path / "x")
    done = dispatch("report", "a", "../b")
    assert sorted(first_cells(done)) == ["b", "x/a"]
    assert done.stdout.endswith("look at ../side_by_side.html\n")


def test_a_folder_within_another_counts_once(tmp_path: Path, dispatch: Dispatch) -> None:
    make_sweep(tmp_path / "s", {"optimizer.lr": [0.1, 0.2]})
    job = "s/0_optimizer.lr=0.1"
    assert len(first_cells(dispatch("report", "s", job, str(tmp_path / "s")))) == 2


def note_of(content: str, chart: str) -> str:
    figure = re.search(rf'aria-label="{chart}">.*?</figure>', content, re.DOTALL)
    assert figure
    note = re.search(r'<p class="note">(.*?)</p>', figure[0])
    return note[1] if note else ""


def highest_tick(content: str, chart: str) -> float:
    figure = re.search(rf'aria-label="{chart}">.*?<svg class="inner"', content, re.DOTALL)
    assert figure
    return max(float(tick) for tick in re.findall(r">(\d+\.\d+)</text>", figure[0]))


def test_a_run_that_diverged_is_named_and_widens_no_axis(tmp_path: Path) -> None:
    make_sweep(tmp_path / "sound", {"optimizer.lr": [0.01, 0.02, 0.05]})
    make_sweep(tmp_path / "one", {"optimizer.lr": [0.01, 0.02, 0.05, 10]})
    sound, one = page_of(tmp_path / "sound", 3), page_of(tmp_path / "one", 4)
    assert 'class="note"' not in sound
    for chart in ("Validation loss", "Training loss"):
        assert "optimizer.lr=10 (at " in note_of(one, chart)
        assert highest_tick(one, chart) == highest_tick(sound, chart) < 1
    assert "optimizer.lr=10 (at 0." in note_of(one, "Validation accuracy")
    make_sweep(tmp_path / "several", {"optimizer.lr": [0.01, 0.02, 10]}, seeds=3)
    several = page_of(tmp_path / "several", 9)
    assert "the 3 runs with optimizer.lr=10 (at " in note_of(several, "Validation loss")


def test_a_line_is_the_mean_of_the_seeds_and_a_band_their_range(tmp_path: Path) -> None:
    folders = make_sweep(tmp_path / "s", {"model": ["mlp", "lenet5"]}, seeds=3)[:3]
    rows = [
        [row["accuracy"] for row in read_metrics(folder / "metrics.jsonl") if row["split"] == "val"]
        for folder in folders
    ]
    runs = [curves.points(read_metrics(f / "metrics.jsonl"), "val", "accuracy") for f in folders]
    mean, band = curves.mean_of(runs)
    for epoch, values in enumerate(zip(*rows, strict=True), 1):
        assert mean[epoch - 1] == (epoch, pytest.approx(statistics.fmean(values)))
        assert band[epoch - 1] == (epoch, min(values), max(values))
    content = page_of(tmp_path / "s", 6)
    assert content.count('class="band"') == 2 * 4  # charts
    assert "bands: from the lowest to the highest" in content


@pytest.mark.parametrize(("num", "others"), [(12, ""), (13, "1 other<"), (100, "88 others<")])
def test_a_colour_for_each_configuration(tmp_path: Path, num: int, others: str) -> None:
    make_sweep(tmp_path / "s", {"batch_size": list(range(1, num + 1))}, seeds=2 if num < 20 else 1)
    content = page_of(tmp_path / "s")
    legend = re.search(r'<p class="legend">.*?</p>', content, re.DOTALL)
    assert legend
    colours = re.findall(r'<g class="(c\d+)">', legend[0])
    assert len(colours) == len(set(colours)) == 12
    assert others in legend[0]
    assert ("other<" in legend[0] or "others<" in legend[0]) == bool(others)
    for colour in colours:
        assert f"--{colour}: " in content
    labels = re.findall(r'class="end (c\d+)" x="[\d.]+" y="([\d.]+)"', content)
    assert [colour for colour, _ in labels].count("c0") == 3  # charts whose lines differ
    places = [float(y) for _, y in labels[:12]]
    assert all(low - high >= 12.9 for high, low in itertools.pairwise(places))
    Page(content)


def test_a_heat_map_of_two_swept_numbers(tmp_path: Path) -> None:
    lrs, decays = ["0.001", "0.01", "0.1"], ["0", "0.01"]
    make_sweep(tmp_path / "s", {"optimizer.lr": lrs, "optimizer.weight_decay": decays}, seeds=2)
    groups = groups_of(read_runs(tmp_path / "s"), {"epochs=20"})
    (drawn,), parallel = swept.drawings(groups)
    assert parallel is None
    assert (drawn.x_key, drawn.y_key) == ("optimizer.lr", "optimizer.weight_decay")
    assert [label for _, label in drawn.x_ticks] == lrs
    assert [label for _, label in drawn.y_ticks] == decays
    for cell in drawn.cells:
        group = groups[cell.group]
        values = [row.val_accuracy or 0.0 for row in group.rows]
        assert cell.text == f"{statistics.fmean(values):.4f}"
        column = round((cell.x - drawn.left) / drawn.size[0])
        assert group.values["optimizer.lr"] == lrs[column]
        assert (group.values["optimizer.weight_decay"] == "0") == (cell.y > 6)  # zero is below
    assert [cell.group for cell in drawn.cells if cell.is_best] == [0]
    assert max(drawn.cells, key=lambda cell: cell.shade).is_best
    assert page_of(tmp_path / "s").count('class="cell"') == 6


def test_parallel_coordinates_of_more_than_two(tmp_path: Path) -> None:
    make_sweep(tmp_path / "s", {
        "optimizer.lr": [0.001, 0.01, 0.1], "model.dropout": [0.1, 0.2], "batch_size": [32, 512],
    })  # fmt: skip
    groups = groups_of(read_runs(tmp_path / "s"), {"epochs=20"})
    maps, drawn = swept.drawings(groups)
    assert maps == []
    assert drawn
    assert [key for _, key, _ in drawn.axes] == ["optimizer.lr", "model.dropout", "batch_size",
                                                 "val accuracy"]  # fmt: skip
    assert len(drawn.lines) == 12
    ticks = {label: at for at, label in drawn.axes[0][2]}
    assert ticks["0.001"] - ticks["0.01"] == pytest.approx(ticks["0.01"] - ticks["0.1"], abs=0.2)
    for _, path, _, number in drawn.lines:
        y = float(path[1:].split("L")[0].split()[1])
        assert y == pytest.approx(ticks[groups[number].values["optimizer.lr"]], abs=0.11)
    ends = {number: float(path.split()[-1]) for _, path, _, number in drawn.lines}
    assert min(ends, key=ends.__getitem__) == 0  # the best is at the top


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["a=1,2", "b='x y'"],) * 2,
        (["--multirun", "a=1,2"],) * 2,
        (["a='$x'", "b='!'", 'c="\'"'],) * 2,
        (5, []),
        ([1], []),
        (None, []),
    ],
)
def test_the_command_of_a_sweep(tmp_path: Path, words: object, told: list[str]) -> None:
    make_sweep(tmp_path, {"optimizer.lr": [0.01, 0.1]})
    (tmp_path / "sweep.json").write_text(json.dumps({"command": words}))
    lines = [word for word in Page(page_of(tmp_path)).words if "-m trainer --multirun" in word]
    rest = told[1:] if told[:1] == ["--multirun"] else told
    whole = ["python", "-m", "trainer", "--multirun", *rest]
    assert [shlex.split(line) for line in lines] == ([whole] if told else [])


def test_a_run_that_did_not_finish_keeps_its_colour(tmp_path: Path) -> None:
    """Though its summary has fewer epochs than its command."""
    first, *_ = make_sweep(tmp_path / "s", {"model": ["mlp", "lenet5"]}, seeds=2)
    groups = groups_of(read_runs(tmp_path / "s"), {"epochs=20"})
    for status, epochs in (("failed", 0), ("interrupted", 7), ("finished", 25)):
        summary = json.loads((first / "summary.json").read_text())
        (first / "summary.json").write_text(json.dumps(summary | {"status": status,
                                                                  "epochs": epochs}))  # fmt: skip
        again = groups_of(read_runs(tmp_path / "s"), {"epochs=20"})
        if status == "finished":  # and was extended: another training
            assert len(again) == len(groups) + 1
        else:
            assert {one.name for one in again} == {one.name for one in groups}
            assert {one.label for one in again} == {"mlp", "lenet5"}


def test_one_swept_key_needs_no_map(tmp_path: Path) -> None:
    make_sweep(tmp_path / "s", {"optimizer.lr": [0.001, 0.01, 0.1]}, seeds=2)
    assert "Swept values" not in page_of(tmp_path / "s", 6)


def test_a_page_of_three_hundred_runs_is_one_that_a_browser_shows(tmp_path: Path) -> None:
    make_sweep(tmp_path / "s", {
        "optimizer.lr": [0.001, 0.01, 0.02, 0.1, 10], "batch_size": [8, 16, 32, 64, 128],
        "model.dropout": [0.0, 0.1, 0.2, 0.3],
    }, seeds=3)  # fmt: skip
    content = page_of(tmp_path / "s", 300)
    assert len(content) < 800_000
    page = Page(content)
    assert len(page.all("tr")) > 300
    policy = page.all("meta")[-1]["content"]
    assert policy.startswith("default-src 'none'")
    head = re.search(r'<table class="sortable">\n<thead>(.*?)</thead>', content)
    assert head
    fixed = re.findall(r'<th class="fixed">([^<]*)<', head[1])
    assert fixed == ["test", "95 %"]  # by which nobody sorts


def test_a_job_that_has_not_begun_breaks_no_chart(tmp_path: Path) -> None:
    make_sweep(tmp_path / "s", {"optimizer.lr": [0.01, 0.1], "batch_size": [32, 64]})
    gone = next((tmp_path / "s").glob("3_*"))
    rows = [read_run(folder) for folder in sorted((tmp_path / "s").iterdir())]
    for file in [*gone.glob("*.json*")]:
        file.unlink()
    rows = [read_run(row.folder) for row in rows]
    content = runs_page.runs_page(rows, tmp_path / "s", "report.html")
    assert content.count('class="cell"') == 3
    assert "unfinished" in content

"""`report`: the table, and the pages, read as a browser would and by what the run's files say."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import jinja2
import pytest
import yaml

from tests.helpers.commands import ROOT, Finished, TrainedRun
from trainer.config.compose import as_typed
from trainer.errors import fault_in
from trainer.runs.read import read_run
from trainer.runs.report import html, pages

VOID = {"meta", "img", "br"}  # elements without an end


class Page(HTMLParser):
    """A page's elements, as (tag, attributes), and its text; fails if they do not nest."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(content)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def run(default_run: TrainedRun, tmp_path: Path) -> Path:
    """A copy of a finished run, to be changed."""
    shutil.copytree(default_run.folder, tmp_path / "run")
    return tmp_path / "run"


Dispatch = Callable[..., Finished]


def read_page(folder: Path) -> Page:
    return Page((folder / "report.html").read_text("utf-8"))


def test_a_single_run(run: Path, default_run: TrainedRun, dispatch: Dispatch) -> None:
    done = dispatch("report", "run")
    assert done.returncode == 0, done.output
    assert f"{default_run.summary['test_accuracy']:.4f}" in done.stdout
    assert done.stdout.endswith("look at run/report.html\n")
    summary, page = default_run.summary, read_page(run)
    for shown in (
        f"{summary['test_accuracy']:.4f} test accuracy", f"{summary['weights_sha256']}",
        f"{summary['best_epoch']} of 20 best epoch", "mlp on mnist_5k finished",
        f"torch {summary['versions']['torch']}", "python -m trainer", "hidden:", "epoch 20/20",
    ):  # fmt: skip
        assert shown in page.text
    assert len([i for i in page.all("img") if i["src"].startswith("data:image/png;base64,")]) == 32


def test_the_curves_are_those_of_the_rows(run: Path, default_run: TrainedRun) -> None:
    """The titles of the dots, and their places, which must be one linear map of the values."""
    content = pages.run_page(read_run(run))
    chart = re.search(r'aria-label="Loss">.*?</svg>', content, re.DOTALL)
    assert chart
    for split in ("train", "val"):
        dots = re.findall(
            rf'cx="([\d.]+)" cy="([\d.]+)" r="2.2"><title>{split}, epoch (\d+): (\S+)</title>',
            chart[0],
        )
        rows = [row for row in default_run.rows if row["split"] == split]
        assert [(int(e), float(y)) for _, _, e, y in dots] == [
            (row["epoch"], float(f"{row['loss']:.4g}")) for row in rows
        ]
        for place, value in ((0, 2), (1, 3)):
            first, last = dots[0], dots[-1]
            slope = (float(last[place]) - float(first[place])) / (
                float(last[value]) - float(first[value])
            )
            for dot in dots:
                there = float(first[place]) + slope * (float(dot[value]) - float(first[value]))
                assert float(dot[place]) == pytest.approx(there, abs=0.15)


@pytest.mark.parametrize(("accuracy", "highest"), [(1.0, 1.0), (0.95, 1.0), (0.5, 0.8)])
def test_no_axis_shows_an_accuracy_above_one(
    run: Path, dispatch: Dispatch, accuracy: float, highest: float
) -> None:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    lines = [json.dumps(row | {"accuracy": accuracy}) for row in rows]
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    shutil.copytree(run, run.parent / "sweep" / "0")
    shutil.copytree(run, run.parent / "sweep" / "1")
    for folder, name in ((run, "Accuracy"), (run.parent / "sweep", "Validation accuracy")):
        assert dispatch("report", str(folder)).returncode == 0
        page = (folder / "report.html").read_text()
        chart = re.search(rf'aria-label="{name}">.*?</svg>', page, re.DOTALL)
        assert chart
        ticks = re.findall(r"<text[^>]*>([\d.]+)</text>", chart[0])
        assert max(float(tick) for tick in ticks if "." in tick) == highest


def test_nothing_is_loaded_from_elsewhere(run: Path, dispatch: Dispatch) -> None:
    shutil.copytree(run, run.parent / "other")
    dispatch("report", ".")
    for folder in (run, run.parent):
        content = (folder / "report.html").read_text("utf-8")
        assert "http:" not in content
        assert "https:" not in content
        assert not re.search(r"url\(|@import|<link|<iframe|srcset", content)
        page = Page(content)
        assert all("src" not in script for script in page.all("script"))
        policy = page.all("meta")[-1]["content"]
        assert policy.startswith("default-src 'none'; img-src data:")
    assert Page((run / "report.html").read_text("utf-8")).all("script") == []


HOSTILE = "<script>alert(1)</script>\"'&<img src=x onerror=alert(1)>"


def test_hostile_words_stay_words(run: Path, dispatch: Dispatch) -> None:
    found = json.loads((run / "findings.json").read_text())
    found["classes"] = [f"{HOSTILE}{k}" for k in range(10)]
    (run / "findings.json").write_text(json.dumps(found))
    summary = json.loads((run / "summary.json").read_text())
    summary |= {"status": f"failed {HOSTILE}", "reason": HOSTILE, "device": HOSTILE,
                "versions": {HOSTILE: HOSTILE}}  # fmt: skip
    (run / "summary.json").write_text(json.dumps(summary))
    (run / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump([HOSTILE]))
    (run / ".hydra" / "config.yaml").write_text(HOSTILE)
    (run / "trainer.log").write_text(HOSTILE)
    plain = run.parent / "a <b>'\"&#%"
    shutil.copytree(run, plain)
    assert dispatch("report", ".").returncode == 0
    for folder in (run, plain, run.parent):
        page = read_page(folder)
        assert len(page.all("script")) == (folder == run.parent)
        assert not [attributes for _, attributes in page.elements if "onerror" in attributes]
        assert all(image["src"].startswith("data:image/png") for image in page.all("img"))
        assert HOSTILE in page.text
    leads_to = [link["href"] for link in read_page(run.parent).all("a")]
    assert leads_to == ["a%20%3Cb%3E%27%22%26%23%25/report.html", "run/report.html"]


def test_a_name_that_is_no_utf_8(run: Path, dispatch: Dispatch) -> None:
    odd = run.parent / os.fsdecode(b"b\xff")
    try:
        shutil.copytree(run, odd)
    except OSError:
        pytest.skip("this file system has no such names")
    done = dispatch("report", ".")
    assert done.returncode == 0, done.output
    leads_to = [link["href"] for link in read_page(run.parent).all("a")]
    assert leads_to == ["b%FF/report.html", "run/report.html"]
    assert "b\\udcff" in read_page(odd).text


def test_an_image_from_elsewhere_is_refused(run: Path, dispatch: Dispatch) -> None:
    found = json.loads((run / "findings.json").read_text())
    assert dispatch("report", "run").returncode == 0
    assert "Most confident mistakes" in read_page(run).text
    found["test"]["mistakes"][3]["image"] = "https://example.org/x.png"
    (run / "findings.json").write_text(json.dumps(found))
    assert dispatch("report", "run").returncode == 0
    assert "Most confident mistakes" not in read_page(run).text
    assert "example.org" not in (run / "report.html").read_text()


def test_the_command_can_be_pasted(run: Path, dispatch: Dispatch) -> None:
    overrides = ["model=lenet5", "data.root='my pictures'", "freeze=[a.*,b]"]
    (run / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(overrides))
    dispatch("report", "run")
    lines = [word for word in read_page(run).words if word.startswith("python -m trainer")]
    *command, model, root, freeze = shlex.split(lines[0])
    assert command == ["python", "-m", "trainer"]
    assert (model, root, freeze) == (overrides[0], "data.root=my pictures", overrides[2])
    assert [as_typed(word, multirun=False) for word in (model, root, freeze)] == overrides


def test_odd_folders_do_not_hide_the_others(
    run: Path, default_run: TrainedRun, dispatch: Dispatch
) -> None:
    odd = {
        "a/summary.json": b"[]", "b/metrics.jsonl": b"5\n", "c/.hydra/overrides.yaml": b"\xff\xfe",
        "d/summary.json": b'{"test_accuracy": "high"}',
    }  # fmt: skip
    for name, content in odd.items():
        path = run.parent / name
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    done = dispatch("report", ".")
    assert done.returncode == 0, done.output
    assert done.stdout.count("unreadable") == 4
    assert f"{default_run.summary['test_accuracy']:.4f}" in done.stdout
    assert read_page(run.parent).text.count("unreadable") >= 4
    for name in odd:
        assert "unreadable" in read_page(run.parent / name.partition("/")[0]).text


@pytest.mark.parametrize("content", ["", "[]", '{"classes": ["a"]}', '{"classes": 3, "test": 1}'])
def test_damaged_findings_leave_the_rest(run: Path, dispatch: Dispatch, content: str) -> None:
    (run / "findings.json").write_text(content)
    assert dispatch("report", "run").returncode == 0
    text = read_page(run).text
    assert "Test split" not in text
    assert "Learning rate" in text


def test_a_missing_template_is_no_fault_of_the_disk(
    run: Path, dispatch: Dispatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """jinja2's error is an OSError by class."""
    empty = jinja2.Environment(loader=jinja2.DictLoader({}))
    monkeypatch.setattr(html, "environment", lambda: empty)
    with pytest.raises(jinja2.TemplateNotFound, match=r"run\.html"):
        dispatch("report", str(run))
    assert fault_in(jinja2.TemplateNotFound("run.html")) is None
    gone = FileNotFoundError(errno.ENOENT, "No such file", "run.html")
    assert fault_in(gone) is gone


def test_unfinished_runs(default_run: TrainedRun, tmp_path: Path, dispatch: Dispatch) -> None:
    """A run that was killed has no summary, and its last row may be cut off."""
    for name in (".hydra/overrides.yaml", "metrics.jsonl"):
        copy = tmp_path / "killed" / name
        copy.parent.mkdir(exist_ok=True, parents=True)
        content = (default_run.folder / name).read_text()
        copy.write_text(content[:-30] if name.endswith("jsonl") else content)
    done = dispatch("report", ".")
    assert "unfinished" in done.stdout
    val = max(row["accuracy"] for row in default_run.rows if row["split"] == "val")
    assert f"{val:.4f}" in done.stdout
    page = read_page(tmp_path / "killed")
    assert f"{val:.4f} best val accuracy" in page.text
    assert "test accuracy" not in page.text


def test_a_running_run(run: Path, dispatch: Dispatch) -> None:
    """Its folder is locked by another process, whatever an earlier summary says."""
    code = (
        "import sys; from pathlib import Path; from trainer.runs.lock import locked\n"
        "with locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, run],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout
    assert holder.stdout.readline() == "held\n"
    try:
        assert " running " in dispatch("report", "run").stdout
        assert "running" in read_page(run).text
    finally:
        holder.communicate(timeout=60)
    assert " finished " in dispatch("report", "run").stdout


def test_where_no_page_can_be_written(run: Path, dispatch: Dispatch) -> None:
    """The table is what was asked for, so it is no failure."""
    (run / "report.html").mkdir()
    done = dispatch("report", "run")
    assert done.returncode == 0
    assert "finished" in done.stdout
    assert "look at" not in done.stdout
    assert "run/report.html: could not be written" in done.stderr
    assert not list(run.glob(".report*"))


def test_a_failed_run_says_why(run: Path, dispatch: Dispatch) -> None:
    (run / "findings.json").unlink()
    summary = {"status": "failed", "reason": "The loss became NaN.", "epochs": 0, "train_s": 0.0}
    (run / "summary.json").write_text(json.dumps(summary))
    stopped = shutil.copytree(run, run.parent / "stopped")
    summary |= {"status": "interrupted", "reason": "stopped by signal 2"}
    (stopped / "summary.json").write_text(json.dumps(summary))
    assert "The loss became NaN." in dispatch("report", ".").stdout
    assert "The loss became NaN." in read_page(run).text
    assert "run: The loss became NaN." in read_page(run.parent).text
    for folder, num_failures in ((run, 1), (stopped, 0), (run.parent, 1)):
        kinds = [one.get("class") for one in read_page(folder).all("p")]
        assert kinds.count("bad") == num_failures
    assert "stopped by signal 2" in read_page(stopped).text


def test_runs_side_by_side(run: Path, default_run: TrainedRun, dispatch: Dispatch) -> None:
    for seed, accuracy in ((0, 0.9), (1, 0.92)):
        copy = run.parent / "sweep" / str(seed)
        shutil.copytree(run, copy)
        # The one that is better on the validation split is the worse on the test split.
        better = {"test_accuracy": accuracy, "val_accuracy": 1.8 - accuracy}
        summary = {**default_run.summary, **better}
        (copy / "summary.json").write_text(json.dumps(summary))
        (copy / ".hydra" / "overrides.yaml").write_text(f"[epochs=20, seed={seed}]")
    done = dispatch("report", "sweep")
    assert "0.8900  0.0141  0.763 to 1.000     0.9100  0.0141  0.783 to 1.000" in done.stdout
    content = (run.parent / "sweep" / "report.html").read_text("utf-8")
    page = Page(content)
    assert [link["href"] for link in page.all("a")] == ["0/report.html", "1/report.html"]
    assert all((run.parent / "sweep" / link["href"]).is_file() for link in page.all("a"))
    assert "All: epochs=20" in page.text
    assert "0.8900 best val mean of 2 seeds, 95 %: 0.763 to 1.000" in page.text
    assert "0.9100 its test mean, 95 %: 0.783 to 1.000" in page.text
    assert "of these validation chose 0: val 0.9000 of 400 images" in page.text
    assert "the test split selects nothing" in page.text
    assert "0.9100 0.0141" in page.text
    legend = re.search(r'<p class="legend">.*?</p>', content, re.DOTALL)
    assert legend
    assert re.findall(r"seed=\d", legend[0]) == ["seed=0", "seed=1"]  # the one of all charts
    assert len([word for word in page.words if word.strip() == "seed=1"]) > 2
    charts = [figure["aria-label"] for figure in page.all("svg") if "aria-label" in figure]
    assert charts == ["Validation accuracy", "Validation loss", "Training loss", "Learning rate"]
    other = json.loads((copy / "summary.json").read_text()) | {"num_val_images": 800}
    (copy / "summary.json").write_text(json.dumps(other))
    dispatch("report", "sweep")  # validated on other images no run is better than another
    text = read_page(run.parent / "sweep").text
    assert "best val" not in text
    assert text.count("selected: all runs, run") == 2


def test_report_imports_no_torch_and_jinja2_only_for_a_page() -> None:
    code = (
        "import sys, trainer.cli.report; print({'torch', 'jinja2'} & sys.modules.keys())\n"
        "from trainer.runs.report import html; html.environment(); print('jinja2' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "set()\nTrue\n"

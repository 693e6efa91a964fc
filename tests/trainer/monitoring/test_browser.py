"""What a reader sees: TensorBoard and report.html of a real run, opened in a headless browser."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.commands import TrainedRun, run_trainer

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome on the PATH"),
]


def dom(url: str, wait_ms: int = 10_000, *flags: str) -> str:
    """The page as it stands after its scripts have run for so long a time of the browser's own."""
    assert BROWSER is not None
    with tempfile.TemporaryDirectory() as profile:
        done = subprocess.run(
            [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}",
             "--disable-dev-shm-usage", f"--virtual-time-budget={wait_ms}",
             "--window-size=1400,3000", *flags, "--dump-dom", url],
            capture_output=True, text=True, timeout=240,
        )  # fmt: skip
    assert done.stdout.strip(), done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def tensorboard(default_run: TrainedRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server over two runs."""
    logs = tmp_path_factory.mktemp("logs")
    for name in ("one", "two"):
        shutil.copytree(default_run.folder / "tensorboard", logs / name / "tensorboard")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", "--logdir", str(logs), "--port", str(port),
         "--load_fast", "false"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 120
    try:
        while True:
            try:
                if len(get(address + "/data/runs")) == 2:
                    break
            except OSError:
                assert server.poll() is None, "tensorboard has ended"
            assert time.monotonic() < deadline, "tensorboard has not read the runs"
            time.sleep(0.2)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=60)


def get(url: str, body: dict[str, Any] | None = None) -> Any:
    request = urllib.request.Request(
        url,
        data=None if body is None else json.dumps(body).encode(),
        headers={} if body is None else {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


# Most of TensorBoard lies in shadow trees, which no dump of a page shows: their text is gathered by
# a page around it.
GATHER = """<iframe src="/#PLUGIN" width="1400" height="3000"></iframe><pre id="seen"></pre>
<script>
const words = root => [...root.querySelectorAll('*')].flatMap(element => [
  ...[...element.childNodes].filter(node => node.nodeType === 3).map(node => node.data),
  ...(element.shadowRoot ? words(element.shadowRoot) : [])]);
setInterval(() => document.getElementById('seen').textContent =
  words(document.querySelector('iframe').contentDocument).join(' '), 500);
</script>"""


class Around(http.server.BaseHTTPRequestHandler):
    """Everything as TensorBoard answers it, and the page that gathers."""

    tensorboard = ""

    def do_GET(self) -> None:
        if self.path.startswith("/gather/"):
            page = GATHER.replace("PLUGIN", self.path.rpartition("/")[2])
            self.answer("text/html", page.encode())
        else:
            self.forward(None)

    def do_POST(self) -> None:
        self.forward(self.rfile.read(int(self.headers["Content-Length"])))

    def forward(self, body: bytes | None) -> None:
        headers = {"Content-Type": self.headers["Content-Type"] or "text/plain"}
        request = urllib.request.Request(self.tensorboard + self.path, body, headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                self.answer(answer.headers["Content-Type"], answer.read())
        except urllib.error.HTTPError as error:
            self.send_error(error.code)

    def answer(self, kind: str, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *words: Any) -> None: ...


@contextlib.contextmanager
def serving(handler: Any) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def seen(tensorboard: str, plugin: str) -> str:
    """The words that a reader of that tab sees."""
    Around.tensorboard = tensorboard
    with serving(Around) as address:
        shown = dom(f"{address}/gather/{plugin}", 25_000)
    return shown.partition('<pre id="seen">')[2]


def test_no_run_but_those_that_were_trained(tensorboard: str) -> None:
    assert get(tensorboard + "/data/runs") == ["one/tensorboard", "two/tensorboard"]


def test_scalars(tensorboard: str, default_run: TrainedRun) -> None:
    query = urllib.parse.urlencode({"run": "one/tensorboard", "tag": "accuracy/val"})
    points = get(f"{tensorboard}/data/plugin/scalars/scalars?{query}")
    rows = [row for row in default_run.rows if row["split"] == "val"]
    assert [step for _, step, _ in points] == [row["step"] for row in rows]
    assert [value for _, _, value in points] == pytest.approx([row["accuracy"] for row in rows])
    shown = seen(tensorboard, "scalars")
    for word in ("accuracy/train", "accuracy/val", "accuracy_per_class/0", "one/tensorboard"):
        assert word in shown


def test_images(tensorboard: str) -> None:
    tags = get(tensorboard + "/data/plugin/images/tags")["one/tensorboard"]
    assert {"images/train", "confusion/val", "confusion/test", "mistakes/val"} <= set(tags)
    query = urllib.parse.urlencode({"run": "one/tensorboard", "tag": "confusion/test", "sample": 0})
    (image,) = get(f"{tensorboard}/data/plugin/images/images?{query}")
    assert image["step"] == 1140
    with urllib.request.urlopen(
        f"{tensorboard}/data/plugin/images/individualImage?{image['query']}"
    ) as answer:
        assert answer.read().startswith(b"\x89PNG")
    shown = seen(tensorboard, "images")
    for word in ("confusion/test", "confusion/val", "filters/hidden.0.weight"):
        assert word in shown


def test_the_graph(tensorboard: str) -> None:
    query = urllib.parse.urlencode({"run": "one/tensorboard", "conceptual": "false"})
    with urllib.request.urlopen(f"{tensorboard}/data/plugin/graphs/graph?{query}") as answer:
        graph = answer.read().decode()
    assert graph.count("node {") > 10
    assert '"MLP/Linear[fc]/addmm"' in graph
    shown = seen(tensorboard, "graphs")
    for word in ("Main Graph", "MLP", "input", "output"):
        assert word in shown


def test_hparams(tensorboard: str, default_run: TrainedRun) -> None:
    """A row for each run with the same keys, whose figures are those of the summary."""
    url = tensorboard + "/data/plugin/hparams/"
    experiment = get(url + "experiment", {"experimentName": ""})
    wanted = [{"metric": info["name"]} for info in experiment["metricInfos"]]
    states = ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"]
    body = {"experimentName": "", "allowedStatuses": states, "colParams": wanted,
            "startIndex": 0, "sliceSize": 100}  # fmt: skip
    rows = get(url + "session_groups", body)["sessionGroups"]
    assert len(rows) == 2
    assert rows[0]["hparams"].keys() == rows[1]["hparams"].keys()
    assert rows[0]["hparams"]["model"] == "mlp"
    for row in rows:
        values = {value["name"]["tag"]: value["value"] for value in row["metricValues"]}
        assert values["accuracy/test"] == pytest.approx(default_run.summary["test_accuracy"])
    shown = seen(tensorboard, "hparams")
    for word in ("weight_decay", "accuracy/test", "one/tensorboard", "two/tensorboard"):
        assert word in shown


class Listener(http.server.SimpleHTTPRequestHandler):
    """Serves a folder and notes what was asked for."""

    asked: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, *words: Any) -> None: ...


@pytest.fixture
def site(default_run: TrainedRun, tmp_path: Path) -> Iterator[str]:
    """report.html of two runs and of both together, behind an address."""
    for name, accuracy in (("low", 0.5), ("high", default_run.summary["test_accuracy"])):
        shutil.copytree(default_run.folder, tmp_path / name)
        summary = {**default_run.summary, "val_accuracy": accuracy, "test_accuracy": accuracy}
        (tmp_path / name / "summary.json").write_text(json.dumps(summary))
    done = run_trainer("report", ".", cwd=tmp_path)
    assert done.returncode == 0, done.output
    Listener.asked = []
    handler = functools.partial(Listener, directory=str(tmp_path))
    with serving(handler) as address:
        yield address


def test_the_report_of_a_run(site: str, default_run: TrainedRun) -> None:
    shown = dom(site + "/high/report.html")
    accuracy = f"{default_run.summary['test_accuracy']:.4f}"
    for words in (accuracy, "Most confident mistakes", "mlp on"):
        assert words in shown
    assert shown.count('aria-label="confusion matrix"') == 2
    assert {path for path in Listener.asked if path != "/favicon.ico"} == {"/high/report.html"}


def test_the_page_fits_a_phone(site: str, tmp_path: Path) -> None:
    """Nothing is wider than the screen but what scrolls in a box of its own."""
    measure = "<script>document.title = innerWidth + ' ' + document.body.scrollWidth</script>"
    for name in ("high/report.html", "report.html"):
        page = (tmp_path / name).read_text()
        policy = re.compile(r'<meta http-equiv="Content-Security-Policy".*?>', re.DOTALL)
        page = policy.sub("", page).replace("<details", "<details open")
        (tmp_path / "measured.html").write_text(page + measure)
        # A window is at least 500 pixels wide; a frame can be as narrow as a phone.
        (tmp_path / "phone.html").write_text(
            '<iframe src="measured.html" width="360" height="800" '
            'onload="document.title = this.contentDocument.title"></iframe>'
        )
        shown = dom(site + "/phone.html")
        width, content = re.findall(r"<title>(\d+) (\d+)</title>", shown)[0]
        assert int(width) == 360
        assert int(content) <= 360


def test_a_click_sorts_the_table(site: str, tmp_path: Path) -> None:
    """The page's own script runs under the page's own policy."""
    (tmp_path / "click.html").write_text(
        '<iframe src="report.html" onload="const page = this.contentDocument; '
        "page.querySelectorAll('.sortable th')[1].click(); document.title = "
        "[...page.querySelectorAll('.sortable tbody tr')].map(row => row.cells[0].innerText.trim())"
        '"></iframe>'
    )
    runs = r"<title>(\w+),(\w+)</title>"
    assert re.findall(runs, dom(site + "/click.html")) == [("high", "low")]
    twice = (tmp_path / "click.html").read_text().replace("; document", "; " + CLICK + "document")
    (tmp_path / "click.html").write_text(twice)
    assert re.findall(runs, dom(site + "/click.html")) == [("low", "high")]


CLICK = "page.querySelectorAll('.sortable th')[1].click(); "


def test_a_word_filters_the_table_and_the_curves(site: str, tmp_path: Path) -> None:
    """But no figure of the test split does."""
    shutil.copytree(tmp_path / "low", tmp_path / "tested")
    summary = json.loads((tmp_path / "low" / "summary.json").read_text())
    summary |= {"test_accuracy": 0.1234, "weights_sha256": "other"}
    (tmp_path / "tested" / "summary.json").write_text(json.dumps(summary))
    (tmp_path / "tested" / ".hydra" / "overrides.yaml").write_text("[model=lenet5]")
    assert run_trainer("report", ".", cwd=tmp_path).returncode == 0
    for word, runs in (("HIGH", ["high"]), ("lenet5  finished", ["tested"]), ("0.1234", []),
                       ("", ["high", "low", "tested"])):  # fmt: skip
        (tmp_path / "filter.html").write_text(
            f'<iframe src="report.html" onload="{FILTER.replace("WORD", word)}"></iframe>'
        )
        shown, curves = re.findall(r"<title>(.*?);(.*?)</title>", dom(site + "/filter.html"))[0]
        assert sorted(filter(None, shown.split(","))) == runs
        # Two configurations, each with a line in each of four charts.
        configurations = len({run == "tested" for run in runs})
        assert int(curves) == 4 * (2 - configurations)


FILTER = (
    "const page = this.contentDocument, input = page.querySelector('.filter input'); "
    "input.value = 'WORD'; input.dispatchEvent(new Event('input')); document.title = "
    "[...page.querySelectorAll('.sortable tbody tr')].filter(row => !row.hidden)"
    ".map(row => row.cells[0].innerText.trim().split(/\\s/)[0]) + ';' + "
    "page.querySelectorAll('g.out').length"
)


def test_train_and_val_share_a_chart(tensorboard: str) -> None:
    """Of TensorBoard's page of custom scalars, which asks for the tags by regular expressions."""
    url = tensorboard + "/data/plugin/custom_scalars/"
    (category,) = get(url + "layout")["category"]
    tags = {chart["title"]: chart["multiline"]["tag"] for chart in category["chart"]}
    assert tags.keys() == {"accuracy", "loss"}
    found = set()
    for pattern in tags["loss"]:
        query = urllib.parse.urlencode({"tag": pattern, "run": "one/tensorboard"})
        found |= get(f"{url}scalars?{query}")["tag_to_events"].keys()
    assert found == {"loss/train", "loss/val"}

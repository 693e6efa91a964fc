"""However a run is ended, and whatever it is at: the exit code tells, and nobody is left behind."""

from __future__ import annotations

import contextlib
import functools
import http.server
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers import processes, results
from tests.helpers.tiny_training import TINY, signal_at


@pytest.mark.slow
def test_an_error_that_nobody_foresaw(tmp_path: Path) -> None:
    """The traceback goes to the log, the terminal gets a line, the folder a summary."""
    prepare = functools.partial(signal_at, 10, 5, False)  # SIGUSR1 has no handler: it kills
    ended = processes.run(tmp_path, *TINY, "hydra.run.dir=run", prepare=prepare)
    assert ended.code == -10
    assert results.sound_steps(tmp_path / "run") == [4]
    ended = processes.run(tmp_path, "resume", "run", prepare=break_something)
    assert ended.code == 1
    assert "Traceback" not in ended.output
    assert "ZeroDivisionError" in ended.output
    assert "Traceback" in (tmp_path / "run" / "trainer.log").read_text()
    assert results.summary(tmp_path / "run")["status"] == "failed"
    assert processes.run(tmp_path, "resume", "run").code == 0


def break_something() -> None:
    from trainer.training import loop

    loop.train_step = lambda *_: 1 / 0


@pytest.mark.slow
def test_a_real_process_group(tmp_path: Path) -> None:
    """Ctrl-C in a terminal reaches every process; here with the program's own start."""
    process = subprocess.Popen(
        [sys.executable, "-m", "trainer", *TINY, "epochs=100000", "num_workers=2",
         "hydra.run.dir=run"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    while process.poll() is None and not results.newest_step(tmp_path / "run"):
        time.sleep(0.02)
    began = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert time.monotonic() - began < 5
    assert process.returncode == 130, output
    assert "Traceback" not in output
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)  # nobody is left of the group


@contextlib.contextmanager
def slow_server() -> Iterator[str]:
    """An address under which every file is long and comes a kilobyte at a time."""

    class Slow(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(10**8))
            self.end_headers()
            with contextlib.suppress(OSError):  # the other side has gone
                while True:
                    self.wfile.write(bytes(1024))
                    time.sleep(0.01)

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_download(tmp_path: Path, number: int) -> None:
    raw = tmp_path / "raw"
    with slow_server() as address:
        command = processes.Command(
            tmp_path, ["data=fashion_mnist", f"data.root={raw}", f"data.mirrors=['{address}']"]
        )
        assert command.wait_for(lambda: any(p.stat().st_size > 5000 for p in raw.rglob("*"))), (
            command.output
        )
        ended = stop(command, number)
    assert ended.code == 128 + number, ended.output
    assert not [path for path in raw.rglob("*ubyte*") if path.suffix in ("", ".gz")]
    assert not list(tmp_path.rglob("checkpoints"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_packing(tmp_path: Path, number: int) -> None:
    """And the next run packs what was left."""
    for label in ("cats", "dogs"):
        (tmp_path / "pictures" / label).mkdir(parents=True)
        for index in range(30):
            image = Image.new("RGB", (20 + index, 20), (index, 99, 120))
            image.save(tmp_path / "pictures" / label / f"{index}.png")
    words = ("data=image_folder", f"data.root={tmp_path}/pictures", "data.shape=[3,8,8]",
             "model.hidden=[8]", "batch_size=8", "epochs=1", "hydra.run.dir=run")  # fmt: skip
    words += (f"data.cache_dir={tmp_path}/cache",)
    command = processes.Command(tmp_path, words, prepare=images_are_slow)
    cache = tmp_path / "cache"
    assert command.wait_for(lambda: list(cache.rglob("*.tmp"))), command.output
    time.sleep(0.2)
    ended = stop(command, number)
    assert ended.code == 128 + number, ended.output
    assert not list(cache.rglob("*.pack"))
    assert not (tmp_path / "run" / "checkpoints").exists()
    ended = processes.run(tmp_path, *words)
    assert ended.code == 0, ended.output
    assert list(cache.rglob("*.pack"))
    assert not list(cache.rglob("*.tmp"))


def images_are_slow() -> None:
    """Each takes a fifth of a second to decode."""
    load = Image.Image.load

    def loading(self: Image.Image) -> object:
        time.sleep(0.2)
        return load(self)

    Image.Image.load = loading  # type: ignore[method-assign]


def stop(command: processes.Command, number: int) -> processes.Ended:
    """Send the signal to the whole group; it must end within five seconds, without a traceback
    and with nobody left behind."""
    began = time.monotonic()
    command.send(number, to_group=True)
    ended = command.wait()
    assert time.monotonic() - began < 5
    assert "Traceback" not in ended.output, ended.output
    with pytest.raises(ProcessLookupError):
        os.killpg(command.pid, 0)
    return ended

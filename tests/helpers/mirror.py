"""For tests: a server on this machine that fails in all the ways that servers do."""

from __future__ import annotations

import random
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from data.download.fetch import fetch
from tests.helpers.dataset_files import md5

CONTENT = random.Random(0).randbytes(300_000)
OTHERWISE = "Or do without."


@dataclass
class Mirror:
    """What is served, and how badly.

    Attributes:
        files: content by name.
        ranges: whether it knows the Range header.
        etag: sent with each answer and compared with If-Range, unless empty.
        status: any but 200 is all that it says.
        headers: sent besides, or instead of the right ones.
        shift: how far from what was asked a range begins.
        faults: one per answer, in turn: ("cut", n) closes after n bytes of the body, ("stall", n)
            goes silent there, ("wait", n) until `go_on` is set; later answers are whole.
        endless: it announces no length and repeats the content for ever.
        asked: the requests so far: name, Range, If-Range.
        address: while it runs, with a slash at its end.
    """

    files: Mapping[str, bytes]
    ranges: bool = True
    etag: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    shift: int = 0
    faults: list[tuple[str, int]] = field(default_factory=list)
    endless: bool = False
    asked: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    address: str = ""
    go_on: threading.Event = field(default_factory=threading.Event)
    closing: threading.Event = field(default_factory=threading.Event)

    def ranges_asked(self) -> list[str | None]:
        return [asked for _, asked, _ in self.asked]


class _Handler(BaseHTTPRequestHandler):
    mirror: Mirror

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        mirror, name = self.mirror, self.path.rpartition("/")[2]
        condition = self.headers.get("If-Range")
        mirror.asked.append((name, self.headers.get("Range"), condition))
        if mirror.status != 200 or name not in mirror.files:
            self.send_response(mirror.status if mirror.status != 200 else 404)
            self.send_right({"Content-Length": "0"})
            return
        content = mirror.files[name]
        span = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if span and mirror.ranges and condition in (None, mirror.etag):
            self.send_range(content, int(span[1]) + mirror.shift)
        else:
            self.send_response(200)
            length = {} if mirror.endless else {"Content-Length": str(len(content))}
            self.send_right(length)
            self.send_body(content)

    def send_range(self, content: bytes, start: int) -> None:
        if start >= len(content):
            self.send_response(416)
            self.send_right({"Content-Range": f"bytes */{len(content)}"})
            return
        self.send_response(206)
        span = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.send_right({"Content-Range": span, "Content-Length": str(len(content) - start)})
        self.send_body(content[start:])

    def send_right(self, headers: dict[str, str]) -> None:
        etag = {"ETag": self.mirror.etag} if self.mirror.etag else {}
        for name, value in {**headers, **etag, **self.mirror.headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def send_body(self, content: bytes) -> None:
        fault, count = self.mirror.faults.pop(0) if self.mirror.faults else ("", len(content))
        with suppress(ConnectionError):  # the other side has seen enough
            self.wfile.write(content[:count])
            if fault == "stall":
                self.mirror.closing.wait()
            elif fault == "wait":
                self.mirror.go_on.wait(60)
                self.wfile.write(content[count:])
            while self.mirror.endless and not self.mirror.closing.is_set():
                self.wfile.write(content)


@contextmanager
def serve(mirror: Mirror) -> Iterator[str]:
    """Runs it. Gives its address."""
    handler = type("Handler", (_Handler,), {"mirror": mirror})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        mirror.address = f"http://127.0.0.1:{server.server_port}/"
        try:
            yield mirror.address
        finally:
            mirror.closing.set()
            server.shutdown()
            thread.join()


@contextmanager
def silent_server() -> Iterator[str]:
    """An address that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        yield f"http://127.0.0.1:{silent.getsockname()[1]}/"


def wait_until(holds: Callable[[], bool], timeout_s: float = 30) -> None:
    end = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.005)


def get(folder: Path, *mirrors: str) -> None:
    """Downloads CONTENT as folder/file."""
    fetch(folder, {"file": md5(CONTENT)}, mirrors, OTHERWISE)


def check_arrived(folder: Path) -> None:
    assert [path.name for path in folder.iterdir()] == ["file"]
    assert (folder / "file").read_bytes() == CONTENT

"""Downloads, against servers that fail in all the ways that servers do."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any
from urllib.request import Request, build_opener

import pytest

import data.download.fetch
from data.download.fetch import fetch
from data.types import DataError
from tests.helpers.dataset_files import md5
from tests.helpers.mirror import (
    CONTENT,
    OTHERWISE,
    Mirror,
    check_arrived,
    get,
    serve,
    silent_server,
)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data.download.fetch, "PAUSE_S", 0)


def fails(folder: Path, *mirrors: str) -> str:
    with pytest.raises(DataError) as caught:
        get(folder, *mirrors)
    message = str(caught.value)
    assert message.startswith("Could not download file:\n")
    assert message.endswith(f"\n{OTHERWISE}")
    return message


def begin(folder: Path, content: bytes) -> Path:
    """As if an earlier run had been killed after so much."""
    part = folder / "file.part"
    folder.mkdir(exist_ok=True)
    part.write_bytes(content)
    return part


@pytest.mark.parametrize("scheme", ["http", "file"])
@pytest.mark.parametrize("slash", ["/", ""])
def test_a_file_arrives_whole(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], scheme: str, slash: str
) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    with serve(Mirror({"file": CONTENT})) as address:
        address = address if scheme == "http" else tmp_path.as_uri()
        get(tmp_path / "new" / "folder", address.rstrip("/") + slash)
    check_arrived(tmp_path / "new" / "folder")
    assert capfd.readouterr() == ("", "")  # no bar where no terminal is
    assert (tmp_path / "new/folder/file").stat().st_mode == (tmp_path / "file").stat().st_mode


WEB_PAGE = {"Content-Type": "text/html; charset=utf-8"}
TERABYTE = {"Content-Length": "1000000000000"}
ZEROS, ANOTHER, EMPTY = {"file": bytes(100_000)}, {"file": b"another"}, {"file": b""}
FAILURES: dict[str, tuple[dict[str, Any], str, int]] = {
    # what the mirror does; the reason told; how often it is asked
    "403": ({"status": 403}, "HTTP 403 Forbidden", 1),
    "404": ({"files": {}}, "HTTP 404 Not Found", 1),
    "204": ({"status": 204}, "HTTP 204 No Content", 1),
    "206": ({"status": 206}, "HTTP 206 Partial Content", 1),
    "503": ({"status": 503}, "HTTP 503 Service Unavailable", 3),
    "429": ({"status": 429}, "HTTP 429 Too Many Requests", 3),
    "web page": ({"headers": WEB_PAGE}, "a web page instead of the file", 1),
    "another": ({"files": ANOTHER}, f"7 bytes arrived, with the MD5 {md5(b'another')} instead", 1),
    "empty": ({"files": EMPTY}, f"0 bytes arrived, with the MD5 {md5(b'')} instead", 1),
    "too large": ({"headers": TERABYTE}, "announces 1,000,000,000,000 bytes", 1),
    "endless": ({"files": ZEROS, "endless": True}, "sent more than 500,000 bytes", 1),
    "silent": ({"faults": [("stall", 0)] * 3}, "timed out", 3),
    "broken": ({"faults": [("cut", 0)] * 3}, "broke off after 0 of 300,000 bytes", 3),
    "circle": ({"status": 301, "headers": {"Location": "/file"}}, "infinite loop", 5),
    "to a file": ({"status": 301, "headers": {"Location": "file:///x"}}, "not allowed", 1),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_each_failure_is_told_and_the_next_mirror_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    monkeypatch.setattr(data.download.fetch, "MAX_BYTES", 500_000)
    if failure == "silent":
        monkeypatch.setattr(data.download.fetch, "TIMEOUT_S", 0.2)
    knobs, reason, times = FAILURES[failure]
    for good in (False, True):
        bad = Mirror(**{"files": {"file": CONTENT}, **knobs, "faults": knobs.get("faults", [])[:]})
        with serve(bad) as first, serve(Mirror({"file": CONTENT})) as second:
            if good:
                get(tmp_path / "new", first, second)
            else:
                message = fails(tmp_path / "new" / "folder", first)
                assert f"\n  {first}file: " in message
                assert reason in message
                assert list(tmp_path.iterdir()) == []  # neither folders nor an empty part
                assert len(bad.asked) == times
    check_arrived(tmp_path / "new")


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("SILENT", "timed out"),
        ("file:///no/such", "No such file"),
        ("http://127.0.0.1:1", "refused"),
        ("nonsense", "unknown url type"),
        ("http://[bad", "Invalid IPv6"),
        ("http://a b", "control characters"),
        ("", "unknown url type"),
    ],
)
def test_no_way_to_a_server_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, reason: str
) -> None:
    """And asked for again only where somebody took the call."""
    pauses: list[float] = []
    monkeypatch.setattr(data.download.fetch, "TIMEOUT_S", 0.2)
    monkeypatch.setattr(time, "sleep", pauses.append)
    with silent_server() as silent:
        message = fails(tmp_path / "new", address.replace("SILENT", silent))
    assert reason in message
    assert len(pauses) == (2 if address == "SILENT" else 0)
    assert list(tmp_path.iterdir()) == []


def test_all_mirrors_are_told_in_order_and_what_stays(tmp_path: Path) -> None:
    cut = Mirror({"file": CONTENT}, faults=[("cut", 10_000)] * 3)
    part = tmp_path / "new" / "file.part"
    with serve(cut) as one, serve(Mirror({})) as other:
        message = fails(tmp_path / "new", one, other)
        assert message.splitlines() == [
            "Could not download file:",
            f"  {one}file: it broke off after 30,000 of 300,000 bytes",
            f"  {other}file: HTTP 404 Not Found",
            f"30,000 bytes stay in {part}; the next run goes on from there.",
            OTHERWISE,
        ]
        get(tmp_path / "new", one)
    check_arrived(tmp_path / "new")
    assert cut.ranges_asked()[-1] == "bytes=30000-"
    assert "data.mirrors names no address" in fails(tmp_path / "none")


def test_a_web_page_does_not_cost_what_has_arrived(tmp_path: Path) -> None:
    """A hotel's login page answers everything with 200."""
    part = begin(tmp_path, CONTENT[:1000])
    with serve(Mirror({"file": b"<html>"}, ranges=False, headers=WEB_PAGE)) as address:
        assert "1,000 bytes stay" in fails(tmp_path, address)
    assert part.read_bytes() == CONTENT[:1000]


def test_the_mirror_that_was_good_is_asked_first_for_the_next_file(tmp_path: Path) -> None:
    bad, good = Mirror({}), Mirror({"a": b"A", "b": b"B", "c": b"C"})
    sums = {name: md5(content).upper() for name, content in good.files.items()}
    with serve(bad) as first, serve(good) as second:
        fetch(tmp_path, sums, [first, second], OTHERWISE)
    assert len(bad.asked) == 1
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == good.files


def test_files_that_arrived_before_a_failure_stay(tmp_path: Path) -> None:
    with serve(Mirror({"a": b"A"})) as address, pytest.raises(DataError, match="download b:"):
        fetch(tmp_path / "new", {"a": md5(b"A"), "b": md5(b"B")}, [address], OTHERWISE)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a"]


def test_redirects_are_followed_but_not_out_of_encryption(tmp_path: Path) -> None:
    there = Mirror({"file": CONTENT})
    with serve(there) as address:
        here = Mirror({}, status=302, headers={"Location": f"{address}file"})
        with serve(here) as first:
            begin(tmp_path, CONTENT[:1000])
            get(tmp_path, first)
    check_arrived(tmp_path)
    assert there.ranges_asked() == ["bytes=1000-"]
    handler = data.download.fetch._Redirects()
    handler.add_parent(build_opener())
    with (tmp_path / "file").open("rb") as reply:
        for new in ("http://a/b", "ftp://a/b", "HTTP://a/b"):
            with pytest.raises(OSError, match=r"redirects to .*, which is not encrypted"):
                redirect(handler, "https://a/a", new, reply)
        for old, new in (("https://a/a", "https://b/b"), ("http://a/a", "https://b/b")):
            assert redirect(handler, old, new, reply).full_url == new


def redirect(handler: Any, old: str, new: str, reply: Any) -> Any:
    return handler.redirect_request(Request(old), reply, 302, "Found", {}, new)

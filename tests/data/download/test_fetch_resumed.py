"""Downloads that break off: resumed where the server allows it, from the start where not."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

import data.download.fetch
from data.types import DataError
from tests.helpers.mirror import CONTENT, Mirror, check_arrived, get, serve


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data.download.fetch, "PAUSE_S", 0)


def begin(folder: Path, content: bytes) -> Path:
    """As if an earlier run had been killed after so much."""
    part = folder / "file.part"
    folder.mkdir(exist_ok=True)
    part.write_bytes(content)
    return part


@pytest.mark.parametrize(
    ("fault", "etag"), [("cut", '"one"'), ("cut", 'W/"one"'), ("cut", ""), ("stall", '"one"')]
)
def test_what_breaks_off_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, etag: str
) -> None:
    if fault == "stall":
        monkeypatch.setattr(data.download.fetch, "TIMEOUT_S", 0.5)
    faults = [(fault, 100_000), (fault, 50_001)]
    mirror = Mirror({"file": CONTENT}, faults=faults, etag=etag)
    with serve(mirror) as address:
        get(tmp_path, address)
    check_arrived(tmp_path)
    assert mirror.ranges_asked() == [None, "bytes=100000-", "bytes=150001-"]
    strong = etag if etag.startswith('"') else None
    assert [condition for _, _, condition in mirror.asked] == [None, strong, strong]


def test_a_server_that_knows_no_ranges_starts_afresh(tmp_path: Path) -> None:
    mirror = Mirror({"file": CONTENT}, ranges=False, faults=[("cut", 100_000)])
    with serve(mirror) as address:
        get(tmp_path, address)
    check_arrived(tmp_path)
    assert mirror.ranges_asked() == [None, "bytes=100000-"]


def test_a_file_that_changes_under_way_starts_afresh(tmp_path: Path) -> None:
    """By its ETag at once; without one, when the checksum does not fit."""
    for etag, asked in (('"old"', 2), ("", 3)):
        folder = tmp_path / f"{asked}"
        mirror = Mirror({"file": bytes(300_000)}, faults=[("cut", 100_000)], etag=etag)
        with serve(mirror) as address:
            change_when_asked(mirror)
            get(folder, address)
        check_arrived(folder)
        assert mirror.ranges_asked() == [None, "bytes=100000-", None][:asked]


def change_when_asked(mirror: Mirror) -> None:
    class Asked(list[Any]):
        def append(self, request: Any) -> None:
            super().append(request)
            if len(self) == 2:
                mirror.files, mirror.etag = {"file": CONTENT}, mirror.etag and '"new"'

    mirror.asked = Asked()


@pytest.mark.parametrize("shift", [-5, 5])
def test_another_range_than_asked_is_not_appended(tmp_path: Path, shift: int) -> None:
    mirror = Mirror({"file": CONTENT}, faults=[("cut", 1000)], shift=shift)
    with serve(mirror) as address:
        get(tmp_path, address)
    check_arrived(tmp_path)
    assert mirror.ranges_asked() == [None, "bytes=1000-", None]


@pytest.mark.parametrize(
    ("begun", "asked"),
    [
        (CONTENT[:123_456], ["bytes=123456-"]),
        (b"", [None]),
        (CONTENT, []),  # killed before the renaming: no server is needed
        (b"x" * 1000, ["bytes=1000-", None]),  # of another file: the sum says so
        (CONTENT[:-1] + b"x", ["bytes=300000-", None]),  # nothing follows
        (CONTENT + b"x", ["bytes=300001-", None]),
    ],
)
def test_the_part_of_a_killed_run_is_used(
    tmp_path: Path, begun: bytes, asked: list[str | None]
) -> None:
    begin(tmp_path, begun)
    mirror = Mirror({"file": CONTENT})
    with serve(mirror) as address:
        get(tmp_path, address)
    check_arrived(tmp_path)
    assert mirror.ranges_asked() == asked


def test_another_mirror_goes_on_where_the_first_broke_off(tmp_path: Path) -> None:
    first = Mirror({"file": CONTENT}, faults=[("cut", 10_000)] * 3)
    second = Mirror({"file": CONTENT})
    with serve(first) as one, serve(second) as other:
        get(tmp_path, one, other)
    check_arrived(tmp_path)
    assert second.ranges_asked() == ["bytes=30000-"]


@pytest.mark.parametrize("seed", range(25))
def test_any_series_of_faults_ends_in_the_right_file_or_in_a_message(
    tmp_path: Path, seed: int
) -> None:
    """Up to three runs over two mirrors with random faults; after that, no more faults."""
    rng = random.Random(seed)
    mirrors = [
        Mirror(
            {"file": CONTENT},
            ranges=rng.random() < 0.7,
            etag=rng.choice(["", '"one"']),
            shift=rng.choice([0, 0, 0, 1]),
            faults=[("cut", rng.randrange(310_000)) for _ in range(rng.randrange(8))],
        )
        for _ in range(2)
    ]
    if rng.random() < 0.5:
        begin(tmp_path, rng.choice([CONTENT, bytes(400_000)])[: rng.randrange(400_000)])
    with serve(mirrors[0]) as one, serve(mirrors[1]) as other:
        for _ in range(3):
            try:
                get(tmp_path, one, other)
            except DataError as error:
                assert "Could not download" in str(error)  # noqa: PT017 - either is right
                assert not (tmp_path / "file").exists()
            else:
                break
        else:
            for mirror in mirrors:
                mirror.faults.clear()
            get(tmp_path, one, other)
    check_arrived(tmp_path)

"""What a death at any change of a run's folder leaves, and in which order changes are made."""

from __future__ import annotations

import functools
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.campaigns import crash_points
from tests.campaigns.crash_points import TRAIN, Change
from tests.helpers import processes, results
from trainer import checkpoints


@dataclass(frozen=True)
class Watched:
    """A training, what it changed in its folder, and its folder as it was before each change."""

    whole: Path
    made: list[Change]
    photographs: list[Path]

    def before(self, change: Change, nth: int = 0) -> Path:
        return self.photographs[[i for i, c in enumerate(self.made) if c == change][nth]]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    folder = tmp_path_factory.mktemp("watched")
    (folder / "listed").mkdir()
    (folder / "seen").mkdir()
    made = crash_points.changes(folder / "listed", *TRAIN)
    prepare = functools.partial(
        crash_points.photograph, str(folder / "seen" / "run"), str(folder / "photographs")
    )
    processes.train(folder / "seen", *crash_points.WORDS, prepare=prepare)
    photographs = sorted((folder / "photographs").iterdir())
    assert len(photographs) == len(made)
    return Watched(folder / "listed" / "run", made, photographs)


def resumed(watched: Watched, photograph: Path, folder: Path) -> str:
    here = shutil.copytree(photograph, folder / photograph.name)
    first = crash_points.first_saved(watched.made)
    way = crash_points.check_after(here, watched.whole, int(photograph.name) > first)
    shutil.rmtree(here)
    return way


STEP_4, STEP_8, BEST = (f"checkpoints/.{name}.pth.tmp" for name in ("step_4", "step_8", "best"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "nth", "way"),
    [
        (("fsync", STEP_4), 1, "from step 4"),  # the end of an epoch whose last step was saved
        (("open", BEST), 1, "from step 8"),  # the best weights are in the state alone
        pytest.param(("write", STEP_8), 0, "from step 6", marks=pytest.mark.slow),  # half-written
        # All done but the last word.
        pytest.param(("open", ".summary.json.tmp"), 0, "from step 8", marks=pytest.mark.slow),
    ],
)
def test_the_way_on(watched: Watched, tmp_path: Path, change: Change, nth: int, way: str) -> None:
    assert resumed(watched, watched.before(change, nth), tmp_path) == way


@pytest.mark.slow
def test_the_way_on_from_everywhere(watched: Watched, tmp_path: Path) -> None:
    seen, ways = b"", []
    for photograph in watched.photographs:
        files = [f for f in sorted(photograph.rglob("*")) if f.is_file()]
        content = b"".join(str(f.relative_to(photograph)).encode() + f.read_bytes() for f in files)
        if content != seen:  # a sync, for one, changes nothing that a process could see
            seen = content
            ways.append(resumed(watched, photograph, tmp_path))
    assert {"from the start", "from step 2", "from step 6", "from step 8"} <= set(ways)
    assert len(ways) > 25


@pytest.mark.slow
def test_a_photograph_shows_what_a_death_leaves(watched: Watched, tmp_path: Path) -> None:
    """And a real one is survived: by `_exit` in the middle of a write."""
    number = watched.made.index(("write", STEP_8))
    crash_points.dying(tmp_path, TRAIN, number)
    left, shown = (
        [(f.name.partition(".tmp.")[0], f.stat().st_size) for f in sorted(folder.iterdir())]
        for folder in (tmp_path / "run" / "checkpoints",
                       watched.photographs[number] / "run" / "checkpoints")
    )  # fmt: skip
    assert left == shown
    assert crash_points.check_after(tmp_path, watched.whole, once_saved=True) == "from step 6"


def written(made: list[Change], temporary: str) -> list[list[Change]]:
    """For each time that this file was made, the changes from then on."""
    starts = [i for i, change in enumerate(made) if change == ("open", temporary)]
    return [made[start:] for start in starts]


def test_each_file_is_written_synced_renamed_and_then_its_folder_synced(watched: Watched) -> None:
    temporaries = {name for call, name in watched.made if call == "write"}
    assert len(temporaries) >= 6  # four steps, the best, the summary
    for temporary in temporaries:
        folder = temporary.rpartition("/")[0] or "."
        for changes in written(watched.made, temporary):
            calls = [c for c in changes[:6] if c != ("remove", temporary)]
            assert calls[:5] == [
                ("open", temporary), ("write", temporary), ("fsync", temporary),
                ("rename", temporary), ("fsync", folder),
            ]  # fmt: skip


def test_an_old_state_goes_when_two_newer_ones_are_on_the_disk(watched: Watched) -> None:
    removals = [(i, name) for i, (call, name) in enumerate(watched.made)
                if call == "remove" and name.startswith("checkpoints/step_")]  # fmt: skip
    assert [name for _, name in removals] == ["checkpoints/step_2.pth", "checkpoints/step_4.pth"]
    for at, name in removals:
        gone = int(name.removeprefix("checkpoints/step_").removesuffix(".pth"))
        renamed = [i for i, change in enumerate(watched.made[:at])
                   if change == ("rename", f"checkpoints/.step_{gone + 4}.pth.tmp")]  # fmt: skip
        assert ("fsync", "checkpoints") in watched.made[renamed[-1] : at]
        there = results.sound_steps(watched.photographs[at] / "run")
        assert there == [gone, gone + 2, gone + 4]


def test_two_sound_states_at_any_time_once_there_were_two(watched: Watched) -> None:
    counts = [len(results.sound_steps(photograph / "run")) for photograph in watched.photographs]
    second = next(i for i, count in enumerate(counts) if count == 2)
    assert set(counts[:second]) == {0, 1}
    assert set(counts[second:]) == {2, 3}


def test_last_is_the_newest_at_any_time(watched: Watched) -> None:
    """But for the moment between the two renames."""
    for photograph in watched.photographs:
        last = photograph / "run" / "checkpoints" / "last.pth"
        if last.exists():
            steps = results.sound_steps(photograph / "run")
            assert checkpoints.read(last)["step"] in steps[-2:]


@pytest.mark.slow
def test_a_row_that_was_cut_off_comes_again_whole(watched: Watched, tmp_path: Path) -> None:
    """A line is one write; a full disk may still take half of it."""
    here = Path(shutil.copytree(watched.before(("write", STEP_8), 1), tmp_path / "cut"))
    rows = here / "run" / "metrics.jsonl"
    rows.write_text(rows.read_text()[:-20])
    assert crash_points.check_after(here, watched.whole, once_saved=True) == "from step 8"

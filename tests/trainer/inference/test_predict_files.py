"""The files that `predict` takes, of every kind, damaged and missing ones, and their copies."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.commands import ROOT, Finished, TrainedRun, run_trainer
from tests.helpers.digit_files import NUM_DIGITS, rows_of, write_digits

Dispatch = Callable[..., Finished]


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("digits"))


def paths_of(done: Finished) -> list[str]:
    assert done.returncode == 0, done.output
    return [row["file"] for row in rows_of(done)]


def test_bad_files_are_named_and_the_rest_goes_on(
    default_run: TrainedRun, digits: Path, tmp_path: Path
) -> None:
    """As a process: exit code 1, one line on stderr each, nothing else there."""
    shutil.copy(digits / "007_7.png", tmp_path / "c_7.png")
    whole = (tmp_path / "c_7.png").read_bytes()
    (tmp_path / "a_cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "b_words.txt").write_text("not an image")
    (tmp_path / "d_empty.png").write_bytes(b"")
    (tmp_path / ".hidden").write_bytes(b"")
    (tmp_path / ".thumbs").mkdir()
    (tmp_path / ".thumbs" / "x.png").write_bytes(b"")
    done = run_trainer("predict", str(default_run.best), ".", "--top-k", "1", cwd=tmp_path)
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 2
    assert done.stdout.splitlines()[1].split()[::2] == ["c_7.png", "7"]
    lines = done.stderr.splitlines()
    assert [line.partition(":")[0] for line in lines[:2]] == ["a_cut.png", "d_empty.png"]
    assert lines[2:] == [
        "1 file is no image and is passed over: 1 .txt",
        "2 of 3 images failed.",
    ]


def test_a_limit_of_pixels(default_run: TrainedRun, digits: Path, dispatch: Dispatch) -> None:
    words = ("predict", str(default_run.best), str(digits / "007_7.png"), "--max-pixels")
    assert dispatch(*words, str(28 * 28)).returncode == 0
    refused = dispatch(*words, str(28 * 28 - 1))
    assert refused.returncode == 1
    assert "its 28 x 28 pixels are more than 783" in refused.stderr
    assert dispatch(*words, "0").returncode == 2
    for number, code in ((28 * 28, 0), (28 * 28 - 1, 1), (0, 2), ("many", 2), ("1" * 5000, 2)):
        done = dispatch(*words[:-1], f"data.max_pixels={number}")
        assert done.returncode == code, done.output
    both = dispatch(*words, "900", "data.max_pixels=900")
    assert both.returncode == 2
    assert "give one of the two" in both.stderr


def test_bad_files_as_json(default_run: TrainedRun, digits: Path, dispatch: Dispatch) -> None:
    Path("bad\n.png").write_bytes(b"")  # dispatch works in a folder of its own
    good = str(digits / "007_7.png")
    done = dispatch("predict", str(default_run.best), good, "bad\n.png", good, "--json")
    assert done.returncode == 1
    first, second, third = rows_of(done)
    assert second == {"file": "bad\n.png", "error": "the file is empty."}
    assert first == third
    assert set(first) == {"file", "top"}
    shown = dispatch("predict", str(default_run.best), "bad\n.png")
    assert shown.stderr.splitlines()[0] == r"bad\n.png: the file is empty."


def test_words_that_look_like_keys_and_options(
    default_run: TrainedRun, digits: Path, dispatch: Dispatch
) -> None:
    for name in ("device=cpu", "x=1.png", "-dash.png"):
        shutil.copy(digits / "007_7.png", name)
    best = str(default_run.best)
    done = dispatch("predict", "--json", best, "device=cpu", "x=1.png", "--", "-dash.png")
    assert done.returncode == 0, done.output
    assert [row["file"] for row in rows_of(done)] == ["device=cpu", "x=1.png", "-dash.png"]
    Path("device=cpu").unlink()
    as_key = dispatch("predict", "device=cpu", best, "x=1.png", "precision=fp64", "num_threads=1")
    assert as_key.returncode == 0, as_key.output


def test_linked_folders_are_walked_once(
    default_run: TrainedRun, digits: Path, dispatch: Dispatch
) -> None:
    Path("here").mkdir()
    Path("here/loop").symlink_to(Path("here").absolute())
    Path("here/digits").symlink_to(digits)
    done = dispatch("predict", str(default_run.best), "here", "--json", "--top-k=1")
    assert done.returncode == 0, done.output
    assert len(rows_of(done)) == NUM_DIGITS


def test_other_sizes_and_colours_are_brought_to_the_nets_own(
    default_run: TrainedRun, digits: Path, dispatch: Dispatch
) -> None:
    """A digit in colour, on a wide black sheet, four times as large: the crop finds it."""
    small = np.asarray(Image.open(digits / "007_7.png").convert("RGB"))
    sheet = np.zeros((112, 400, 3), np.uint8)
    sheet[:, 144:256] = small.repeat(4, axis=0).repeat(4, axis=1)
    Image.fromarray(sheet).save("sheet.png")
    probability = {}
    for fit in ("crop", "squash"):
        done = dispatch("predict", str(default_run.best), "sheet.png", "--json", "--fit", fit)
        probability[fit] = {t["class"]: t["probability"] for t in rows_of(done)[0]["top"]}
    assert next(iter(probability["crop"])) == "7"
    assert probability["crop"] != probability["squash"]


def test_images_of_every_kind(default_run: TrainedRun, digits: Path, dispatch: Dispatch) -> None:
    """The same seven in what cameras, scanners and browsers write; and what is no image."""
    with Image.open(digits / "007_7.png") as file:
        seven = file.copy()
    colour, deep = seven.convert("RGB"), np.asarray(seven).astype(np.uint16) * 257
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned clockwise by a quarter
    clear = seven.convert("RGBA")
    clear.putalpha(seven)
    for name, image, options in (
        ("alpha.png", clear, {}), ("bits.png", seven.point(lambda v: 255 * (v > 127), "1"), {}),
        ("cmyk.jpg", colour.convert("CMYK"), {"quality": 95}), ("colour.webp", colour, {}),
        ("deep.png", Image.fromarray(deep), {}),
        ("floats.tif", Image.fromarray(np.asarray(seven) / np.float32(255)), {}),
        ("grey_alpha.png", seven.convert("LA"), {}), ("moving.gif", seven, {"save_all": True}),
        ("palette.png", seven.convert("P"), {}),
        ("turned.jpg", seven.rotate(90), {"exif": turned, "quality": 95}),
    ):  # fmt: skip
        image.save(name, **options)
    good = sorted(path.name for path in Path().iterdir())
    Path("loop.png").symlink_to("loop.png")
    Path("folder.png").mkdir()
    Path("folder.png/text.png").write_text("not an image")
    done = dispatch("predict", str(default_run.best), ".", "--json", "--top-k=10")
    assert done.returncode == 1
    rows = rows_of(done)
    assert [row["file"] for row in rows if "error" in row] == ["folder.png/text.png", "loop.png"]
    assert [row["file"] for row in rows if "top" in row] == good
    assert len(good) == 10
    for row in rows:
        found = [one["probability"] for one in row.get("top", [])]
        assert all(math.isfinite(p) for p in found)
        assert not found or math.fsum(found) == pytest.approx(1, abs=1e-12)
        assert not found or row["top"][0]["class"] == "7", row


def test_dark_digits_on_white_are_inverted_when_asked(
    default_run: TrainedRun, digits: Path, dispatch: Dispatch
) -> None:
    with Image.open(digits / "007_7.png") as image:
        Image.fromarray(255 - np.asarray(image)).save("paper.png")
        ink = Image.new("LA", image.size, (0, 255))  # black, opaque where the digit is
        ink.putalpha(image)
        ink.save("ink.png")
    words = ("predict", str(default_run.best), "--json")
    plain = rows_of(dispatch(*words, str(digits / "007_7.png")))[0]["top"]
    assert rows_of(dispatch(*words, "--invert", "paper.png"))[0]["top"] == plain
    assert rows_of(dispatch(*words, "--invert", "ink.png"))[0]["top"] == plain
    assert rows_of(dispatch(*words, "paper.png"))[0]["top"] != plain


def test_patterns_are_expanded_here(
    default_run: TrainedRun, digits: Path, dispatch: Dispatch
) -> None:
    for name in ("b/x.png", "a/x.png", "a/deep/y.png", "a/deep/z.jpg", "a/.hidden.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(digits / "007_7.png", name)
    shutil.copy(digits / "007_7.png", "odd[1].png")
    words = ("predict", str(default_run.best), "--json", "--top-k=1")
    deep = ["a/deep/y.png", "a/x.png", "b/x.png"]
    assert paths_of(dispatch(*words, "**/?.png")) == deep
    assert paths_of(dispatch(*words, "[ab]/*.png")) == ["a/x.png", "b/x.png"]
    assert paths_of(dispatch(*words, "[ab]")) == ["a/deep/y.png", "a/deep/z.jpg", *deep[1:]]
    assert paths_of(dispatch(*words, "a/**")) == ["a/deep/y.png", "a/deep/z.jpg", "a/x.png"]
    assert paths_of(dispatch(*words, "odd[1].png")) == ["odd[1].png"]  # a file of that name
    assert paths_of(dispatch(*words, "b", "*/x.png")) == ["b/x.png", "a/x.png", "b/x.png"]


def test_annotated_copies(default_run: TrainedRun, digits: Path, dispatch: Dispatch) -> None:
    """Each under its own name below its own folders; large enough to read; the rest untouched."""
    Path("in/sub").mkdir(parents=True)
    for name in ("in/x.png", "in/sub/x.png", "in/x.jpg", "in/x"):
        with Image.open(digits / "007_7.png") as image:
            image.save(name, "JPEG" if name.endswith("jpg") else "PNG")
    Path("in/bad.png").write_bytes(b"")
    before = {file: file.read_bytes() for file in Path("in").rglob("*") if file.is_file()}
    done = dispatch("predict", str(default_run.best), "in", "in/x.png", "-o", "out/copies")
    assert done.returncode == 1  # bad.png
    assert done.stdout.splitlines()[-1] == "annotated copies lie in out/copies"
    written = {str(file.relative_to("out/copies")) for file in Path("out").rglob("*.*")}
    assert written - {"copies", "."} == {
        ".trainer-annotated", "x.png", "sub/x.png", "x.jpg"
    }  # fmt: skip
    assert Path("out/copies/x").is_file()
    for name, kind in (("x.png", "PNG"), ("sub/x.png", "PNG"), ("x.jpg", "JPEG"), ("x", "PNG")):
        with Image.open(Path("out/copies", name)) as copy:
            assert copy.format == kind
            assert copy.width >= 360 < copy.height
    assert before == {file: file.read_bytes() for file in before}


@pytest.mark.parametrize(("words", "grey"), [((), 0), (("--invert",), 255)])
def test_transparent_parts_are_drawn_as_the_net_sees_them(
    default_run: TrainedRun, dispatch: Dispatch, words: tuple[str, ...], grey: int
) -> None:
    Image.new("RGBA", (28, 28)).save("clear.png")
    done = dispatch("predict", str(default_run.best), "clear.png", "-o", "copies", *words)
    assert done.returncode == 0, done.output
    with Image.open("copies/clear.png") as copy:
        assert copy.getpixel((copy.width // 2, 100)) == (grey,) * 3


def test_nothing_is_overwritten(default_run: TrainedRun, digits: Path, dispatch: Dispatch) -> None:
    Path("mine").mkdir()
    shutil.copy(digits / "007_7.png", "mine/x.png")
    shutil.copy(digits / "007_7.png", "x.png")
    content = Path("x.png").read_bytes()
    words = ("predict", str(default_run.best), "--json")
    for images, folder in (("x.png", "."), ("x.png", "mine"), ("mine", "mine")):
        done = dispatch(*words, images, "-o", folder)
        assert done.returncode == 2
        assert "x.png is there already" in done.stderr
        assert done.stdout == ""
    assert Path("mine/x.png").read_bytes() == content
    done = dispatch(*words, "mine", "-o", "x.png")
    assert done.returncode == 2
    assert "-o x.png" in done.stderr
    done = dispatch(*words, "x.png", "mine", "-o", "new", "--top-k=1")  # the twin
    assert done.returncode == 0, done.output
    assert sorted(map(str, Path("new").rglob("*.png"))) == ["new/mine/x.png", "new/x.png"]


def test_a_bar_only_where_the_results_do_not_scroll_by(
    default_run: TrainedRun, digits: Path, dispatch: Dispatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("predict", str(default_run.best), str(digits), "--top-k=1")
    monkeypatch.setattr("trainer.system.progress_bars.DELAY_S", 0)
    for out, err, has_bar in ((True, True, False), (False, True, True), (False, False, False)):
        monkeypatch.setattr("sys.stdout.isatty", lambda answer=out: answer)
        monkeypatch.setattr("sys.stderr.isatty", lambda answer=err: answer)
        monkeypatch.setattr("sys.__stderr__", sys.stderr)
        done = dispatch(*words)
        assert len(done.stdout.splitlines()) == 1 + NUM_DIGITS
        assert ("/100 [" in done.stderr) is has_bar


def test_missing_files_are_told_before_torch_is_imported(default_run: TrainedRun) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "trainer", "predict", str(default_run.best),
         "nowhere.png"], cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert "nowhere.png" in done.stderr
    assert "trainer.cli.arguments" in done.stderr
    assert "torch" not in done.stderr


@pytest.mark.slow
def test_a_reader_that_has_seen_enough_is_no_error(default_run: TrainedRun, digits: Path) -> None:
    done = subprocess.run(
        f"{sys.executable} -m trainer predict {default_run.best} {digits} {digits} | head -1",
        shell=True, cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout.startswith("file ")

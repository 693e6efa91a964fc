"""`inspect`, data.on_leak and what a run's folder and page tell of equal images, through the
command line, over a folder in which everything is planted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.helpers.commands import Finished, read_json, run_trainer
from tests.helpers.textures import NEAR, texture

Dispatch = Callable[..., Finished]
CLASSES = ("cat", "dog", "owl")
WORDS = ["data=image_folder", "data.root=photos", "data.shape=[3,32,32]"]
TRAIN = [*WORDS, "epochs=1", "num_threads=1", "tensorboard=false"]
KEYS = {
    "num_images", "classes", "damaged", "exact_copies", "near_copies", "label_conflicts", "groups",
}  # fmt: skip


def write_splits(root: Path) -> Path:
    for number, (part, count) in enumerate((("train", 8), ("val", 3), ("test", 3))):
        for label, name in enumerate(CLASSES):
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                texture(1000 * number + 100 * label + i).save(folder / f"{i}.png")
    return root


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    return write_splits(tmp_path / "photos")


@pytest.fixture
def photos(clean: Path) -> Path:
    """With: an exact copy of a train image in test, saved in another format; one under two labels;
    near copies; a damaged file; one of one colour."""
    Image.open(clean / "train/cat/0.png").save(clean / "test/cat/copy.bmp")
    shutil.copy(clean / "val/dog/1.png", clean / "train/owl/other\x1b[31m.png")
    for i, (name, change) in enumerate(NEAR.items()):
        change(Image.open(clean / f"train/dog/{i}.png")).save(clean / f"test/dog/{name}.png")
    (clean / "train/cat/damaged.png").write_bytes(b"no image")
    Image.new("RGB", (64, 64), "red").save(clean / "train/owl/red.png")
    return clean


def groups(found: list[list[dict[str, Any]]]) -> list[set[str]]:
    return [{place["file"] for place in group} for group in found]


def test_everything_that_is_planted_is_listed(photos: Path, dispatch: Dispatch) -> None:
    done = dispatch("inspect", *WORDS, "--json")
    assert done.returncode == 0, done.output
    found = json.loads(done.stdout)
    assert found.keys() == KEYS
    assert found["num_images"] == 24 + 9 + 9 + 1 + 1 + len(NEAR) + 1
    assert found["classes"]["owl"] == {"train": 10, "val": 3, "test": 3}
    assert [one["file"] for one in found["damaged"]] == ["train/cat/damaged.png"]
    torn = {"train/owl/other\x1b[31m.png", "val/dog/1.png"}
    assert groups(found["exact_copies"]) == [{"train/cat/0.png", "test/cat/copy.bmp"}, torn]
    assert groups(found["label_conflicts"]) == [torn]
    assert {place["label"] for place in found["label_conflicts"][0]} == {"dog", "owl"}
    assert groups(found["near_copies"]) == [
        {f"train/dog/{i}.png", f"test/dog/{name}.png"} for i, name in enumerate(NEAR)
    ]
    assert found["groups"] == []


def test_findings_come_first_with_what_to_do(photos: Path, dispatch: Dispatch) -> None:
    done = dispatch("inspect", *WORDS)
    assert done.returncode == 0, done.output
    for said in (
        "- damaged: 1 file cannot be used: train/cat/damaged.png",
        "- exact copies: 1 test image is in train, too: test/cat/copy.bmp = train/cat/0.png",
        "- exact copies: 1 val image is in train, too: val/dog/1.png = train/owl/other\\x1b[31m",
        f"- near copies: {len(NEAR)} test images have near copies in train: ",
        "- labels: 1 image stands under more than one label", "data.on_leak=drop",
        "- nearly one colour: 1 image: train/owl/red.png",
    ):  # fmt: skip
        assert said in done.stdout
    assert done.stdout.index("damaged") < done.stdout.index("class")
    assert "\x1b" not in done.stdout


def test_a_clean_folder_has_no_findings(clean: Path, dispatch: Dispatch) -> None:
    words = [*WORDS, f"data.root={clean}"]  # not the one of the other tests, by name
    done = dispatch("inspect", *words)
    assert done.returncode == 0
    assert done.stdout.startswith("Nothing was found that would spoil")
    found = json.loads(dispatch("inspect", *words, "--json").stdout)
    assert not any(found[key] for key in KEYS - {"num_images", "classes"})


def test_sets_without_files_are_named_by_index(dispatch: Dispatch) -> None:
    words = ["data=synthetic", "data.noise=0", "data.shape=[1,8,8]"]
    found = json.loads(dispatch("inspect", *words, "--json").stdout)
    assert found["exact_copies"][0][0].keys() == {"index", "split", "label"}
    assert "near copies were not looked for: images of 8 pixels" in dispatch(
        "inspect", *words
    ).stdout.replace("Near", "near")


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("epochs=3", "epochs=3: plays no part"),
        ("model=vgg16", "model=vgg16: plays no part"),
        ("data.on_leak=drop", "data.on_leak=drop: has no effect here"),
        ("data.mean=[0.5]", "data.mean=[0.5]: has no effect here"),
        ("data.root=nowhere", "nowhere does not exist"),
        ("--multirun", "inspect takes key=value words"),
    ],
)
def test_wrong_words(word: str, said: str, clean: Path, dispatch: Dispatch) -> None:
    done = dispatch("inspect", *WORDS[:1], *WORDS[2:], *["data.root=photos"] * ("root" not in word),
                    word)  # fmt: skip
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stdout == ""


def test_error_stops_before_a_run_and_names_the_pair(photos: Path, dispatch: Dispatch) -> None:
    (photos / "train/cat/damaged.png").unlink()
    done = dispatch(*TRAIN, "data.on_leak=error", "hydra.run.dir=run")
    assert done.returncode == 2
    assert "test/cat/copy.bmp = train/cat/0.png" in done.stderr
    assert "data.on_leak=drop" in done.stderr
    assert "Traceback" not in done.stderr
    assert not Path("run").exists()


def test_the_run_and_its_page_tell_of_copies(photos: Path, tmp_path: Path) -> None:
    (photos / "train/cat/damaged.png").unlink()
    (photos / "train/owl/<b>x.png").write_bytes((photos / "test/owl/0.png").read_bytes())
    for on_leak, counts in (
        ("warn", {"test_in_train": 2, "val_in_train": 1, "label_conflicts": 1}),
        ("drop", {"left_out_of_train": 3, "label_conflicts": 1}),
    ):
        words = [*TRAIN, f"data.on_leak={on_leak}", f"hydra.run.dir={on_leak}"]
        done = run_trainer(*words, cwd=tmp_path)
        assert done.returncode == 0, done.output
        log = (tmp_path / on_leak / "trainer.log").read_text()
        assert "test/cat/copy.bmp" in log
        assert r"one label: train/owl/other\x1b[31m.png (owl) = val/dog/1.png (dog)" in log
        found = read_json(tmp_path / on_leak / "leaks.json")["counts"]
        assert {key: n for key, n in found.items() if n and key != "groups_of_copies"} == counts
        assert run_trainer("report", on_leak, cwd=tmp_path).returncode == 0
        page = (tmp_path / on_leak / "report.html").read_text()
        assert "<h2>Data</h2>" in page
        assert "train/owl/&lt;b&gt;x.png (train, owl)" in page
        assert "<b>x" not in page
        top = page.partition("<section>")[0]  # with the accuracies
        assert ("<p>test images that are in train, too: 2</p>" in top) == (on_leak == "warn")
        assert "readings of this test split: " in top
        assert "data.root=&#39;" not in page.partition("</header>")[0]


def test_a_run_without_copies_has_neither(clean: Path, tmp_path: Path) -> None:
    assert run_trainer(*TRAIN, "hydra.run.dir=run", cwd=tmp_path).returncode == 0
    assert not (tmp_path / "run" / "leaks.json").exists()
    (tmp_path / "run" / "leaks.json").write_text('{"counts": {"test_in_train": "<script>"}}')
    assert run_trainer("report", "run", cwd=tmp_path).returncode == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<h2>Data</h2>" not in page
    assert "in train, too" not in page


def test_the_drawn_test_split_is_written_down(tmp_path: Path, dispatch: Dispatch) -> None:
    """And stays when images are added, where another one would have been drawn."""
    for label, name in enumerate(CLASSES):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(12):
            texture(100 * label + i).save(tmp_path / "photos" / name / f"{i}.png")
    done = dispatch("inspect", *WORDS, "--fix-test", "-o", "list.txt")
    assert done.returncode == 0, done.output
    listed = [x for x in Path("list.txt").read_text().splitlines() if not x.startswith("#")]
    assert f"{len(listed)} images are listed in {tmp_path / 'list.txt'}" in done.stdout
    assert done.stdout.endswith(f"from now on: data.test_files={tmp_path / 'list.txt'}\n")
    again = dispatch("inspect", *WORDS, "--fix-test", "-o", "list.txt")
    assert again.returncode == 2
    for i in range(12, 30):
        texture(500 + i).save(tmp_path / "photos" / "cat" / f"{i}.png")
    words = [*WORDS, "data.test_files=list.txt", "--json"]
    counts = json.loads(dispatch("inspect", *words).stdout)["classes"]
    assert sum(own["test"] for own in counts.values()) == len(listed)
    drawn = json.loads(dispatch("inspect", *WORDS, "--json").stdout)["classes"]
    assert sum(own["test"] for own in drawn.values()) > len(listed)
    refused = dispatch("inspect", "data=mnist_5k", "--fix-test")
    assert refused.returncode == 2
    assert "say its test split, which stays" in refused.stderr
    assert dispatch("inspect", *WORDS, "-o", "x.txt").returncode == 2


def test_groups_are_told(tmp_path: Path, dispatch: Dispatch) -> None:
    for part in ("train", "val", "test"):
        for label, name in enumerate(CLASSES):
            (tmp_path / "photos" / part / name).mkdir(parents=True)
            for i in range(4):
                group = "both" if (i, part) in ((0, "train"), (0, "test")) else f"{part}{i}"
                file = tmp_path / "photos" / part / name / f"{group}-{label}{i}.png"
                texture(1000 * len(part) + 100 * label + i).save(file)
    expression = r"data.group='([^/]+)-[0-9]+\.png'"
    done = dispatch("inspect", *WORDS, expression, "--json")
    assert done.returncode == 0, done.output
    groups = json.loads(done.stdout)["groups"]
    assert groups[0] == {"group": "both", "splits": ["train", "test"]}
    assert [one["group"] for one in groups if "train" in one["splits"]] == [
        "both", "train1", "train2", "train3"
    ]  # fmt: skip
    text = dispatch("inspect", *WORDS, expression).stdout
    assert "groups: 1 has images in test and in train: both" in text


@pytest.mark.parametrize("key", ["data.test_files", "data.group"])
def test_a_list_that_is_no_text_is_told_in_a_line(
    clean: Path, tmp_path: Path, dispatch: Dispatch, key: str
) -> None:
    shutil.copy(clean / "train/cat/0.png", tmp_path / "list.csv")
    shutil.rmtree(clean / "test")
    done = dispatch("inspect", *WORDS, f"{key}=list.csv")
    assert done.returncode == 2
    assert f"{key}=list.csv: is not a text file" in done.stderr
    assert "\\" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
    names = [f"train/{name}/{i}.png" for name in CLASSES for i in range(8)]
    if key == "data.group":
        names += [f"val/{name}/{i}.png" for name in CLASSES for i in range(3)]
        lines = ["file,group", *(f"{name},{i}" for i, name in enumerate(names))]
    else:
        lines = [names[0], names[8], names[16]]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    done = dispatch("inspect", *WORDS, f"{key}=list.csv", "data.test_size=0.2")
    assert done.returncode == 0, done.output


@pytest.mark.parametrize(("name", "shown"), [("a\nb", r"a\nb"), ("\x1b[31m", r"\x1b[31m")])
def test_a_class_with_control_characters_is_told_in_a_line(
    clean: Path, dispatch: Dispatch, name: str, shown: str
) -> None:
    (clean / "train/owl").rename(clean / "train" / name)
    words = [*WORDS, f"data.split_seed={len(name)}"]  # no other test's, whose dataset is cached
    done = dispatch("inspect", *words)
    assert done.returncode == 2
    assert f"the name of the class folder '{shown}' is no plain text" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    (clean / "train" / name).rename(clean / "train/owl")
    assert dispatch("inspect", *words).returncode == 0

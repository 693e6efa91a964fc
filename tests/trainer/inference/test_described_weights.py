"""Safetensors of `export`: imported again, they predict as before; and descriptions that lie."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from models.weights import safetensors_files
from models.weights.foreign import WeightsError
from models.weights.reader import read
from tests.helpers.exports import NUM_CLASSES, Dispatch, make_checkpoint
from trainer import checkpoints
from trainer.checkpoints import exported as exported_by_us

IMPORT = ("import-weights", "net.safetensors", "--model=mlp", "-o", "again.pth")
SHAPE = (3, 9, 12)
GIVEN = ("data.shape=[3,9,12]", f"data.num_classes={NUM_CLASSES}")


def make(**changed: Any) -> None:
    """net.pth, of a model that sees and answers otherwise than the defaults, and net.safetensors.
    `changed`: entries of the checkpoint."""
    make_checkpoint(Path("net.pth"), "mlp", SHAPE)
    entries = checkpoints.read(Path("net.pth"))
    own = {"fit": "squash", "probabilities": "sigmoid", "pixel_range": [3.0, 4000.0]}
    checkpoints.write(Path("net.pth"), {**entries, **own, **changed})


def exported(dispatch: Dispatch, **changed: Any) -> None:
    make(**changed)
    done = dispatch("export", "net.pth", "--format=safetensors")
    assert done.returncode == 0, done.output


def predicted(dispatch: Dispatch, *words: str) -> list[dict[str, Any]]:
    done = dispatch("predict", *words, "--json", "--top-k=50")
    assert done.returncode == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]


def images() -> list[str]:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (30, 20, 3), dtype=np.uint8)).save("colour.png")
    Image.fromarray(rng.integers(0, 4000, (20, 40), dtype=np.uint16)).save("deep.png")
    return ["colour.png", "deep.png"]


@pytest.mark.parametrize("changed", [{}, {"fit": "crop", "resize": 17, "probabilities": "softmax"}])
def test_it_predicts_as_before(changed: dict[str, Any], dispatch: Dispatch) -> None:
    exported(dispatch, **changed)
    done = dispatch(*IMPORT)
    assert done.returncode == 0, done.output
    assert f"again.pth: mlp, {NUM_CLASSES} classes, input 3x9x12" in done.stdout
    assert "tells no" not in done.stdout
    before, after = (
        checkpoints.read(Path(name)) for name in ("net.pth", "again.pth")
    )  # fmt: skip
    told = ("classes", "shape", "resize", "mean", "std", "fit", "probabilities", "pixel_range")
    assert {name: after[name] for name in told} == {name: before[name] for name in told}
    files = images()
    want, found = (predicted(dispatch, name, *files) for name in ("net.pth", "again.pth"))
    for rows in zip(want, found, strict=True):
        a, b = ({row["class"]: row["probability"] for row in image["top"]} for image in rows)
        assert list(a) == list(b)
        assert len(a) == NUM_CLASSES
        assert all(math.isclose(a[name], b[name], abs_tol=1e-6) for name in a)


def test_keys_are_worth_more(dispatch: Dispatch) -> None:
    exported(dispatch)
    Path("names.txt").write_text("".join(f"kind {i}\n" for i in range(NUM_CLASSES)))
    words = ("data.mean=[0,0,0]", "data.std=[1,1,1]", "data.fit=crop", "data.shape=[3,12,9]")
    done = dispatch(*IMPORT, *words, "--classes=names.txt")
    assert done.returncode == 0, done.output
    entries = checkpoints.read(Path("again.pth"))
    assert entries["classes"][3] == "kind 3"
    assert (entries["mean"], entries["std"], entries["fit"]) == ([0.0] * 3, [1.0] * 3, "crop")
    assert entries["shape"] == [3, 12, 9]
    refused = dispatch(*IMPORT, "--force", "data.resize=20")
    assert refused.returncode == 2
    assert "data.resize=20: is for data.fit=crop" in refused.stderr


def test_a_training_starts_with_its_normalisation(dispatch: Dispatch) -> None:
    exported(dispatch)
    done = dispatch(
        "model=mlp", "data=synthetic", "data.shape=[3,9,12]", f"data.num_classes={NUM_CLASSES}",
        "data.num_train=840", "data.num_test=84", "limit_batches=1", "epochs=1", "device=cpu",
        "weights=net.safetensors", "hydra.run.dir=run",
    )  # fmt: skip
    assert done.returncode == 0, done.output
    log = Path("run/trainer.log").read_text()
    assert "normalised with mean [0.4,0.5,0.6], std [0.2,0.3,0.25] of the weights" in log
    assert checkpoints.read(Path("run/checkpoints/best.pth"))["mean"] == [0.4, 0.5, 0.6]


def description() -> dict[str, Any]:
    with safe_open("net.safetensors", "pt") as file:
        told: dict[str, Any] = json.loads(file.metadata()["description"])
    return told


def redescribed(text: str) -> None:
    save_file(load_file("net.safetensors"), "net.safetensors", {"description": text})


NOT_OURS = ["", "cats and dogs", "[1, 2]", "{}", "null", "{" * 9, "[" * 200_000, "9" * 1_000_000,
            '{"classes": ["a"]}']  # fmt: skip
WRONG: list[dict[str, Any]] = [
    {"classes": {"0": "a"}}, {"classes": []}, {"classes": [1] * NUM_CLASSES},
    {"classes": ["x" * 1001] * NUM_CLASSES}, {"classes": ["x"] * (2**17 + 1)},
    {"shape": [3, 9]}, {"shape": [3, 9.0, 12]}, {"shape": [3, 10**30, 12]}, {"shape": "3x9x12"},
    {"shape": [3, 2**14, 2**14]}, {"mean": [math.nan] * 3}, {"mean": [math.inf] * 3},
    {"mean": [0.5]}, {"mean": [[0.5]] * 3}, {"mean": [True] * 3}, {"std": [0.0] * 3},
    {"std": [1e-40] * 3}, {"std": 1}, {"resize": -1}, {"resize": None}, {"fit": ["crop"]},
    {"fit": "\x1b[2J"}, {"probabilities": {}}, {"pixel_range": [math.nan, 1]},
]  # fmt: skip


@pytest.mark.parametrize("text", NOT_OURS, ids=range(len(NOT_OURS)))
def test_other_texts_are_no_description(text: str) -> None:
    assert exported_by_us.entries_in(text) == ({}, "")


def test_of_other_texts_nothing_is_said(dispatch: Dispatch) -> None:
    exported(dispatch)
    redescribed("cats and dogs")
    done = dispatch(*IMPORT, *GIVEN)
    assert done.returncode == 0, done.output
    assert "the file tells no mean and std" in done.stdout
    assert "the file tells no names" in done.stdout
    assert "description" not in done.stdout


def test_each_field_is_checked(dispatch: Dispatch) -> None:
    exported(dispatch)
    told = description()
    entries, note = exported_by_us.entries_in(json.dumps(told))
    assert (entries["classes"], note) == (told["classes"], "")
    for changed in WRONG:
        entries, note = exported_by_us.entries_in(json.dumps({**told, **changed}))
        assert entries == {}, changed
        assert note.startswith(
            f"the file's own description is ignored: its {next(iter(changed))!r} is "
        )
        assert len(note) < 500


@pytest.mark.parametrize("changed", [WRONG[9], {"mean": [math.nan] * 3}, {"fit": "\x1b[2J"}])
def test_wrong_ones_are_ignored_with_a_note(changed: dict[str, Any], dispatch: Dispatch) -> None:
    exported(dispatch)
    redescribed(json.dumps({**description(), **changed}))
    note = f"the file's own description is ignored: its {next(iter(changed))!r} is "
    done = dispatch(*IMPORT, *GIVEN)
    assert done.returncode == 0, done.output
    assert note in done.stdout
    entries = checkpoints.read(Path("again.pth"))
    assert (entries["mean"], entries["classes"][2]) == ([0.0] * 3, "2")
    refused = dispatch(*IMPORT, "--force")
    assert refused.returncode == 2
    assert "does not fit the model" in refused.stderr
    assert f"Note: {note}" in refused.stderr
    assert "\x1b" not in done.output + refused.output


def test_names_that_steer_a_terminal(dispatch: Dispatch) -> None:
    exported(dispatch)
    names = [f"\x1b[2J\ud800 {i}" for i in range(NUM_CLASSES)]
    redescribed(json.dumps({**description(), "classes": names}))
    done = dispatch(*IMPORT)
    assert done.returncode == 0, done.output
    assert checkpoints.read(Path("again.pth"))["classes"] == names
    shown = dispatch("predict", "again.pth", *images())
    assert shown.returncode == 0, shown.output
    assert "\x1b" not in shown.output
    assert "[2J" in shown.stdout


def test_another_number_of_names(dispatch: Dispatch) -> None:
    exported(dispatch)
    redescribed(json.dumps({**description(), "classes": ["a", "b"]}))
    done = dispatch(*IMPORT)
    assert done.returncode == 2
    assert "give data.num_classes=N" in done.stderr
    done = dispatch(*IMPORT, f"data.num_classes={NUM_CLASSES}")
    assert done.returncode == 0, done.output
    assert f"names 2 classes and has {NUM_CLASSES}: the names are not used" in done.stdout
    entries = checkpoints.read(Path("again.pth"))
    assert (entries["classes"][1], entries["mean"]) == ("1", [0.4, 0.5, 0.6])


def test_no_memory_is_taken_at_its_word(dispatch: Dispatch) -> None:
    """A layer of these sizes has 34 GB; its tensors, which are looked at first, do not."""
    exported(dispatch)
    large = {"shape": [1, 2**13, 2**13], "mean": [0.0], "std": [1.0], "classes": ["x"] * 2**17}
    redescribed(json.dumps({**description(), **large}))
    done = dispatch(*IMPORT)
    assert done.returncode == 2, done.output
    assert "does not fit the model" in done.stderr


@pytest.mark.parametrize("command", ["evaluate", "predict", "export"])
def test_it_is_no_checkpoint(command: str, dispatch: Dispatch) -> None:
    exported(dispatch)
    words = {"evaluate": [], "predict": images(), "export": ["--format=state_dict"]}[command]
    done = dispatch(command, "net.safetensors", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert "net.safetensors: this is a safetensors file, which holds weights alone" in done.stderr
    assert "import-weights FILE --model NAME -o FILE.pth" in done.stderr
    assert ("model=... data=..." in done.stderr) == (command == "predict")


def test_what_predict_is_told_of_it(dispatch: Dispatch) -> None:
    exported(dispatch)
    words = ("model=mlp", "data=synthetic", "data.shape=[3,9,12]",
             f"data.num_classes={NUM_CLASSES}", "data.fit=squash")  # fmt: skip
    (row,) = predicted(dispatch, "net.safetensors", images()[0], *words)
    assert sum(best["probability"] for best in row["top"]) > 2  # sigmoids, as the file says


def test_missing_files_are_told_by_what_is_taken(dispatch: Dispatch) -> None:
    done = dispatch("model=mlp", "weights=net.bin", "hydra.run.dir=run")
    assert done.returncode == 2
    assert "weights=net.bin: there is no such file. Give a checkpoint, a .pth or" in done.stderr
    done = dispatch("import-weights", "nofile", "--model=mlp", "-o", "x.pth")
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "nofile: there is no such file. Give a .pth of torch.save, a .safetensors, or a MATLAB v5 "
        ".mat of MatConvNet."
    )
    assert "A checkpoint is a run's folder or a .pth file" in dispatch("evaluate", "nofile").stderr


def test_lack_of_memory_is_not_the_files_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"w": torch.ones(3)}, path)

    def load(content: bytes) -> None:
        raise MemoryError

    monkeypatch.setattr(safetensors_files, "load", load)
    with pytest.raises(MemoryError):
        read(path, {})


@pytest.mark.parametrize("length", [2**34, 2**40])
def test_headers_are_judged_before_the_file_is_read(length: int, tmp_path: Path) -> None:
    """Of a file larger than the memory, which takes no room on the disk."""
    path = tmp_path / "w.safetensors"
    with path.open("wb") as file:
        file.write(length.to_bytes(8, "little") + b"{")
        file.truncate(2**36)
    with pytest.raises(WeightsError, match="header"):
        read(path, {})
    assert safetensors_files.description_in(path) is None


def test_of_other_files_there_is_no_description(tmp_path: Path) -> None:
    for name, content in {"a": b"", "b": b"PK\x03\x04", "c": bytes(6) + b"\0\0{}"}.items():
        (tmp_path / name).write_bytes(content)
        assert safetensors_files.description_in(tmp_path / name) is None
    assert safetensors_files.description_in(tmp_path / "none") is None

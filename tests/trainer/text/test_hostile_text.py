"""No field of any file that is read steers the terminal, the log, a page or TensorBoard: each is
filled with what would, and every command is asked about it."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.helpers.commands import Finished, TrainedRun, run_trainer, train
from trainer import checkpoints

MARKS = "\x1b]0;owned\x07\x1b[2J\r\u202e\u200b<img src=x onerror=alert(1)>"
HIDDEN = set("\x1b\x07\r\u202e\u200b")
WORDS = (
    "data=synthetic", "data.num_train=64", "data.num_test=16", "data.shape=[1,8,8]",
    "data.num_classes=3", "model.hidden=[8]", "batch_size=8", "epochs=1", "limit_batches=1",
)  # fmt: skip

Program = Callable[..., Finished]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    return train(tmp_path_factory.mktemp("hostile"), *WORDS)


@pytest.fixture
def run(made: TrainedRun, tmp_path: Path) -> Path:
    shutil.copytree(made.folder, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Program:
    """The whole program inside this process, streams and all."""
    monkeypatch.chdir(tmp_path)
    import trainer.__main__ as program

    def call(*argv: str) -> Finished:
        out = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True)
        err = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True)
        with monkeypatch.context() as m:
            m.setattr(sys, "argv", ["trainer", *argv])
            m.setattr(sys, "stdout", out)
            m.setattr(sys, "stderr", err)
            m.setattr(sys, "path", list(sys.path))
            with pytest.raises(SystemExit) as ended:
                program.main()
            sys.stdout.flush()
            sys.stderr.flush()  # while they hold what is below them open
            said = [stream.buffer.getvalue().decode() for stream in (out, err)]  # type: ignore
        return Finished(int(ended.value.code or 0), *said)

    return call


def clean(done: Finished, folder: Path) -> None:
    """Nothing on the streams, in logs, in pages."""
    assert not HIDDEN & set(done.output), ascii(done.output)
    assert "Traceback" not in done.output
    for file in [*folder.rglob("*.log"), *folder.rglob("*.html")]:
        text = file.read_bytes().decode()
        assert not HIDDEN & set(text), file
        assert file.suffix != ".html" or "<img src=x" not in text, file


def fields(entries: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every textual field of a checkpoint, filled, one after the other."""
    tensors = entries["model"]
    first = next(iter(tensors))
    yield "classes", {**entries, "classes": [f"{MARKS}{k}" for k in range(3)]}
    yield "tensor", {**entries, "model": {**tensors, MARKS: torch.ones(1)}}
    renamed = {(MARKS if k == first else k): v for k, v in tensors.items()}
    yield "renamed tensor", {**entries, "model": renamed}
    yield "shape", {**entries, "shape": MARKS}
    yield "mean", {**entries, "mean": [MARKS]}
    yield "resize", {**entries, "resize": MARKS}
    yield "versions", {**entries, "versions": {MARKS: MARKS}}
    yield "data", {**entries, "data": MARKS}
    yield "an entry", {**entries, MARKS: MARKS}
    yield "config", {**entries, "config": MARKS}
    yield "step", {**entries, "step": MARKS}
    config = entries["config"]
    quoted = json.dumps(MARKS)
    for was, now in (
        ("models.mlp.MLP", json.dumps(f"models.{MARKS}")), ("device: auto", f"device: {quoted}"),
        ("precision: fp32", f"precision: {quoted}"), ("weights: null", f"weights: {quoted}"),
        ("activation: relu", f"activation: {quoted}"), ("epochs: 1", f"epochs: {quoted}"),
        ("epochs: 1", f"epochs: 1\n{quoted}: 1"), ("trust: []", f"trust: [{quoted}]"),
        ("init: default", f"init: {quoted}"), ("on_bad", f"{quoted}"),
    ):  # fmt: skip
        if was in config:
            yield f"config: {was}", {**entries, "config": config.replace(was, now)}


COMMANDS = {
    "evaluate": ["evaluate", "c.pth", "-o", "evaluated"],
    "predict": ["predict", "c.pth", "x.png"],
    "json": ["predict", "c.pth", "x.png", "--json"],
    "export": ["export", "c.pth", "--format", "state_dict", "-o", "e.pth", "--force"],
    "weights": [*WORDS, "weights=c.pth", "hydra.run.dir=again"],
    "import": ["import-weights", "c.pth", "--model", "mlp", "-o", "i.pth", "--force",
               "data.num_classes=3", "data.shape=[1,8,8]", "model.hidden=[8]"],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_fields_of_a_checkpoint(run: Path, program: Program, command: str, tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save("x.png")
    entries = checkpoints.read(run / "checkpoints" / "best.pth")
    seen = []
    for name, changed in fields(entries):
        try:
            checkpoints.write(tmp_path / "c.pth", changed)
        except Exception:  # what cannot be written by us can be by others
            torch.save({**changed, "digest": "0"}, tmp_path / "c.pth")
        shutil.rmtree("again", ignore_errors=True)
        done = program(*COMMANDS[command])
        clean(done, tmp_path)
        seen.append((name, done.returncode))
    assert len(seen) > 15
    assert dict(seen)["classes"] == 0 or command == "import"
    torch.save({**entries, "format": MARKS, "digest": MARKS}, tmp_path / "c.pth")
    clean(program(*COMMANDS[command]), tmp_path)
    torch.save({MARKS: torch.ones(1), "b": MARKS}, tmp_path / "c.pth")
    clean(program(*COMMANDS[command]), tmp_path)


def test_text_in_json_is_escaped(run: Path, program: Program, tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save("x.png")
    entries = checkpoints.read(run / "checkpoints" / "best.pth")
    checkpoints.write(tmp_path / "c.pth", {**entries, "classes": [f"{MARKS}{k}" for k in range(3)]})
    done = program(*COMMANDS["json"])
    top = json.loads(done.stdout)["top"]
    assert {row["class"] for row in top} == {f"{MARKS}{k}" for k in range(3)}
    assert done.stdout.isascii()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (".hydra/overrides.yaml", json.dumps([f"{MARKS}epochs=1"])),
        (".hydra/hydra.yaml", f"hydra:\n  runtime:\n    choices:\n      model: {MARKS}\n"
                              f"      data: {MARKS}\n"),
        (".hydra/config.yaml", f"data:\n  root: {json.dumps(MARKS)}\n# {MARKS}\n"),
        ("summary.json", json.dumps({"status": MARKS, "reason": MARKS, "device": MARKS,
                                     "checkpoint": MARKS, "versions": {MARKS: MARKS}})),
        ("summary.json", json.dumps({"status": "failed", "reason": MARKS})),
        ("summary.json", json.dumps({"status": "finished", "test_accuracy": MARKS})),
        ("metrics.jsonl", json.dumps({"step": 1, "epoch": 1, "split": MARKS, "loss": MARKS,
                                      "accuracy": 0.5, "lr": 1, "images_per_s": 1})),
        ("findings.json", json.dumps({MARKS: MARKS, "classes": [MARKS]})),
        ("trainer.log", MARKS),
        (".lock", MARKS),
    ],
)  # fmt: skip
def test_fields_of_a_runs_files(
    run: Path, program: Program, tmp_path: Path, name: str, content: str
) -> None:
    (run / name).write_text(content)
    again = run.with_name("other")
    shutil.copytree(run, again)
    for words in (["report", "run"], ["report", "."], ["resume", "run"], ["resume", "other",
                  "epochs=2"]):  # fmt: skip
        if name == "trainer.log":
            (run / name).unlink(missing_ok=True) if words[0] == "resume" else None
        done = program(*words)
        assert not HIDDEN & set(done.output), ascii(done.output)
    for file in tmp_path.rglob("*.html"):
        text = file.read_text()
        assert not HIDDEN & set(text)
        assert "<img src=x" not in text


def test_classes_found_are_clean_on_the_page(run: Path, program: Program) -> None:
    found = json.loads((run / "findings.json").read_text())
    found["classes"] = [f"{MARKS}{k}" for k in range(3)]
    (run / "findings.json").write_text(json.dumps(found))
    assert program("report", "run").returncode == 0
    page = (run / "report.html").read_text()
    assert not HIDDEN & set(page)
    assert "\\x1b]0;owned" in page
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page


@pytest.mark.slow
def test_names_of_folders_and_files(tmp_path: Path, program: Program) -> None:
    """Images of such names are trained on, evaluated and shown; a class folder of such a name is
    refused, one whose name is HTML is not."""
    name, shown = MARKS.replace("/", "|"), "=<img src=x onerror=alert(1)>"
    for split in ("train", "test"):
        for k in range(2):
            folder = tmp_path / "photos" / split / f"{shown}{k}"
            folder.mkdir(parents=True)
            for i in range(4):
                Image.new("L", (8, 8), 60 * k + i).save(folder / f"{name}{i}.png", "PNG")
    (tmp_path / "photos" / "train" / f"{shown}0" / f"{name}.png").write_bytes(b"no image")
    words = ("data=image_folder", "data.root=photos", "data.shape=[1,8,8]", "data.cache_dir=cache",
             "data.val_size=0.5",
             "model.hidden=[4]", "epochs=1", "batch_size=2", "hydra.run.dir=run")  # fmt: skip
    done = program(*words)
    assert done.returncode == 2, done.output
    clean(done, tmp_path)
    done = run_trainer(*words, "data.on_bad_image=skip", cwd=tmp_path)
    assert done.returncode == 0, done.output
    clean(done, tmp_path)
    best = "run/checkpoints/best.pth"
    for argv in (
        ["evaluate", best], ["predict", best, "photos/test"], ["predict", best, "photos"],
        ["predict", best, "photos/test", "--json"], ["report", "run"],
        ["predict", best, f"{name}nowhere.png"], ["evaluate", f"{name}.pth"], ["resume", name],
        ["predict", best, "photos/test", "-o", "copies"], [f"data.root={name}", *words[:1]],
        [f"{name}=1"], [name], ["report", name], ["evaluate", best, f"{name}=1"],
    ):  # fmt: skip
        done = program(*argv)
        clean(done, tmp_path)
    tags = tensorboard_text(tmp_path / "run" / "tensorboard")
    assert f"accuracy_per_class/{shown}0" in tags
    assert not HIDDEN & set(tags)
    for split in ("train", "test"):
        (tmp_path / "photos" / split / f"{shown}0").rename(tmp_path / "photos" / split / name)
    done = program(*words[:-1], "hydra.run.dir=again")
    assert done.returncode == 2
    clean(done, tmp_path)


def tensorboard_text(folder: Path) -> str:
    """All tags and texts of its events."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return json.dumps(events.Tags(), ensure_ascii=False, default=str)


@pytest.mark.slow
def test_onnx_metadata_is_clean(run: Path, program: Program, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    entries = checkpoints.read(run / "checkpoints" / "best.pth")
    checkpoints.write(tmp_path / "c.pth", {**entries, "classes": [f"{MARKS}{k}" for k in range(3)]})
    done = program("export", "c.pth", "--format", "onnx", "-o", "e.onnx")
    assert done.returncode == 0, done.output
    content = onnx.load(str(tmp_path / "e.onnx"))
    texts = {prop.key: prop.value for prop in content.metadata_props}
    assert json.loads(texts["classes"])[0] == f"{MARKS}0"
    for text in texts.values():
        assert not HIDDEN & set(text)


def test_the_twin_shows_what_is_no_threat(run: Path, program: Program, tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save("x.png")
    entries = checkpoints.read(run / "checkpoints" / "best.pth")
    checkpoints.write(tmp_path / "c.pth", {**entries, "classes": ["naïve <b>", "犬", "a b"]})
    done = program("evaluate", "c.pth")
    assert done.returncode == 0, done.output
    assert all(name in done.stdout for name in ("naïve <b>", "犬", "a b"))


def test_a_terminal_is_never_steered_by_a_subprocess(run: Path) -> None:
    """The same once more as a user meets it, through the operating system."""
    (run / ".hydra" / "overrides.yaml").write_text(json.dumps([MARKS]))
    done = subprocess.run(
        [sys.executable, "-m", "trainer", "report", "run"], cwd=run.parent, capture_output=True
    )
    assert not HIDDEN & set(done.stdout.decode() + done.stderr.decode())
    assert b"\\x1b]0;owned" in done.stdout

"""What does not belong among the files of a run is named and set aside, and the resume goes on: a
state under a wrong number, one of another training, pipes and folders. And what belongs there
stays, however it was changed."""

from __future__ import annotations

import functools
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers import processes, results
from tests.helpers.commands import Finished
from tests.helpers.tiny_training import TINY, refused, signal_at, whole_run
from trainer import checkpoints

LONG = f"step_{'9' * 240}.pth"


@pytest.fixture
def cut_off(tmp_path: Path) -> Path:
    """A run whose training is done and whose end was not; states of steps 4 and 8."""
    run = Path(shutil.copytree(whole_run(), tmp_path / "run"))
    (run / "summary.json").unlink()
    return run


def resume(run: Path, *words: str, prepare: processes.Prepare | None = None) -> processes.Ended:
    return processes.run(run.parent, "resume", "run", *words, prepare=prepare)


def copy_state(run: Path, source: Path, step: int) -> Path:
    """A state whose inside agrees with its name."""
    entries = checkpoints.read(source)
    entries["step"] = entries["progress"]["step"] = step
    path = run / "checkpoints" / f"step_{step}.pth"
    checkpoints.write(path, entries)
    return path


def newest_of(run: Path) -> Path:
    return checkpoints.states_in(run / "checkpoints")[-1]


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The newest state of a training of another net on other data."""
    folder = tmp_path_factory.mktemp("foreign")
    words = ("model=lenet5", "data=mnist_5k", "limit_batches=1", "epochs=1", "tensorboard=false")
    processes.train(folder, *words)
    return newest_of(folder / "run")


# --- states under a wrong number ------------------------------------------------------------------


def test_a_state_under_a_wrong_number_is_set_aside(cut_off: Path) -> None:
    states = cut_off / "checkpoints"
    shutil.copy(states / "step_4.pth", states / "step_99.pth")
    ended = resume(cut_off)
    assert ended.code == 0, ended.output
    assert "step_99.pth: is the state of step 4, which contradicts its name." in ended.output
    assert results.started_at(ended.output) == 8
    assert (states / "step_99.pth.damaged").read_bytes() == (states / "step_4.pth").read_bytes()
    results.assert_same(cut_off, whole_run())


@pytest.mark.slow
def test_what_was_set_aside_before_stays(cut_off: Path) -> None:
    states = cut_off / "checkpoints"
    for content in (b"first", b"second", b"third"):
        (states / "step_99.pth").write_bytes(content)
        assert resume(cut_off).code == 0
        (cut_off / "summary.json").unlink()
    kept = sorted(path.read_bytes() for path in states.glob("step_99.pth.damaged*"))
    assert kept == [b"first", b"second", b"third"]


def test_a_name_too_long_to_be_changed_stays_and_pushes_no_state_out(cut_off: Path) -> None:
    states = cut_off / "checkpoints"
    for name in (LONG, LONG.replace("99", "98", 1)):
        (states / name).write_bytes(b"")
    ended = resume(cut_off, "epochs=3")
    assert ended.code == 0, ended.output
    assert (
        f"{LONG}: the file is empty. It could not be renamed: File name too long." in ended.output
    )
    assert results.started_at(ended.output) == 8
    assert (states / LONG).is_file()
    assert {"step_8.pth", "step_12.pth"} <= {path.name for path in states.iterdir()}


# --- states of another training -------------------------------------------------------------------


def test_a_state_of_another_training_is_set_aside(cut_off: Path, foreign: Path) -> None:
    path = copy_state(cut_off, foreign, 999)
    ended = resume(cut_off)
    assert ended.code == 0, ended.output
    assert "step_999.pth: is of another run: " in ended.output
    assert "model._target_ is models.lenet.LeNet5, not models.mlp.MLP" in ended.output
    assert results.started_at(ended.output) == 8
    assert path.with_name("step_999.pth.damaged").is_file()
    results.assert_same(cut_off, whole_run())


def test_without_the_runs_configuration_the_other_checkpoints_tell(
    cut_off: Path, foreign: Path
) -> None:
    copy_state(cut_off, foreign, 999)
    (cut_off / ".hydra" / "config.yaml").write_bytes(b"\xff")
    ended = resume(cut_off)
    assert ended.code == 0, ended.output
    assert "most checkpoints beside it have another model" in ended.output
    results.assert_same(cut_off, whole_run())


@pytest.mark.slow
def test_two_foreign_states_do_not_outvote_the_run(cut_off: Path, foreign: Path) -> None:
    for step in (998, 999):
        copy_state(cut_off, foreign, step)
    (cut_off / "checkpoints" / "best.pth").unlink()
    (cut_off / "checkpoints" / "step_4.pth").unlink()
    ended = resume(cut_off)
    assert ended.code == 0, ended.output
    assert results.started_at(ended.output) == 8


@pytest.mark.slow
def test_a_foreign_state_alone_is_none_to_go_on_from(cut_off: Path, foreign: Path) -> None:
    for path in (cut_off / "checkpoints").iterdir():
        path.unlink()
    copy_state(cut_off, foreign, 999)
    refused(resume(cut_off), "is of another run", "no intact state")


@pytest.mark.slow
def test_the_same_net_of_another_size_is_another_training(cut_off: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    processes.train(tmp_path / "other", *TINY, "model.hidden=[9]")
    copy_state(cut_off, newest_of(tmp_path / "other" / "run"), 999)
    ended = resume(cut_off)
    assert "step_999.pth: is of another run: model.hidden is [9], not [8]" in ended.output
    results.assert_same(cut_off, whole_run())


CHANGED = [("epochs=4",), ("--force", "epochs=4", "optimizer.lr=1", "seed=5", "scheduler=plateau"),
           ("epochs=4", "device=cpu", "num_workers=0", "log_interval=1")]  # fmt: skip


@pytest.mark.parametrize("words", [CHANGED[1], *(pytest.param(w, marks=pytest.mark.slow)
                                                 for w in (CHANGED[0], CHANGED[2]))])  # fmt: skip
@pytest.mark.parametrize("alone", [False, True])
def test_a_changed_state_is_the_runs_own(
    cut_off: Path, words: tuple[str, ...], alone: bool
) -> None:
    """Stopped after its change, and gone on with by a plain resume."""
    stop = functools.partial(signal_at, signal.SIGTERM, 1, False)
    stopped = resume(cut_off, *words, prepare=stop)
    assert stopped.code == 143, stopped.output
    newest = newest_of(cut_off)
    if alone:
        for path in (cut_off / "checkpoints").iterdir():
            if path != newest:
                path.unlink()
    ended = resume(cut_off)
    assert ended.code == 0, ended.output
    assert "another training" not in ended.output
    assert f"resuming from step {checkpoints.step_of(newest)} of" in ended.output
    assert results.summary(cut_off)["epochs"] == 4
    assert not list(cut_off.rglob("step_*.damaged"))


def test_states_of_an_earlier_versions_fingerprint_are_the_runs_own(cut_off: Path) -> None:
    """Which the first resume replaces; --force has changed the new one besides."""
    for path in (*checkpoints.states_in(cut_off / "checkpoints"), cut_off / "checkpoints/best.pth"):
        entries = checkpoints.read(path)
        entries["config"] = entries["config"].replace("lr: 3", "lr: 2")
        if path.name != "step_8.pth":
            entries["data"] = "0" * 64
        checkpoints.write(path, entries)
    ended = resume(cut_off)
    assert ended.code == 0, ended.output
    assert results.started_at(ended.output) == 8


# --- pipes and folders ----------------------------------------------------------------------------


def no_file(path: Path, kind: str) -> None:
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
        (path / "own").write_text("kept")


PLACES = ["metrics.jsonl", "trainer.log", "checkpoints/last.pth", "checkpoints/best.pth",
          "checkpoints/step_99.pth", "summary.json"]  # fmt: skip
KINDS = [(name, kind) for name in PLACES for kind in ("pipe", "folder")]
FAST = [("metrics.jsonl", "pipe"), ("trainer.log", "pipe"), ("checkpoints/best.pth", "folder")]


@pytest.mark.parametrize(
    ("name", "kind"),
    [*FAST, *(pytest.param(*k, marks=pytest.mark.slow) for k in KINDS if k not in FAST)],
)
def test_what_is_no_file_is_set_aside(cut_off: Path, name: str, kind: str) -> None:
    no_file(cut_off / name, kind)
    ended = processes.Command(cut_off.parent, ["resume", "run", "epochs=3"]).wait(timeout_s=60)
    assert ended.code == 0, ended.output
    assert re.search(
        rf"{Path(name).name}: .*(is a folder, a pipe or a device|cannot be read)", ended.output
    )
    assert "Traceback" not in ended.output
    aside = cut_off / f"{name}.damaged"
    assert aside.is_fifo() if kind == "pipe" else (aside / "own").read_text() == "kept"
    assert (cut_off / name).is_file() != (name == "checkpoints/step_99.pth")
    assert results.summary(cut_off)["epochs"] == 3
    assert ended.output.count("a pipe or a device") <= 1, ended.output


def test_the_names_of_classes_are_not_read_from_a_pipe(dispatch: Callable[..., Finished]) -> None:
    os.mkfifo("names")
    Path("w.pth").write_bytes(b"x")
    done = dispatch(
        "import-weights", "w.pth", "--model", "mlp", "-o", "o.pth", "--classes", "names"
    )
    assert done.returncode == 2, done.output
    assert "--classes names: is no file but a folder, a pipe or a device" in done.stderr

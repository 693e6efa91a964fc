"""What stands beside the states, lost or damaged, does not stop a resume; what it cannot give back
is said. And what `resume` leaves alone."""

from __future__ import annotations

import functools
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from tests.campaigns import side_files
from tests.helpers import processes, results
from tests.helpers.tiny_training import TINY, refused, whole_run
from trainer import checkpoints, schedules
from trainer.runs.progress import Progress


@pytest.fixture
def cut_off(tmp_path: Path) -> Path:
    """A run whose training is done and whose end was not; its best epoch is the first of two."""
    run = Path(shutil.copytree(whole_run(), tmp_path / "outputs" / "run"))
    (run / "summary.json").unlink()
    return run


def resume(run: Path, *words: str, prepare: processes.Prepare | None = None) -> processes.Ended:
    return processes.run(run.parent.parent, "resume", str(run), *words, prepare=prepare)


# --- the best weights -----------------------------------------------------------------------------


def test_lost_best_weights_come_back_from_a_state(cut_off: Path) -> None:
    (cut_off / "checkpoints" / "best.pth").write_bytes(b"damaged")
    ended = resume(cut_off)
    assert ended.code == 0, ended.output
    assert "best.pth: damaged" in ended.output
    assert "rewritten from the state of step 4" in ended.output
    assert (cut_off / "checkpoints" / "best.pth.damaged").read_bytes() == b"damaged"
    results.assert_same(cut_off, whole_run())
    assert results.summary(cut_off)["lost_best_epoch"] is None


@pytest.mark.parametrize("how", ["missing", pytest.param("damaged", marks=pytest.mark.slow)])
def test_what_no_state_has_is_gone_and_said(cut_off: Path, how: str) -> None:
    folder = cut_off / "checkpoints"
    (folder / "step_4.pth").unlink()
    (folder / "best.pth").unlink()
    if how == "damaged":
        (folder / "best.pth").write_bytes(b"")
    for _ in range(2):  # the second is of a run that is finished, made longer
        ended = resume(cut_off, "epochs=3") if _ else resume(cut_off)
        assert ended.code == 0, ended.output
        summary = results.summary(cut_off)
        assert summary["lost_best_epoch"] == 1
    assert summary["best_epoch"] in (2, 3)
    rows = {(row["epoch"], row["split"]): row for row in results.rows(cut_off)}
    assert summary["val_accuracy"] == rows[summary["best_epoch"], "val"]["accuracy"]
    assert checkpoints.read(folder / "best.pth")["epoch"] == summary["best_epoch"]


# --- side files -----------------------------------------------------------------------------------


def flip(file: Path, at: int = 10) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 0x80
    file.write_bytes(bytes(content))


@pytest.mark.parametrize(
    "name", [".hydra/hydra.yaml", ".hydra/config.yaml", ".hydra/overrides.yaml", "summary.json"]
)
def test_a_damaged_side_file_is_named_and_the_run_goes_on(cut_off: Path, name: str) -> None:
    shutil.copy(whole_run() / "summary.json", cut_off)
    if name != "summary.json":
        (cut_off / "summary.json").unlink()
    flip(cut_off / name)
    spoilt = (cut_off / name).read_bytes()
    ended = resume(cut_off)
    assert ended.code == 0, ended.output
    assert f"{Path(name).name}: cannot be read" in ended.output
    assert (cut_off / f"{name}.damaged").read_bytes() == spoilt
    assert "mlp: " in ended.output  # the choice's name, from wherever
    results.assert_same(cut_off, whole_run())


def test_unreadable_rows_are_named_and_kept_aside(cut_off: Path) -> None:
    file = cut_off / "metrics.jsonl"
    spoilt = file.read_bytes()
    flip(file)
    ended = resume(cut_off)
    assert ended.code == 0, ended.output
    assert "1 of its lines cannot be used (1)" in ended.output
    assert "the curves lack epoch 1" in ended.output
    assert len((cut_off / "metrics.jsonl.damaged").read_bytes()) == len(spoilt)
    assert results.rows(cut_off) == results.rows(whole_run())[1:]


def test_a_row_out_of_order_is_none(cut_off: Path) -> None:
    file = cut_off / "metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([lines[0], lines[1].replace('"step": 4', '"step": 94'), *lines[2:]]))
    ended = resume(cut_off)
    assert "1 of its lines cannot be used (2)" in ended.output
    assert results.rows(cut_off) == [r for i, r in enumerate(results.rows(whole_run())) if i != 1]


@pytest.mark.slow
@pytest.mark.parametrize("copies", [90, pytest.param(300, marks=pytest.mark.slow)])
def test_mutated_side_files(tmp_path: Path, copies: int) -> None:
    processes.train(tmp_path, *side_files.WORDS)
    found = side_files.campaign(tmp_path / "run", copies, seed=copies)
    assert sum(statuses.total() for statuses in found.values()) == copies
    assert found["summary.json"]["unreadable"] > 0
    assert found["summary.json"].total() > found["summary.json"]["unreadable"]


def test_files_of_the_users_own_stay(cut_off: Path) -> None:
    own = [".foo.tmp.1", "checkpoints/.step_4.pth.tmp.x", "checkpoints/.mine.pth.tmp.12",
           "checkpoints/step_04.pth", "checkpoints/notes", "figures"]  # fmt: skip
    ours = ["checkpoints/.step_8.pth.tmp.99", ".summary.json.tmp.7", "checkpoints/.last.pth.tmp.1"]
    for name in (*own, *ours):
        (cut_off / name).write_text("x")
    ended = resume(cut_off)
    assert ended.code == 0, ended.output
    assert [name for name in own if not (cut_off / name).is_file()] == []
    assert [name for name in ours if (cut_off / name).exists()] == []


# --- which run ------------------------------------------------------------------------------------


def test_a_failed_run_is_left_out_unless_it_is_named(cut_off: Path) -> None:
    older = cut_off
    failed = Path(shutil.copytree(older, older.with_name("failed")))
    (failed / "summary.json").write_text('{"status": "failed", "reason": "it was NaN"}')
    later = time.time() + 100
    os.utime(failed / "checkpoints", (later, later))
    cwd = older.parent.parent
    ended = processes.run(cwd, "resume")
    assert ended.code == 0, ended.output
    assert "it was NaN" in ended.output
    assert "trainer resume outputs/failed" in ended.output
    assert results.summary(older)["status"] == "finished"
    refused(processes.run(cwd, "resume"), "no unfinished run", "trainer resume outputs/failed")
    assert resume(failed).code == 0


def test_killed_on_the_way_to_more_epochs_it_is_unfinished(cut_off: Path) -> None:
    shutil.copy(whole_run() / "summary.json", cut_off)
    ended = resume(cut_off, "epochs=4", prepare=die_in_training)
    assert ended.code == -9
    assert not (cut_off / "summary.json").exists()


def die_in_training() -> None:
    import signal

    from trainer.training import loop

    loop.train_step = lambda *_: os.kill(os.getpid(), signal.SIGKILL)


# --- the last write, and a clock that stands ------------------------------------------------------


def last_summary_fails(before_rename: bool) -> None:
    """The disk confirms neither this file nor, if it is renamed, its folder."""
    from trainer.system.files import write_bytes

    write = write_bytes

    def writing(path: Path, content: Any) -> None:
        if path.name != "summary.json":
            return write(path, content)
        if not before_rename:
            write(path, content)
        raise OSError(5, "Input/output error", str(path))

    from trainer.monitoring import summary

    summary.write_bytes = writing


@pytest.mark.slow
@pytest.mark.parametrize("before_rename", [True, False])
def test_a_result_that_the_disk_does_not_confirm(tmp_path: Path, before_rename: bool) -> None:
    prepare = functools.partial(last_summary_fails, before_rename)
    ended = processes.run(tmp_path, *TINY, "hydra.run.dir=run", prepare=prepare)
    refused(ended, "summary.json: Input/output error", "training is finished", code=1)
    if before_rename:
        assert "trainer resume run" in ended.output
    else:
        assert "There is nothing to resume" in ended.output
        assert results.summary(tmp_path / "run")["status"] == "finished"
        return
    assert processes.run(tmp_path, "resume", "run").code == 0
    results.assert_same(tmp_path / "run", whole_run())


def clock_stands() -> None:
    time.monotonic = lambda: 1000.5  # type: ignore[assignment]


def test_a_clock_that_shows_no_time(tmp_path: Path) -> None:
    ended = processes.run(tmp_path, *TINY, "hydra.run.dir=run", prepare=clock_stands)
    assert ended.code == 0, ended.output
    assert results.summary(tmp_path / "run")["images_per_s"] is None
    assert "trained for 0.0 s, 8 steps" in ended.output


def test_another_kind_of_cpu_is_told(cut_off: Path) -> None:
    state = checkpoints.states_in(cut_off / "checkpoints")[-1]
    entries = checkpoints.read(state)
    for cpu, said in ((entries["machine"]["cpu"], False), ("ABACUS", True), (None, False)):
        entries["machine"] = {k: v for k, v in entries["machine"].items() if k != "cpu"}
        if cpu:
            entries["machine"]["cpu"] = cpu
        checkpoints.write(state, entries)
        ended = resume(cut_off)
        assert ended.code == 0, ended.output
        assert ("cpu was" in ended.output) == said
        (cut_off / "summary.json").unlink()


# --- --force --------------------------------------------------------------------------------------


def test_another_batch_size_goes_on_along_the_same_schedule(cut_off: Path) -> None:
    """The rate of each step is that of the share of the epochs that is done."""
    ended = resume(cut_off, "--force", "batch_size=16", "epochs=4")
    assert ended.code == 0, ended.output
    rates = {r["epoch"]: r["lr"] for r in results.rows(cut_off) if r["split"] == "train"}
    timing = {"total_steps": 8, "steps_per_epoch": 2, "warmup_steps": 0}
    cosine = schedules.Cosine(**timing)
    assert [rates[3], rates[4]] == pytest.approx([3 * cosine.factor(5), 3 * cosine.factor(7)])
    assert results.summary(cut_off)["steps"] == 12


def test_a_place_in_an_epoch_in_batches_of_another_size() -> None:
    assert Progress(batch=3).with_batch_size(64, 128).batch == 2
    assert Progress(batch=4).with_batch_size(64, 128).batch == 2
    assert Progress(batch=3).with_batch_size(64, 64).batch == 3
    assert Progress(batch=1).with_batch_size(64, 8).batch == 8


FORCED = [
    "scheduler=plateau", "scheduler=one_cycle", "seed=5", "limit_batches=1", "loss=mse",
    "precision=fp64", "precision=fp16", "clip_grad_norm=1", "augment=none", "optimizer.lr=1",
    "optimizer.weight_decay=0.1", "eval_every_epochs=2", "deterministic=true", "layers=numpy",
    "channels_last=true", "scheduler.warmup_steps=2", "model.dropout=0.5", "data.mean=[0.4]",
]  # fmt: skip
REFUSED = ["epochs=1", "weights=x.pth", "replace_head=true", "optimizer=sgd", "data=mnist_5k",
           "model.hidden=[9]", "data.num_train=60", "data.val_size=0.2"]  # fmt: skip


@pytest.mark.parametrize(
    ("word", "code"),
    [(w, 0) for w in FORCED[:2]] + [(w, 2) for w in REFUSED[:2]]
    + [pytest.param(w, 0, marks=pytest.mark.slow) for w in FORCED[2:]]
    + [pytest.param(w, 2, marks=pytest.mark.slow) for w in REFUSED[2:]],
)  # fmt: skip
def test_every_key_with_force_works_or_is_refused(cut_off: Path, word: str, code: int) -> None:
    more = [] if word.startswith("epochs") else ["epochs=4"]
    ended = resume(cut_off, "--force", word, *more)
    assert ended.code == code, ended.output
    assert "Traceback" not in ended.output
    if code:
        assert len(ended.output.splitlines()) < 12, ended.output
    else:
        summary = json.loads((cut_off / "summary.json").read_text())
        assert (summary["status"], summary["epochs"]) == ("finished", 4)

"""The measured phases are those that there are, and measuring changes no bit of a training."""

from __future__ import annotations

import contextlib
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trainer.builders import training_run
from trainer.checkpoints import weights_sha256
from trainer.config import compose
from trainer.monitoring import profiling
from trainer.monitoring.profiling import Clock, memory_by_phase
from trainer.system.signals import StopSignals
from trainer.training import loop
from trainer.training.run import Run

CPU = torch.device("cpu")
WORDS = ("model.dropout=0.3", "epochs=2", "limit_batches=25", "batch_size=16")


def make_run(folder: Path, *words: str) -> Run:
    composer = compose.Composer(compose.parse([*WORDS, *words]))
    config = compose.plain(composer.jobs(composer.master())[0])
    folder.mkdir()
    return training_run.build(config, folder, StopSignals())


def test_a_phase_inside_another_interrupts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(profiling.time, "monotonic", lambda: now)
    clock = Clock(CPU)
    now = 1.0
    with clock.phase("forward"):
        now = 3.0
        with clock.phase("backward"):
            now = 7.0
        now = 8.0
    now = 16.0
    with contextlib.suppress(RuntimeError), clock.phase("data"):
        now = 32.0
        raise RuntimeError
    now = 64.0
    clock.switch("other")
    assert clock.seconds == {"other": 1 + 8 + 32, "forward": 2 + 1, "backward": 4, "data": 16}
    assert clock.counts == {"forward": 1, "backward": 1, "data": 1}


def event(ts: float, amount: int, device: int = 0) -> dict[str, Any]:
    return {"ph": "i", "name": "[memory]", "ts": ts,
            "args": {"Device Type": device, "Total Allocated": amount}}  # fmt: skip


def phase(name: str, ts: float, dur: float) -> dict[str, Any]:
    return {"ph": "X", "cat": "user_annotation", "name": name, "ts": ts, "dur": dur}


def test_memory_is_that_of_the_innermost_phase(tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    assert memory_by_phase(file) == {}
    events = [
        event(1, -100), phase("forward", 2, 20), event(3, 400), event(4, 300),
        phase("backward", 5, 10), event(6, 900), event(14, 200), event(16, 250),
        phase("a kernel's", 17, 1), event(30, -50),
    ]  # fmt: skip
    file.write_text(json.dumps({"traceEvents": events}))
    assert memory_by_phase(file) == {"other": 50, "forward": 500, "backward": 1000}
    on_gpu = [*events, event(7, 7000, device=1), event(31, 1000, device=1)]
    file.write_text(json.dumps({"traceEvents": on_gpu}))
    assert memory_by_phase(file) == {"backward": 6000, "other": 0}


def test_a_watched_run_is_the_same_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trainer")
    plain, watched = make_run(tmp_path / "plain"), make_run(tmp_path / "watched", "profile=true")
    loop.fit(plain)
    watched.start()
    loop.fit(watched)
    for run in (plain, watched):
        run.close()
    assert weights_sha256(watched.model.state_dict()) == weights_sha256(plain.model.state_dict())

    phases = {"data", "forward", "backward", "check", "optimizer", "eval", "checkpoint",
              "other"}  # fmt: skip
    rows = {message.split()[0]: message.split() for message in caplog.messages}
    assert rows.keys() >= phases
    assert "step" not in rows
    assert all(rows[name][3] == "50" for name in ("forward", "backward", "check", "optimizer"))
    shares = [float(rows[name][2].rstrip("%")) for name in phases]
    assert sum(shares) == pytest.approx(100, abs=0.5)
    assert float(rows["backward"][-2]) > 0.4, "MB: the gradients of 109,386 weights"
    for name in phases - {"other"}:
        assert rows[name][-1] == "MB", "the steps that are traced go beyond an epoch's end"

    events = json.loads((tmp_path / "watched" / "profile" / "trace.json").read_bytes())
    traced = [e["name"] for e in events["traceEvents"] if e.get("cat") == "user_annotation"]
    assert traced.count("forward") == traced.count("optimizer") == profiling.NUM_TRACED
    points = EventAccumulator(str(tmp_path / "watched" / "tensorboard")).Reload()
    for name in phases - {"other"}:
        (point,) = points.Scalars(f"profile/{name}_ms")
        assert point.step == 50
        assert point.value > 0


def test_the_end_of_an_epoch_is_traced_beside_the_steps(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trainer")
    run = make_run(tmp_path / "run", "limit_batches=40", "epochs=1", "profile=true")
    run.start()
    loop.fit(run)
    run.close()
    rows = {message.split()[0]: message.split() for message in caplog.messages}
    assert all(rows[name][-1] == "MB" for name in ("forward", "eval", "checkpoint"))
    events = json.loads((tmp_path / "run" / "profile" / "trace_epoch_end.json").read_bytes())
    traced = {e["name"] for e in events["traceEvents"] if e.get("cat") == "user_annotation"}
    assert traced >= {"eval", "checkpoint"}
    assert not traced & {"forward", "backward"}


def test_a_run_that_fails_or_is_short_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trainer")
    run = make_run(
        tmp_path / "run", "optimizer.lr=1e30", "scheduler.warmup_steps=0", "profile=true"
    )
    run.start()
    with pytest.raises(Exception, match="NaN"):
        loop.fit(run)
    run.close()
    assert any(message.startswith("forward ") for message in caplog.messages)
    assert (tmp_path / "run" / "profile" / "trace.json").is_file()


@pytest.mark.slow
def test_a_compiled_step_is_one_phase(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trainer")
    run = make_run(tmp_path / "run", "model.hidden=[4]", "compile=step", "profile=true")
    run.start()
    loop.fit(run)
    run.close()
    rows = {message.split()[0]: message.split() for message in caplog.messages}
    assert rows["step"][3] == "50"
    assert rows["compile"][3] == "1"
    assert not {"forward", "backward", "optimizer"} & rows.keys()
    assert float(rows["compile"][4]) > 100 * float(rows["step"][4])  # ms

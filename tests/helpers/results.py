"""What a run left: compared with what the same run leaves when nothing happens to it."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

from trainer import checkpoints
from trainer.errors import UserError

Rows = list[dict[str, Any]]
Curves = dict[str, list[tuple[int, float]]]


def summary(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return content


def rows(run: Path) -> Rows:
    """metrics.jsonl without the one column that no two runs share."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "images_per_s"} for line in lines]


def curves(run: Path) -> Curves:
    """TensorBoard's points as it shows them, (step, value) per tag; of the speed, steps alone.

    The one point of the test counts once: a death after it, before summary.json, makes a second
    equal one."""
    if not (run / "tensorboard").is_dir():
        return {}
    from tensorboard.backend.event_processing import event_accumulator  # type: ignore

    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # that it purges is as it should be
    events = event_accumulator.EventAccumulator(str(run / "tensorboard"), {"scalars": 0}).Reload()
    found: Curves = {}
    for tag in sorted(events.Tags()["scalars"]):
        points = [(point.step, point.value) for point in events.Scalars(tag)]
        if tag.endswith("/test"):
            points = list(dict.fromkeys(points))
        if tag == "images_per_s":
            points = [(step, 0.0) for step, _ in points]
        found[tag] = points
    return found


def newest_step(run: Path) -> int:
    """The step of the newest state by its name, unread; 0 if there is none."""
    states = checkpoints.states_in(run / "checkpoints")
    return int(states[-1].stem.removeprefix("step_")) if states else 0


def sound_steps(run: Path) -> list[int]:
    """The steps of all states that can be read."""
    found = []
    for path in checkpoints.states_in(run / "checkpoints"):
        try:
            found.append(int(checkpoints.read(path)["step"]))
        except UserError:
            continue
    return found


def started_at(output: str) -> int:
    """The step that a `resume` said it goes on from."""
    told = re.search(r"resuming from step ([\d,]+)", output)
    assert told, output
    return int(told[1].replace(",", ""))


def leftovers(run: Path) -> list[str]:
    """Temporary files that nobody tidied up."""
    return [path.name for path in run.rglob("*") if ".tmp." in path.name]


def assert_same(run: Path, whole: Path) -> None:
    """The same bits, best epoch, rows and curves, each once, and nothing lying about."""
    assert_same_but_curves(run, whole)
    have, want = curves(run), curves(whole)
    differ = {tag: (have.get(tag), want.get(tag)) for tag in {**have, **want}
              if have.get(tag) != want.get(tag)}  # fmt: skip
    assert not differ, differ


def assert_same_but_curves(run: Path, whole: Path) -> None:
    have, want = summary(run), summary(whole)
    assert have["status"] == "finished"
    told = ("weights_sha256", "average_sha256", "steps", "epochs", "best_epoch", "val_accuracy",
            "test_accuracy", "test_loss")  # fmt: skip
    assert {key: have.get(key) for key in told} == {key: want.get(key) for key in told}
    assert rows(run) == rows(whole)
    best, best_of_whole = (
        checkpoints.read(folder / "checkpoints" / "best.pth") for folder in (run, whole)
    )
    assert best["epoch"] == want["best_epoch"]
    assert checkpoints.digest(best["model"]) == checkpoints.digest(best_of_whole["model"])
    assert leftovers(run) == []

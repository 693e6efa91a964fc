"""The images of a run: that they are few, and that no signal, error or name is worth more."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.commands import read_json
from tests.helpers.visualizer_runs import (
    built,
    compose_words,
    events,
    finish,
    first_epoch,
    gallery_of,
)
from trainer.evaluation import plots
from trainer.evaluation.findings import Confusion
from trainer.evaluation.metrics import Metrics
from trainer.monitoring import tensorboard_images, visualizer
from trainer.monitoring.visualizer import Visualizer
from trainer.training import loop


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    return compose_words("model.hidden=[8]")


@pytest.mark.parametrize(
    ("epochs", "drawn"),
    [
        (1, [1]), (2, [1, 2]), (3, [1, 3]), (20, [1, 4, 16, 20]), (32, [1, 4, 16, 32]),
        (300, [1, 4, 16, 64, 256, 300]),
    ],
)  # fmt: skip
def test_which_epochs_are_drawn(epochs: int, drawn: list[int]) -> None:
    assert [n for n in range(1, epochs + 1) if visualizer.is_drawn(n, epochs)] == drawn


@pytest.mark.parametrize(("every", "drawn"), [(1, [1, 4, 5]), (2, [2, 5]), (3, [3, 5])])
def test_what_is_drawn_depends_on_no_clock(every: int, drawn: list[int], tmp_path: Path) -> None:
    """Of the epochs with a validation, whichever is the best."""
    config = compose_words("model.hidden=[8]", "epochs=5", f"eval_every_epochs={every}")
    run = built(config, tmp_path)
    loop.fit(run)
    run.close()
    found = events(tmp_path)
    for tag in ("confusion/val", "filters/hidden.0.weight"):
        assert [image.step for image in found.Images(tag)] == [len(run.train) * n for n in drawn]
    points = found.Scalars("accuracy_per_class/class 0")
    assert [point.step for point in points] == [len(run.train) * n for n in drawn]


def test_an_evaluation_collects_for_the_images(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `meter` gave is used, for the weights that it saw; without it there is a pass."""
    run = built(config, tmp_path)
    passes: list[Any] = []
    evaluate = loop.evaluate
    monkeypatch.setattr(loop, "evaluate", lambda *given: passes.append(1) or evaluate(*given))
    run.best.epoch = 1
    for split in ("val", "test"):
        of = getattr(run, split)
        evaluate(run.model, run.eval_loss, of, run.autocast, gallery_of(run).meter(split))
        if split == "val":
            gallery_of(run).best(run)
    gallery_of(run).meter("val")  # of a later epoch that was no better
    finish(run)
    assert passes == []
    found = read_json(tmp_path / "findings.json")

    other = Visualizer(tmp_path)
    other.finish(run, Metrics(1.0, 0.5, 40))
    assert passes == [1, 1]
    assert read_json(tmp_path / "findings.json") == found
    run.close()


def test_a_signal_ends_the_last_look(config: dict[str, Any], tmp_path: Path) -> None:
    run = built(config, tmp_path)
    seen: list[int] = []
    epoch = run.val.epoch

    def stopping(*args: Any, **options: Any) -> Any:
        for batch in epoch(*args, **options):
            seen.append(1)
            run.signals.received = 15
            yield batch
            yield batch

    run.val.epoch = stopping  # type: ignore[method-assign]
    finish(run)
    assert seen == [1]
    assert not (tmp_path / "findings.json").exists()
    run.close()
    assert events(tmp_path).Tags()["images"] == []


def test_no_image_is_worth_a_training(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    def broken(*given: Any) -> None:
        raise ValueError("no font")

    run = built(config, tmp_path)
    monkeypatch.setattr(tensorboard_images, "show_batch", broken)
    monkeypatch.setattr(visualizer, "write_findings", broken)
    monkeypatch.setattr(tensorboard_images, "show_classes", broken)
    monkeypatch.setattr(logging.getLogger("trainer"), "propagate", True)
    gallery_of(run).start(run)
    first_epoch(run)
    finish(run)
    run.close()
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        "the training images could not be made: ValueError: no font",
        "the images of epoch 1 could not be made: ValueError: no font",
        "the findings could not be made: ValueError: no font",
    ]
    tags = events(tmp_path).Tags()
    assert tags["graph"]  # the others go on
    assert "confusion/test" in tags["images"]


def test_more_classes_than_an_image_has_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run ends well, all that is shown stays small, and nothing is as large as the matrix."""
    num = plots.LARGEST_MATRIX + 1
    config = compose_words(
        "model.hidden=[2]", f"data.num_classes={num}", f"data.num_test={num}",
        f"data.num_train={2 * num}", "data.val_size=0.5", "data.shape=[1,4,4]",
    )  # fmt: skip
    monkeypatch.setattr(Confusion, "dense", None)
    monkeypatch.setattr(plots, "confusion_matrix", None)
    monkeypatch.setattr(logging.getLogger("trainer"), "warning", pytest.fail)
    run = built(config, tmp_path)
    first_epoch(run)
    finish(run)
    run.close()
    found = read_json(tmp_path / "findings.json")
    assert sum(count for _, _, count in found["test"]["confusion_cells"]) == num
    shown = events(tmp_path)
    for split in ("val", "test"):
        image = shown.Images(f"confusion/{split}")[0]
        assert max(image.width, image.height) < 1000


def test_a_hostile_class_name_is_only_a_name(config: dict[str, Any], tmp_path: Path) -> None:
    run = built(config, tmp_path)
    run.about.description.classes = ["</script><b>", "a/b", "\u202e\x00", "日本"]
    gallery_of(run).start(run)
    finish(run)
    run.close()
    written = json.loads((tmp_path / "findings.json").read_text())
    assert written["classes"] == run.about.description.classes
    assert "confusion/test" in events(tmp_path).Tags()["images"]

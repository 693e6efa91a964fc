"""stop_epoch: a training that stops after an epoch, saved, and is gone on with to the same bits."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.commands import run_trainer, train
from tests.helpers.small_sweeps import SMALL

WORDS = (*SMALL, "epochs=4", "model.dropout=0.3")
REASON = "stopped after epoch 2 (stop_epoch)"


def test_it_stops_and_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    whole = train(tmp_path, *WORDS, folder="whole")
    assert whole.summary["status"] == "finished"

    run = train(tmp_path, *WORDS, "stop_epoch=2")
    assert (run.summary["status"], run.summary["reason"]) == ("interrupted", REASON)
    assert (run.summary["epochs"], run.summary["test_accuracy"]) == (2, None)
    assert "Continue with: python -m trainer resume run" in run.command.stdout
    assert run.summary["weights_sha256"] != whole.summary["weights_sha256"]

    later = run_trainer("resume", "run", "stop_epoch=3", cwd=tmp_path)
    assert later.returncode == 0, later.output
    assert (run.summary["status"], run.summary["epochs"]) == ("interrupted", 3)

    # An epoch that has passed stops nothing, so the same words go on to the end.
    last = run_trainer("resume", "run", cwd=tmp_path)
    assert last.returncode == 0, last.output
    assert (run.summary["status"], run.summary["epochs"]) == ("finished", 4)
    assert run.summary["weights_sha256"] == whole.summary["weights_sha256"]
    assert run.summary["test_accuracy"] == whole.summary["test_accuracy"]


def test_the_last_epoch_is_an_end_and_no_stop(tmp_path: Path) -> None:
    run = train(tmp_path, *SMALL, "epochs=1", "stop_epoch=1")
    assert run.summary["status"] == "finished"
    refused = run_trainer(*SMALL, "stop_epoch=-1", "hydra.run.dir=other", cwd=tmp_path)
    assert refused.returncode == 2
    assert "stop_epoch=-1: must be a whole number at least 0" in refused.stderr

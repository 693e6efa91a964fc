"""A whole training, by what it leaves: files, figures, the same bits again."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from scipy.stats import binomtest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from tests.helpers.commands import Finished, TrainedRun, read_json, run_trainer, train

QUICK = ("epochs=2", "limit_batches=5")


def test_the_default_learns(default_run: TrainedRun) -> None:
    assert default_run.summary["test_accuracy"] >= 0.92
    assert default_run.summary["status"] == "finished"


def test_every_file_of_the_contract_is_there(default_run: TrainedRun) -> None:
    names = {str(p.relative_to(default_run.folder)) for p in default_run.folder.rglob("*")}
    steps = default_run.summary["steps"]
    for name in (
        ".hydra/config.yaml", "trainer.log", "metrics.jsonl", "summary.json", "tensorboard",
        f"checkpoints/step_{steps}.pth", "checkpoints/last.pth", "checkpoints/best.pth",
    ):  # fmt: skip
        assert name in names
    assert not [name for name in names if ".tmp" in name]
    last, newest = (default_run.best.with_name(n) for n in ("last.pth", f"step_{steps}.pth"))
    assert last.samefile(newest)


def test_how_sure_a_validation_accuracy_is_stands_above_the_epochs(default_run: TrainedRun) -> None:
    log = default_run.command.output
    near, half = (binomtest(k, 400).proportion_ci(method="wilson") for k in (380, 200))
    line = (
        f"val accuracy is of 400 images: at 0.95 within {0.95 - near.low:.3f} of the truth, at 0.5 "
        f"within {0.5 - half.low:.3f} (95 %)"
    )
    assert log.index(line) < log.index("epoch  1/20")
    assert log.count("of the truth") == 1


def test_metrics_rows(default_run: TrainedRun) -> None:
    rows = default_run.rows
    assert [row["split"] for row in rows] == ["train", "val"] * 20 + ["test"]
    steps = [row["step"] for row in rows]
    assert steps == sorted(steps)
    assert rows[-1]["step"] == rows[-2]["step"] == default_run.summary["steps"]
    keys = {"step", "epoch", "split", "loss", "accuracy", "lr", "images_per_s"}
    assert all(set(row) == keys for row in rows)
    assert rows[0]["lr"] > rows[-1]["lr"] > 0  # the default schedule falls
    assert math.log(10) > rows[0]["loss"] > 2 * rows[-3]["loss"]  # starts near chance, and falls


def test_the_summary_agrees_with_the_rows(default_run: TrainedRun) -> None:
    summary, rows = default_run.summary, default_run.rows
    val = [row for row in rows if row["split"] == "val"]
    best = max(val, key=lambda row: (row["accuracy"], -row["loss"], -row["epoch"]))
    assert summary["best_epoch"] == best["epoch"]
    assert summary["val_accuracy"] == best["accuracy"]
    assert summary["test_accuracy"] == rows[-1]["accuracy"]
    assert summary["test_loss"] == rows[-1]["loss"]
    assert (summary["epochs"], summary["steps"]) == (20, 20 * math.ceil(3600 / 64))
    assert summary["num_parameters"] == 784 * 128 + 128 + 128 * 64 + 64 + 64 * 10 + 10
    speed = 20 * 3600 / summary["train_s"]
    assert summary["images_per_s"] == pytest.approx(speed, rel=0.01)
    assert summary["peak_memory_bytes"] > 2**26
    assert Path(summary["checkpoint"]) == default_run.best


def test_tensorboard_holds_the_same_figures(default_run: TrainedRun) -> None:
    events = EventAccumulator(str(default_run.folder / "tensorboard")).Reload()
    for split in ("train", "val", "test"):
        rows = [row for row in default_run.rows if row["split"] == split]
        for quantity in ("loss", "accuracy"):
            points = events.Scalars(f"{quantity}/{split}")
            assert [point.step for point in points] == [row["step"] for row in rows]
            for point, row in zip(points, rows, strict=True):
                assert point.value == pytest.approx(row[quantity], rel=1e-6)
    assert {"lr", "images_per_s"} <= set(events.Tags()["scalars"])
    hparams = events.summary_metadata["_hparams_/session_start_info"]
    assert b"optimizer" in hparams.plugin_data.content
    assert b"mlp" in hparams.plugin_data.content
    experiment = events.summary_metadata["_hparams_/experiment"].plugin_data
    infos = HParamsPluginData.FromString(experiment.content).experiment.hparam_infos
    shown = sorted((not info.differs, info.name) for info in infos)[:5]  # TensorBoard's own rule
    assert {name for _, name in shown} == {"model", "data", "optimizer", "lr", "seed"}
    assert len(infos) > 5
    assert len(list((default_run.folder / "tensorboard").iterdir())) == 1  # no stray sub-runs


def test_checkpoints_describe_themselves_in_plain_types(default_run: TrainedRun) -> None:
    best = torch.load(default_run.best, map_location="cpu", weights_only=True)
    assert {"format", "model", "config", "classes", "shape", "mean", "std", "resize", "step",
            "epoch", "versions", "digest"} <= set(best)  # fmt: skip
    assert best["classes"] == list("0123456789")
    assert best["shape"] == [1, 28, 28]
    assert best["epoch"] == default_run.summary["best_epoch"]
    assert "models.mlp.MLP" in best["config"]
    last = torch.load(default_run.best.with_name("last.pth"), weights_only=True)
    assert {"optimizer", "progress", "best"} <= set(last)
    assert "optimizer" not in best


@pytest.mark.slow
def test_the_same_command_twice_gives_the_same_bits(tmp_path: Path) -> None:
    """With dropout; in two processes; and another seed gives others."""
    argv = (*QUICK, "model.dropout=0.3")
    first, again, other = (
        train(tmp_path, *argv, f"seed={seed}", folder=name)
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert first.summary["weights_sha256"] == again.summary["weights_sha256"]
    assert first.summary["weights_sha256"] != other.summary["weights_sha256"]
    pairs = [[{k: v for k, v in row.items() if k != "images_per_s"} for row in run.rows]
             for run in (first, again)]  # fmt: skip
    assert pairs[0] == pairs[1]


@pytest.mark.slow
def test_the_bits_do_not_depend_on_what_is_looked_at(tmp_path: Path) -> None:
    argv = (*QUICK, "model.dropout=0.3")
    often = train(tmp_path, *argv, "log_interval=1", folder="a")
    rarely = train(tmp_path, *argv, "log_interval=1000", folder="b")
    assert often.summary["weights_sha256"] == rarely.summary["weights_sha256"]
    assert [row["loss"] for row in often.rows] == [row["loss"] for row in rarely.rows]


@pytest.mark.slow
@pytest.mark.parametrize(
    "argv",
    [
        ("model=cifar_net", "data.shape=[3,32,32]", "optimizer=sgd", "scheduler=one_cycle"),
        ("model=lenet_caffe", "optimizer=adamw", "loss=bce", "scheduler=step", "precision=bf16"),
        ("optimizer=adagrad", "loss=mse", "scheduler=multistep", "precision=fp64"),
        ("optimizer=rmsprop", "loss=l1", "scheduler=exponential", "clip_grad_norm=1"),
        ("optimizer=adadelta", "scheduler=plateau", "deterministic=true", "precision=fp16"),
        ("scheduler=constant", "scheduler.warmup_steps=5", "channels_last=true", "num_threads=2"),
    ],
    ids=" ".join,
)
def test_every_choice_trains(tmp_path: Path, argv: tuple[str, ...]) -> None:
    run = train(tmp_path, *QUICK, *argv)
    losses = [row["loss"] for row in run.rows]
    assert all(math.isfinite(loss) for loss in losses)
    assert len({round(loss, 9) for loss in losses if loss}) > 1


def test_a_loss_that_blows_up_stops_the_run_and_spares_the_weights(tmp_path: Path) -> None:
    command = run_trainer(
        "optimizer=sgd", "optimizer.lr=1e30", "loss=mse", "loss.on=logits", "epochs=3",
        "scheduler=constant", "hydra.run.dir=run", cwd=tmp_path,
    )  # fmt: skip
    assert command.returncode == 1
    assert "NaN or infinite at step" in command.stderr
    assert "optimizer.lr" in command.stderr
    assert "Traceback" not in command.output
    summary = read_json(tmp_path / "run" / "summary.json")
    assert summary["status"] == "failed"
    assert "NaN" in summary["reason"]
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["checkpoint"] is None


def test_evaluate_refuses_a_damaged_file(default_run: TrainedRun, tmp_path: Path) -> None:
    content = bytearray(default_run.best.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "flipped.pth").write_bytes(content)
    done = run_trainer("evaluate", "flipped.pth", cwd=tmp_path)
    assert done.returncode == 2
    assert "flipped.pth" in done.stderr
    assert "damaged" in done.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["device=:"], "device=:"),
        (["device=[a"], "device=[a"),
        (["data.shape=[1,32,32]"], "data.shape"),
        (["data=../model/mlp"], "'../model/mlp'"),
        (["data.=1"], "data."),
        (["data.val_size=2"], "less than 1"),
        (["data=cifar100", "data.download=false", "data.root=a: b"], "a: b"),
        (["data=synthetic", "data.num_classes=3"], "data.num_classes=3"),
        (["loss=mse", "loss.on=pixels"], "loss.on=pixels"),
        (["epochs=3"], "'epochs'"),
    ],
)
def test_evaluate_refuses_wrong_values(
    default_run: TrainedRun, dispatch: Callable[..., Finished], words: list[str], expected: str
) -> None:
    done = dispatch("evaluate", str(default_run.best), *words)
    assert done.returncode == 2, done.output
    assert expected in done.stderr
    assert "Traceback" not in done.output
    assert len(done.stderr.splitlines()) < 30


@pytest.mark.slow
def test_evaluate_takes_the_whole_split(tmp_path: Path) -> None:
    run = train(tmp_path, *QUICK)
    done = run_trainer("evaluate", str(run.best), cwd=tmp_path)
    assert "test split, 1,000 images" in done.stdout


def test_a_quick_try_learns(tmp_path: Path) -> None:
    """One epoch is 57 steps; a warm-up of a hundred must not eat it up."""
    assert train(tmp_path, "epochs=1").summary["test_accuracy"] > 0.75


@pytest.mark.slow
def test_lenet5_on_real_digits(tmp_path: Path) -> None:
    accuracies = [
        train(tmp_path, "model=lenet5", f"seed={seed}", folder=str(seed)).summary["test_accuracy"]
        for seed in range(3)
    ]
    assert sum(accuracies) / 3 >= 0.96


@pytest.mark.slow
def test_mlp_on_sixty_thousand_real_images(tmp_path: Path) -> None:
    """Fashion-MNIST as Debian's package dataset-fashion-mnist ships it."""
    run = train(
        tmp_path, "model=mlp", "data=fashion_mnist", "epochs=5", "data.download=false",
        "data.root=/usr/share/datasets/fashion-mnist",
    )  # fmt: skip
    assert run.summary["test_accuracy"] >= 0.87
    assert run.summary["steps"] == 5 * math.ceil(54_000 / 64)

"""`layers=numpy` by the command line: the same training, the same checkpoints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.helpers.commands import ROOT, TrainedRun, run_trainer, train

QUICK = ("limit_batches=20", "epochs=1", "log_interval=1")


def losses_of(run: TrainedRun) -> list[float]:
    return [row["loss"] for row in run.rows]


def both(folder: Path, *words: str) -> tuple[TrainedRun, TrainedRun]:
    """The same training on torch's layers and on NumPy's."""
    torchs, numpys = (
        train(folder, f"layers={layers}", *words, folder=layers) for layers in ("torch", "numpy")
    )
    return torchs, numpys


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainedRun, TrainedRun]:
    """Twenty steps of each, with dropout, in float32."""
    return both(tmp_path_factory.mktemp("quick"), "model=mlp", "model.dropout=0.2", *QUICK)


@pytest.mark.slow
def test_twenty_steps_in_float32(quick: tuple[TrainedRun, TrainedRun]) -> None:
    torchs, numpys = (losses_of(run) for run in quick)
    assert len(torchs) >= 3
    assert numpys == pytest.approx(torchs, abs=1e-5)
    assert numpys != torchs  # these are not the same layers


@pytest.mark.slow
def test_checkpoints_go_from_either_to_the_other(quick: tuple[TrainedRun, TrainedRun]) -> None:
    for run, other in zip(quick, ("numpy", "torch"), strict=True):
        said = []
        for words in ([], [f"layers={other}"]):  # its own layers are the checkpoint's default
            done = run_trainer(
                "evaluate", str(run.best), "limit_batches=20", *words, cwd=run.folder
            )
            assert done.returncode == 0, done.output
            said.append(re.sub(r"[\d,]+ images/s|split: \d+", "", done.stdout))
        assert said[0] == said[1]  # loss to four digits, and every class
        assert f"accuracy {run.summary['test_accuracy']:.4f}" in said[0]


@pytest.mark.slow
def test_double_precision_checkpoints_are_evaluated_as_such(tmp_path: Path) -> None:
    for run in both(tmp_path, "model=lenet5", "precision=fp64", "epochs=1", "limit_batches=2"):
        for layers in ("torch", "numpy"):
            words = (f"layers={layers}", "limit_batches=2")
            done = run_trainer("evaluate", str(run.best), *words, cwd=run.folder)
            assert f"loss {run.summary['test_loss']:.4f}" in done.stdout, done.output


@pytest.mark.slow
@pytest.mark.parametrize("words", [["model=mlp"], ["model=lenet_caffe", "limit_batches=10"]])
def test_loss_curves_of_five_epochs(words: list[str], tmp_path: Path) -> None:
    """Whole epochs of lenet_caffe: benchmarks/numpy_curves.py."""
    torchs, numpys = both(tmp_path, *words, "precision=fp64", "epochs=5")
    assert len(torchs.rows) == 11
    assert losses_of(numpys) == pytest.approx(losses_of(torchs), abs=1e-8)


@pytest.mark.slow
def test_twenty_steps_of_lenet_in_float32(tmp_path: Path) -> None:
    torchs, numpys = (losses_of(run) for run in both(tmp_path, "model=lenet_caffe", *QUICK))
    assert numpys == pytest.approx(torchs, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least"), [("numpy_mlp", 0.92), ("numpy_lenet", 0.95)])
def test_the_experiments(name: str, least: float, tmp_path: Path) -> None:
    assert (ROOT / f"configs/experiment/{name}.yaml").is_file()
    run = train(tmp_path, f"experiment={name}")
    assert run.summary["test_accuracy"] >= least
    assert "layers: numpy" in (run.folder / ".hydra/config.yaml").read_text()


REFUSED = [
    (["device=cuda"], ["device=cuda", "layers=numpy", "cpu"]),
    (["device=mps"], ["device=mps", "layers=numpy", "cpu"]),
    (["precision=bf16"], ["precision=bf16", "layers=numpy", "fp64"]),
    (["precision=fp16"], ["precision=fp16", "layers=numpy", "fp32"]),
    (["channels_last=true"], ["channels_last=true", "layers=numpy"]),
    (["model=torchvision"], ["features.0.2", "Hardswish", "layers=numpy"]),
]


@pytest.mark.slow
@pytest.mark.parametrize(("words", "said"), REFUSED)
def test_what_numpy_cannot_do_is_refused(words: list[str], said: list[str], tmp_path: Path) -> None:
    done = run_trainer("layers=numpy", *words, cwd=tmp_path)
    assert done.returncode == 2, done.output
    assert all(word in done.output for word in said), done.output
    assert "Traceback" not in done.output
    assert not list(tmp_path.iterdir())
    if words[0].startswith(("precision", "channels_last")):  # torch's layers take them
        assert run_trainer("layers=torch", *words, "--cfg", "job", cwd=tmp_path).returncode == 0


def test_auto_takes_the_cpu() -> None:
    from trainer.system.device import available_devices, pick_device

    assert pick_device("auto", "numpy").type == "cpu"
    assert str(pick_device("auto", "torch")) == available_devices()[0]

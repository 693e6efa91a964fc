"""Weights from files into training, and into checkpoints, by the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from conftest import Finished, TrainedRun, run_trainer, train
from torch import nn

from trainer import checkpoint, weights
from trainer.errors import UserError

QUICK = ("epochs=1", "limit_batches=3")


def test_training_starts_from_a_checkpoint(default_run: TrainedRun, tmp_path: Path) -> None:
    run = train(tmp_path, *QUICK, f"weights={default_run.best}", "optimizer.lr=1e-9")
    assert run.rows[0]["accuracy"] > 0.9
    fresh = train(tmp_path, *QUICK, "optimizer.lr=1e-9", folder="fresh")
    assert fresh.rows[0]["accuracy"] < 0.5


def test_weights_that_do_not_fit_are_refused_with_a_list(
    default_run: TrainedRun, tmp_path: Path
) -> None:
    done = run_trainer(f"weights={default_run.best}", "model.hidden=[64]", cwd=tmp_path)
    assert done.returncode == 2
    assert "missing" in done.stderr or "unexpected" in done.stderr
    assert "misshapen (have -> want)" in done.stderr
    assert "(128, 784) -> (64, 784)" in done.stderr
    assert list(tmp_path.iterdir()) == []


def small_net(num_classes: int = 4) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, num_classes))


def test_only_the_head_may_be_replaced_and_only_when_asked() -> None:
    source = small_net(9).state_dict()
    model = small_net(4)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UserError, match="replace_head=true"):
        weights.load_into(model, source, replace_head=False)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert weights.load_into(model, source, replace_head=True) == ["2.weight", "2.bias"]
    assert torch.equal(model[0].weight, source["0.weight"])
    assert torch.equal(model[2].weight, before["2.weight"])


@pytest.mark.parametrize("replace_head", [True, False])
def test_the_model_is_untouched_when_more_than_the_head_differs(replace_head: bool) -> None:
    source = small_net(9).state_dict()
    source["0.weight"] = torch.zeros(6, 7)
    model = small_net(4)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UserError, match=r"0\.weight \(6, 7\) -> \(6, 5\)") as error:
        weights.load_into(model, source, replace_head)
    assert "replace_head" not in str(error.value)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_replace_head_by_the_command_line(default_run: TrainedRun, tmp_path: Path) -> None:
    argv = (*QUICK, f"weights={default_run.best}", "data=synthetic", "data.num_classes=7",
            "data.shape=[1,28,28]", "data.mean=[0.5]", "data.std=[0.2]")  # fmt: skip
    refused = run_trainer(*argv, cwd=tmp_path)
    assert refused.returncode == 2, refused.output
    assert "replace_head=true" in refused.stderr
    run = train(tmp_path, *argv, "replace_head=true")
    assert "starts afresh" in run.command.stdout


def test_frozen_parameters_do_not_move(tmp_path: Path) -> None:
    argv = (*QUICK, "model=cifar_net", "seed=3")
    names = [n for n in train(tmp_path, *argv, folder="a").command.stdout.split() if n]
    assert names
    whole = torch.load(tmp_path / "a" / "checkpoints" / "last.pth", weights_only=True)["model"]
    first = next(iter(whole)).rpartition(".")[0]
    frozen = train(tmp_path, *argv, f"freeze=['{first}.*']", folder="b")
    assert "parameters are left to train" in frozen.command.stdout
    after = torch.load(frozen.best.with_name("last.pth"), weights_only=True)["model"]
    again = train(tmp_path, *argv, f"freeze=['{first}.*']", "optimizer.lr=1", folder="c")
    other = torch.load(again.best.with_name("last.pth"), weights_only=True)["model"]
    for name in whole:
        moved = not torch.equal(after[name], other[name])  # another rate moves what is trained
        assert moved is not name.startswith(first + ".")


def test_a_pattern_that_matches_nothing_is_an_error(tmp_path: Path) -> None:
    done = run_trainer("freeze=['nolayer.*']", cwd=tmp_path)
    assert done.returncode == 2
    assert "freeze=nolayer.*" in done.stderr
    everything = run_trainer("freeze=['*']", cwd=tmp_path)
    assert everything.returncode == 2
    assert "nothing to train" in everything.stderr


def test_official_weights_without_network_say_which_file_goes_where(tmp_path: Path) -> None:
    done = run_trainer(
        "model=alexnet", "weights=IMAGENET1K_V1", "data=synthetic",
        cwd=tmp_path, TORCH_HOME=str(tmp_path / "hub"),
    )  # fmt: skip
    assert done.returncode == 2, done.output
    assert "alexnet-owt-7be5be79.pth" in done.stderr
    assert str(tmp_path / "hub") in done.stderr
    own = run_trainer("model=mlp", "weights=IMAGENET1K_V1", cwd=tmp_path)
    assert own.returncode == 2
    assert "no weights for this MLP" in own.stderr


@pytest.fixture
def torchvision_file(tmp_path: Path) -> tuple[Path, nn.Module]:
    """ResNet-18 as torch.save leaves it, wrapped and with DataParallel's prefix."""
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=1000).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2.0)
    wrapped = {"state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}}
    torch.save(wrapped, tmp_path / "theirs.pth")
    return tmp_path / "theirs.pth", model


def test_import_weights_of_torchvision(torchvision_file: tuple[Path, nn.Module]) -> None:
    file, theirs = torchvision_file
    done = run_trainer("import-weights", file.name, "--model", "resnet18", "-o", "ours.pth",
                       cwd=file.parent)  # fmt: skip
    assert done.returncode == 0, done.output
    assert "module." in done.stdout
    entries = checkpoint.read(file.parent / "ours.pth")
    assert len(entries["classes"]) == 1000
    assert entries["classes"][0] == "tench"
    assert entries["shape"] == [3, 224, 224]
    assert (entries["resize"], entries["mean"]) == (256, [0.485, 0.456, 0.406])

    from trainer import restore

    ours = restore.restore(entries, restore.stored_config(entries))
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)


def test_imported_weights_start_a_training(
    torchvision_file: tuple[Path, nn.Module], tmp_path: Path
) -> None:
    file, _ = torchvision_file
    run = train(
        tmp_path, *QUICK, "model=resnet18", "model.stem=imagenet", f"weights={file}",
        "replace_head=true", "freeze=['layer*']", "data.shape=[3,32,32]", "batch_size=8",
    )  # fmt: skip
    assert "fc.weight starts afresh" in run.command.stdout


def test_import_weights_refuses_what_does_not_fit(
    torchvision_file: tuple[Path, nn.Module],
) -> None:
    file, _ = torchvision_file
    done = run_trainer("import-weights", file.name, "--model", "vgg11", "-o", "ours.pth",
                       cwd=file.parent)  # fmt: skip
    assert done.returncode == 2
    assert "missing: " in done.stderr
    assert "Traceback" not in done.output
    assert not (file.parent / "ours.pth").exists()


def test_import_weights_of_matconvnet(tmp_path: Path) -> None:
    """A net of 11 layers in MatConvNet's layout, and back by name, shape and preprocessing."""
    import matconvnet_files

    from models.weights import WeightsError

    assert WeightsError
    assert matconvnet_files
    (tmp_path / "bad.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(np.arange(200) % 256))
    done = run_trainer("import-weights", "bad.mat", "--model", "vgg11", "-o", "x.pth", cwd=tmp_path)
    assert done.returncode == 2
    assert "bad.mat" in done.stderr
    assert "Traceback" not in done.output


Dispatch = Callable[..., Finished]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["import-weights", "no.pth", "--model", "vgg11", "-o", "x.pth"], "no.pth"),
        (["import-weights", "there.pth", "--model", "vgg99", "-o", "x.pth"], "vgg99"),
        (["import-weights", "there.pth", "--model", "vgg11", "-o", "no/x.pth"], "no folder no"),
        (["import-weights", "there.pth", "--model", "vgg11", "-o", "x.bin"], "ends in .pth"),
        (["import-weights", "there.pth", "--model", "vgg11", "-o", "x.pth", "epochs=1"], "epochs"),
        (["summary", "model=vgg99"], "vgg99"),
        (["summary", "--cfg", "job"], "key=value"),
    ],
)
def test_wrong_words(dispatch: Dispatch, tmp_path: Path, words: list[str], expected: str) -> None:
    (tmp_path / "there.pth").write_bytes(b"")
    done = dispatch(*words)
    assert done.returncode == 2
    assert expected in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["there.pth"]


def test_summary_counts_as_the_papers_do(dispatch: Dispatch) -> None:
    """LeNet-5 by hand: C1 156, C3 2,416, C5 48,120, F6 10,164, output 850."""
    done = dispatch("summary", "model=lenet5")
    assert done.returncode == 0
    for count in ("156", "2,416", "48,120", "10,164", "850", "61,706"):
        assert f" {count} " in done.stdout
    macs = 28 * 28 * 25 * 6 + 10 * 10 * 150 * 16 + 400 * 120 + 120 * 84 + 84 * 10
    assert f"{macs:,}" in done.stdout.splitlines()[-1]


def test_summary_needs_no_data_and_shows_enlarging(dispatch: Dispatch) -> None:
    done = dispatch("summary", "model=alexnet", "data=cifar10", "data.download=false",
                    "data.root=/does/not/exist")  # fmt: skip
    assert done.returncode == 0, done.output
    assert "3x63x63" in done.stdout
    assert "57,044,810" in done.stdout.splitlines()[-1]

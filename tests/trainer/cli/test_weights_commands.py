"""Weights from files into training, and into checkpoints, by the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from tests.helpers import matconvnet_files as mcn
from tests.helpers.commands import Finished, TrainedRun, run_trainer, train
from trainer import checkpoints
from trainer.builders import pretrained
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
        pretrained.load_into(model, source, False, "weights=x.pth")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert pretrained.load_into(model, source, True, "weights=x.pth") == ["2.weight", "2.bias"]
    assert torch.equal(model[0].weight, source["0.weight"])
    assert torch.equal(model[2].weight, before["2.weight"])


@pytest.mark.parametrize("replace_head", [True, False])
def test_the_model_is_untouched_when_more_than_the_head_differs(replace_head: bool) -> None:
    source = small_net(9).state_dict()
    source["0.weight"] = torch.zeros(6, 7)
    model = small_net(4)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UserError, match=r"0\.weight \(6, 7\) -> \(6, 5\)") as error:
        pretrained.load_into(model, source, replace_head, "weights=x.pth")
    assert "replace_head" not in str(error.value)
    assert "weights=x.pth" in str(error.value)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.slow
def test_replace_head_by_the_command_line(default_run: TrainedRun, tmp_path: Path) -> None:
    argv = (*QUICK, f"weights={default_run.best}", "data=synthetic", "data.num_classes=7",
            "data.shape=[1,28,28]")  # fmt: skip
    refused = run_trainer(*argv, cwd=tmp_path)
    assert refused.returncode == 2, refused.output
    assert "replace_head=true" in refused.stderr
    run = train(tmp_path, *argv, "replace_head=true")
    assert "is initialised" in run.command.stdout


@pytest.mark.slow
def test_frozen_parameters_do_not_move(tmp_path: Path) -> None:
    argv = (*QUICK, "model=cifar_net", "seed=3")
    train(tmp_path, *argv, folder="a")
    whole = torch.load(tmp_path / "a" / "checkpoints" / "last.pth", weights_only=True)["model"]
    first = next(iter(whole)).rpartition(".")[0]
    frozen = train(tmp_path, *argv, f"freeze=['{first}.*']", folder="b")
    assert "parameters are trained" in frozen.command.stdout
    after = torch.load(frozen.best.with_name("last.pth"), weights_only=True)["model"]
    again = train(tmp_path, *argv, f"freeze=['{first}.*']", "optimizer.lr=1", folder="c")
    other = torch.load(again.best.with_name("last.pth"), weights_only=True)["model"]
    for name in whole:
        moved = not torch.equal(after[name], other[name])  # another rate moves what is trained
        assert moved is not name.startswith(first + ".")


def test_a_frozen_batch_norm_keeps_its_statistics() -> None:
    from models.resnet import ResNet

    model = ResNet((3, 32, 32), 4, depth=18)
    pretrained.freeze(model, ["bn1.*", "layer1.*"])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()(torch.randn(2, 3, 32, 32))
    after = model.state_dict()
    assert torch.equal(before["bn1.running_mean"], after["bn1.running_mean"])
    assert torch.equal(before["layer1.0.bn1.running_var"], after["layer1.0.bn1.running_var"])
    assert not torch.equal(before["layer2.0.bn1.running_mean"], after["layer2.0.bn1.running_mean"])


@pytest.mark.slow
def test_each_job_of_a_sweep_gets_weights_for_its_own_net(
    default_run: TrainedRun, tmp_path: Path
) -> None:
    other = train(tmp_path, *QUICK, "model=lenet5", folder="other")
    done = run_trainer("--multirun", "model=mlp,lenet5", f"weights={other.best}", cwd=tmp_path)
    assert done.returncode == 2  # lenet5's do not fit mlp, and the message is about mlp's layers
    assert "missing" in done.stderr
    same = run_trainer(
        "--multirun", *QUICK, "seed=0,1", f"weights={default_run.best}", cwd=tmp_path
    )
    assert same.returncode == 0, same.output


@pytest.mark.slow
def test_a_pattern_that_matches_nothing_is_an_error(tmp_path: Path) -> None:
    done = run_trainer("freeze=['nolayer.*']", cwd=tmp_path)
    assert done.returncode == 2
    assert "freeze=nolayer.*" in done.stderr
    everything = run_trainer("freeze=['*']", cwd=tmp_path)
    assert everything.returncode == 2
    assert "nothing to train" in everything.stderr


@pytest.mark.slow
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


@pytest.mark.slow
def test_import_weights_of_torchvision(torchvision_file: tuple[Path, nn.Module]) -> None:
    file, theirs = torchvision_file
    done = run_trainer("import-weights", file.name, "--model", "resnet18", "-o", "ours.pth",
                       cwd=file.parent)  # fmt: skip
    assert done.returncode == 0, done.output
    assert "module." in done.stdout
    entries = checkpoints.read(file.parent / "ours.pth")
    assert len(entries["classes"]) == 1000
    assert entries["classes"][0] == "tench"
    assert entries["shape"] == [3, 224, 224]
    assert (entries["resize"], entries["mean"]) == (256, [0.485, 0.456, 0.406])

    from trainer.builders import restore
    from trainer.config import stored

    ours = restore.restore(entries, stored.configuration(entries))
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_imported_weights_start_a_training(
    torchvision_file: tuple[Path, nn.Module], tmp_path: Path
) -> None:
    file, _ = torchvision_file
    run = train(
        tmp_path, *QUICK, "model=resnet18", "model.stem=imagenet", f"weights={file}",
        "replace_head=true", "freeze=['layer*']", "data.shape=[3,32,32]", "batch_size=8",
    )  # fmt: skip
    assert "fc.weight is initialised" in run.command.stdout


@pytest.mark.slow
def test_import_weights_keeps_the_shape_that_was_asked_for(tmp_path: Path) -> None:
    """A small-stem ResNet with 1000 outputs is no ImageNet net, whatever its head looks like."""
    from models.resnet import ResNet

    torch.save(ResNet((3, 32, 32), 1000, depth=18).state_dict(), tmp_path / "small.pth")
    argv = ("import-weights", "small.pth", "--model", "resnet18", "-o", "ours.pth")
    done = run_trainer(*argv, "data.shape=[3,32,32]", cwd=tmp_path)
    assert done.returncode == 0, done.output
    entries = checkpoints.read(tmp_path / "ours.pth")
    assert (entries["shape"], entries["resize"]) == ([3, 32, 32], 32)

    from trainer.builders import restore
    from trainer.config import stored

    assert restore.restore(entries, stored.configuration(entries)).conv1.kernel_size == (3, 3)
    refused = run_trainer(*argv[:-1], "again.pth", cwd=tmp_path)
    assert refused.returncode == 2
    assert "conv1.weight (64, 3, 3, 3) -> (64, 3, 7, 7)" in refused.stderr


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("fields", ["weights", "filters"])
def test_import_weights_of_matconvnet(tmp_path: Path, fields: str) -> None:
    """The whole way: .mat in, checkpoint out, the net computes what the file computes."""
    rng = np.random.default_rng(0)
    blocks = [[64], [128], [256] * 2, [512] * 2, [512] * 2]  # configuration A
    layers = mcn.vgg(rng, blocks, hidden=[], num_classes=7, side=1)
    names = [f"thing {i}" for i in range(7)]
    sizes = {"imageSize": np.array([[32.0, 32.0, 3.0]]), "border": np.array([[4.0, 4.0]])}
    mcn.save(tmp_path / "theirs.mat", layers, fields=fields, meta=fields == "weights",
             descriptions=names, normalization=sizes)  # fmt: skip
    argv = ("import-weights", "theirs.mat", "--model", "vgg11", "-o", "ours.pth")
    done = run_trainer(*argv, "data.shape=[3,32,32]", "data.num_classes=7", cwd=tmp_path)
    assert done.returncode == 0, done.output

    from trainer.builders import restore
    from trainer.config import stored

    entries = checkpoints.read(tmp_path / "ours.pth")
    assert (entries["classes"], entries["shape"]) == (names, [3, 32, 32])
    net = restore.restore(entries, stored.configuration(entries))
    image = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].double() / 255
    mean, std = (torch.tensor(entries[key]).view(3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        ours = net(((pixels - mean) / std).float())[0].numpy()
    theirs = mcn.forward(layers, image, mcn.AVERAGE)
    assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max()


@pytest.mark.slow
def test_a_damaged_mat_file_ends_in_one_message(tmp_path: Path) -> None:
    (tmp_path / "bad.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(np.arange(200) % 256))
    done = run_trainer("import-weights", "bad.mat", "--model", "vgg11", "-o", "x.pth", cwd=tmp_path)
    assert done.returncode == 2
    assert "bad.mat" in done.stderr
    assert "Traceback" not in done.output
    assert not (tmp_path / "x.pth").exists()


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
